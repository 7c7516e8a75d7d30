#include "hesspect/core/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"

namespace hesspect {
namespace {

[[noreturn]] void refuse(const std::filesystem::path& path, int error) {
  const std::string name = quote(path.string());
  if (error == ENOENT) throw InputError(name + ": no such file");
  if (error == EACCES || error == EPERM) throw InputError(name + ": permission denied");
  throw InputError(name + ": cannot be read: " + std::generic_category().message(error));
}

struct Descriptor {
  int fd = -1;
  explicit Descriptor(int descriptor) : fd(descriptor) {}
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
};

/// @return an open descriptor; `size` is set to the file's bytes
int open_checked(const std::filesystem::path& path, std::size_t& size) {
  if (path.empty()) throw InputError("an empty file name was given");
  struct stat info {};
  // stat before open: opening a FIFO would wait for a writer.
  if (::stat(path.c_str(), &info) != 0) refuse(path, errno);
  if (S_ISDIR(info.st_mode)) throw InputError(quote(path.string()) + ": is a directory, expected a file");
  if (!S_ISREG(info.st_mode)) throw InputError(quote(path.string()) + ": is not a regular file");
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) refuse(path, errno);
  size = static_cast<std::size_t>(info.st_size);
  return fd;
}

void unmap(std::span<const std::byte> bytes) {
  if (!bytes.empty()) ::munmap(const_cast<std::byte*>(bytes.data()), bytes.size());
}

}  // namespace

void check_input_file(const std::filesystem::path& path) {
  std::size_t size = 0;
  const Descriptor file(open_checked(path, size));
}

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  std::size_t size = 0;
  const Descriptor file(open_checked(path, size));
  if (size == 0) return;
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (data == MAP_FAILED) refuse(path, errno);
  bytes_ = {static_cast<const std::byte*>(data), size};
}

MappedFile::~MappedFile() { unmap(bytes_); }

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this != &other) {
    unmap(bytes_);
    path_ = std::move(other.path_);
    bytes_ = std::exchange(other.bytes_, {});
  }
  return *this;
}

}  // namespace hesspect
