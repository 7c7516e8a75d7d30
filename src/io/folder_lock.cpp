#include "folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "checkpoint_names.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/host.h"
#include "hesspect/core/log.h"
#include "hesspect/core/text.h"

namespace hesspect {
namespace {

namespace fs = std::filesystem;
using checkpoint::named;

[[noreturn]] void refuse(const fs::path& folder, const fs::path& file) {
  std::string holder;
  std::getline(std::ifstream(file), holder);
  throw UsageError("the checkpoint " + named(folder) + " is in use by another run" +
                   (holder.empty() ? "" : " (" + one_line(holder) + ")") +
                   ": wait until it ends, or give this one a folder of its own with --checkpoint");
}

/// False where a run that removed its checkpoint took the file away between our opening and locking it.
bool is_still(const fs::path& file, int fd) {
  struct stat there {
  }, ours{};
  return ::stat(file.c_str(), &there) == 0 && ::fstat(fd, &ours) == 0 && there.st_ino == ours.st_ino &&
         there.st_dev == ours.st_dev;
}

int try_lock(int fd) {
  while (::flock(fd, LOCK_EX | LOCK_NB) != 0)
    if (errno != EINTR) return errno;
  return 0;
}

}  // namespace

FolderLock::FolderLock(const fs::path& folder, const std::string& name) {
  const fs::path file = folder / name;
  for (;;) {
    fd_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd_ < 0) throw InputError("cannot write " + named(file) + ": " + std::strerror(errno));
    const int error = try_lock(fd_);
    if (error == EWOULDBLOCK) {
      ::close(fd_);
      refuse(folder, file);
    }
    if (error != 0) {  // some network file systems have no locks
      log_warning("the checkpoint " + named(folder) + " cannot be locked (" + std::strerror(error) +
                  "): a second run in it would not be noticed");
      return;
    }
    if (is_still(file, fd_)) break;
    ::close(fd_);
  }
  const std::string holder = "host " + host_name() + ", process " + std::to_string(getpid()) + "\n";
  // The text only serves messages: where it cannot be written, the lock holds all the same.
  if (::ftruncate(fd_, 0) == 0) (void)!::write(fd_, holder.data(), holder.size());
}

FolderLock::~FolderLock() { ::close(fd_); }

}  // namespace hesspect
