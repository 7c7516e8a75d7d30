// A file mapped read-only into memory, opened with the checks that every reader of user files makes first.
//
// Limits: the file must not be cut short by others while it is mapped.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace hesspect {

/// @throws InputError unless `path` is a regular file that may be read: "no such file", "is a directory", "permission
/// denied"…
void check_input_file(const std::filesystem::path& path);

class MappedFile {
 public:
  /// @throws InputError as check_input_file does, or if the mapping fails
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile other) noexcept;
  MappedFile(const MappedFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  /// The whole file; empty for an empty file. Page-aligned.
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
};

}  // namespace hesspect
