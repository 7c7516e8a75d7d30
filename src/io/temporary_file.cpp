#include "temporary_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>

#include "hesspect/core/errors.h"

namespace hesspect {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const fs::path& path, int error) {
  throw InputError("cannot write '" + path.string() + "': " + std::strerror(error));
}

}  // namespace

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

void sync_folder(const fs::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

TemporaryFile::TemporaryFile(const fs::path& target)
    : target_(target),
      name_(folder_of(target) / ("." + target.filename().string() + ".tmp-" + std::to_string(getpid()))) {
  ::unlink(name_.c_str());  // of a process of this number that was killed
  fd_ = ::open(name_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd_ < 0) fail(target_, errno);
}

TemporaryFile::~TemporaryFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!renamed_) ::unlink(name_.c_str());
}

void TemporaryFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail(target_, written < 0 ? errno : ENOSPC);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void TemporaryFile::sync_and_close() {
  while (::fsync(fd_) != 0)
    if (errno != EINTR) fail(target_, errno);
  const int rc = ::close(std::exchange(fd_, -1));  // network file systems report a full disk here
  if (rc != 0) fail(target_, errno);
}

void TemporaryFile::rename(const fs::path& to) {
  if (std::rename(name_.c_str(), to.c_str()) != 0) fail(to, errno);
  renamed_ = true;
  sync_folder(folder_of(to));
}

}  // namespace hesspect
