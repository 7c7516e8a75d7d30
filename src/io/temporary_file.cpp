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

fs::path target_of(fs::path path) {
  std::error_code error;
  for (int links = 0; links < 40 && fs::is_symlink(fs::symlink_status(path, error)); ++links) {
    const fs::path next = fs::read_symlink(path, error);
    if (error) break;
    path = next.is_absolute() ? next : folder_of(path) / next;
  }
  return path;
}

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
  if (fd_ < 0) fail(errno);
}

TemporaryFile::~TemporaryFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!renamed_) ::unlink(name_.c_str());
}

void TemporaryFile::fail(int error) const { hesspect::fail(target_, error); }

void TemporaryFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail(written < 0 ? errno : ENOSPC);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void TemporaryFile::write_at(std::int64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(fd_, bytes.data(), bytes.size(), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail(written < 0 ? errno : ENOSPC);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
    offset += written;
  }
}

void TemporaryFile::reserve(std::int64_t bytes) {
  if (bytes <= 0) return;
  int rc = 0;
  do {
    rc = ::fallocate(fd_, 0, 0, bytes);  // not KEEP_SIZE, which asks for no more than the disk has
  } while (rc != 0 && errno == EINTR);
  if (rc != 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)) fail(errno);
}

void TemporaryFile::sync_and_close() {
  while (::fsync(fd_) != 0)
    if (errno != EINTR) fail(errno);
  const int rc = ::close(std::exchange(fd_, -1));  // network file systems report a full disk here
  if (rc != 0) fail(errno);
}

void TemporaryFile::rename(const fs::path& to) {
  if (std::rename(name_.c_str(), to.c_str()) != 0) hesspect::fail(to, errno);
  renamed_ = true;
  sync_folder(folder_of(to));
}

}  // namespace hesspect
