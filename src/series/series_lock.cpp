#include "hesspect/series/series_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>

#include "hesspect/core/errors.h"
#include "hesspect/core/host.h"
#include "hesspect/core/log.h"
#include "hesspect/core/text.h"

namespace hesspect {

SeriesLock::SeriesLock(const std::filesystem::path& output) {
  const std::string file = output.string() + ".lock";
  fd_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd_ < 0) throw InputError("cannot write " + quote(file) + ": " + std::strerror(errno));
  while (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    const int error = errno;
    if (error != EWOULDBLOCK) {  // some network file systems have no locks
      log_warning(quote(file) + " cannot be locked (" + std::strerror(error) +
                  "): a second series on this output would not be noticed");
      return;
    }
    ::close(fd_);
    std::string holder;
    std::getline(std::ifstream(file), holder);
    throw UsageError("another series is at work on " + quote(output.string()) +
                     (holder.empty() ? "" : " (" + one_line(holder) + ")") +
                     ": wait until it ends, or give this one another --output");
  }
  const std::string text = "host " + host_name() + ", process " + std::to_string(::getpid()) + "\n";
  if (::ftruncate(fd_, 0) == 0) {
    const ssize_t ignored = ::pwrite(fd_, text.data(), text.size(), 0);  // who holds it is only told
    static_cast<void>(ignored);
  }
}

SeriesLock::~SeriesLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace hesspect
