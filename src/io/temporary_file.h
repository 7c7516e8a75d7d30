// A file under a temporary name, which gets its own name when it is whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "hesspect/io/atomic_file.h"

namespace hesspect {

/// The folder of a path: "." for a bare name.
std::filesystem::path folder_of(const std::filesystem::path& path);

/// What a chain of symbolic links ends in, which need not exist.
std::filesystem::path target_of(std::filesystem::path path);

/// `.NAME.tmp-PID` beside its target; removed again unless it was renamed. Everything throws InputError naming the
/// target and the system's reason.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::filesystem::path& target);
  ~TemporaryFile();
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  /// Of the temporary file.
  const std::filesystem::path& name() const { return name_; }
  /// For who writes into it by another way. @throws InputError with the system's reason, always
  [[noreturn]] void fail(int error) const;
  void write(std::span<const std::byte> bytes);
  /// Wherever in the file, beyond its end too.
  void write_at(std::int64_t offset, std::span<const std::byte> bytes);
  /// Makes sure of the disk space for so many bytes from the file's start, where the file system can do that. The
  /// file is then that large, at least.
  void reserve(std::int64_t bytes);
  void sync_and_close();
  /// To the target, or to another name in its folder. Durable after that.
  void rename() { rename(target_); }
  void rename(const std::filesystem::path& to);

 private:
  std::filesystem::path target_, name_;
  int fd_ = -1;
  bool renamed_ = false;
};

}  // namespace hesspect
