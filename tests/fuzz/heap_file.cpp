// MappedFile on the heap instead of src/core/mapped_file.cpp, which the linker then leaves out: AddressSanitizer sees a
// read beyond the last byte there, but not in the zeros that fill a mapping's last page.
#include <cstring>
#include <fstream>
#include <memory>
#include <utility>

#include "hesspect/core/errors.h"
#include "hesspect/core/mapped_file.h"
#include "hesspect/core/text.h"
#include "input_files.h"

namespace hesspect {

void check_input_file(const std::filesystem::path& path) {
  if (fuzz::files_in_memory().contains(path.native())) return;
  if (!std::filesystem::is_regular_file(path)) throw InputError(quote(path.string()) + ": is not a regular file");
}

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  std::string content;
  if (const auto found = fuzz::files_in_memory().find(path.native()); found != fuzz::files_in_memory().end()) {
    content = found->second;
  } else {
    check_input_file(path);
    content.resize(std::filesystem::file_size(path));
    std::ifstream(path, std::ios::binary).read(content.data(), static_cast<std::streamsize>(content.size()));
  }
  if (content.empty()) return;
  auto bytes = std::make_unique<std::byte[]>(content.size());
  std::memcpy(bytes.get(), content.data(), content.size());
  bytes_ = {bytes.release(), content.size()};
}

MappedFile::~MappedFile() { delete[] bytes_.data(); }

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile other) noexcept {
  std::swap(path_, other.path_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace hesspect
