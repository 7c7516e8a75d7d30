#include "hesspect/io/atomic_file.h"

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

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

/// What a chain of symbolic links ends in, which need not exist.
fs::path target_of(fs::path path) {
  std::error_code error;
  for (int links = 0; links < 40 && fs::is_symlink(fs::symlink_status(path, error)); ++links) {
    const fs::path next = fs::read_symlink(path, error);
    if (error) break;
    path = next.is_absolute() ? next : folder_of(path) / next;
  }
  return path;
}

fs::path temporary_name(const fs::path& path) {
  return folder_of(path) / ("." + path.filename().string() + ".tmp-" + std::to_string(getpid()));
}

[[noreturn]] void fail(const fs::path& path, int error) {
  throw InputError("cannot write '" + path.string() + "': " + std::strerror(error));
}

/// A file of a temporary name, removed again unless it was renamed.
class TemporaryFile {
 public:
  explicit TemporaryFile(const fs::path& path) : target_(path), name_(temporary_name(path)) {
    ::unlink(name_.c_str());  // of a process of this number that was killed
    fd_ = ::open(name_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ < 0) fail(target_, errno);
  }
  ~TemporaryFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!renamed_) ::unlink(name_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) fail(target_, written < 0 ? errno : ENOSPC);
      bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
  }
  void sync_and_close() {
    if (::fsync(fd_) != 0) fail(target_, errno);
    const int rc = ::close(std::exchange(fd_, -1));  // network file systems report a full disk here
    if (rc != 0) fail(target_, errno);
  }
  void rename() {
    if (std::rename(name_.c_str(), target_.c_str()) != 0) fail(target_, errno);
    renamed_ = true;
  }

 private:
  fs::path target_, name_;
  int fd_ = -1;
  bool renamed_ = false;
};

}  // namespace

void write_file_atomically(const fs::path& link, std::span<const std::byte> bytes) {
  const fs::path path = target_of(link);
  TemporaryFile file(path);
  file.write(bytes);
  file.sync_and_close();
  file.rename();
  const int folder = ::open(folder_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {  // the rename itself is made durable where the file system can do that
    ::fsync(folder);
    ::close(folder);
  }
}

void check_output(const fs::path& link, bool overwrite) {
  std::error_code error;
  const fs::path path = target_of(link);
  const fs::path folder = folder_of(path);
  if (!path.has_filename()) throw InputError("the output '" + path.string() + "' names a folder, not a file");
  const auto status = fs::status(folder, error);
  if (error || !fs::exists(status)) {
    if (error && error != std::errc::no_such_file_or_directory)
      throw InputError("cannot write '" + path.string() + "': " + error.message());
    throw InputError("cannot write '" + path.string() + "': the folder '" + folder.string() + "' does not exist");
  }
  if (!fs::is_directory(status))
    throw InputError("cannot write '" + path.string() + "': '" + folder.string() + "' is not a folder");
  const auto there = fs::status(link, error);  // of the link: /dev/stdout leads to a name that is none
  if (fs::is_directory(there)) throw InputError("cannot write '" + path.string() + "': it is a folder");
  if (fs::exists(there) && !fs::is_regular_file(there))
    throw InputError("cannot write '" + link.string() + "': it is a device, pipe or socket, not a file");
  if (fs::exists(there) && !overwrite)
    throw UsageError("the output '" + path.string() + "' exists; --force overwrites it");
  const TemporaryFile probe(path);
}

}  // namespace hesspect
