// A file that others read while it is written again and again.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "hesspect/core/errors.h"
#include "hesspect/watch/metrics.h"

namespace hesspect {

void write_text_file(const std::filesystem::path& path, std::string_view text) {
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  // Collectors of text files take NAME.prom: a name with a dot in front and the number behind is none.
  const std::string temporary = folder / ("." + path.filename().string() + ".tmp-" + std::to_string(::getpid()));
  const auto fail = [&](int error) {
    ::unlink(temporary.c_str());
    throw InputError("cannot write '" + path.string() + "': " + std::strerror(error));
  };
  ::unlink(temporary.c_str());  // of a process of this number that was killed
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) fail(errno);
  int error = 0;
  while (!text.empty() && error == 0) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written > 0)
      text.remove_prefix(static_cast<std::size_t>(written));
    else if (written == 0)
      error = ENOSPC;
    else if (errno != EINTR)
      error = errno;
  }
  if (::close(fd) != 0 && error == 0) error = errno;  // network file systems report a full disk here
  if (error == 0 && std::rename(temporary.c_str(), path.c_str()) != 0) error = errno;
  if (error != 0) fail(error);
}

}  // namespace hesspect
