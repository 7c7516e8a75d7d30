#include "hesspect/core/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"

namespace hesspect {
namespace {

[[noreturn]] void refuse_to_map(const std::filesystem::path& path, int error) {
  const std::string name = quote(path.string());
  if (error == ENOENT) throw InputError(name + ": no such file");
  if (error == EACCES || error == EPERM) throw InputError(name + ": permission denied");
  throw InputError(name + ": cannot be read: " + std::generic_category().message(error));
}

/// A file, checked and open for reading.
struct OpenFile {
  explicit OpenFile(const std::filesystem::path& path) {
    if (path.empty()) throw InputError("an empty file name was given");
    struct stat info {};
    // stat before open: opening a FIFO would wait for a writer.
    if (::stat(path.c_str(), &info) != 0) refuse_to_map(path, errno);
    if (S_ISDIR(info.st_mode)) throw InputError(quote(path.string()) + ": is a directory, expected a file");
    if (!S_ISREG(info.st_mode)) throw InputError(quote(path.string()) + ": is not a regular file");
    size = static_cast<std::size_t>(info.st_size);
    fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) refuse_to_map(path, errno);
  }
  ~OpenFile() { ::close(fd); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  int fd;
  std::size_t size;
};

}  // namespace

void check_input_file(const std::filesystem::path& path) { const OpenFile file(path); }

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const OpenFile file(path);
  if (file.size == 0) return;
  void* data = ::mmap(nullptr, file.size, PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (data == MAP_FAILED) refuse_to_map(path, errno);
  bytes_ = {static_cast<const std::byte*>(data), file.size};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile other) noexcept {
  std::swap(path_, other.path_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace hesspect
