// Reader of zip archives whose entries are stored uncompressed, as torch.save and torch.export.save write them.
//
// The file is mapped and entries are handed out as views of the mapping: nothing is copied. The central directory, the
// 64-bit extensions and every local header are checked against the file before an entry is handed out.
// Limits: no compressed, encrypted or multi-volume archives; checksums are not checked (PyTorch may leave them unset).
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "hesspect/core/mapped_file.h"

namespace hesspect {

struct ZipEntry {
  std::string name;                 // full, with the archive's root folder
  std::span<const std::byte> data;  // into the mapping; valid while the archive lives; empty for a folder
};

class ZipArchive {
 public:
  /// @throws InputError: no file, not a zip archive, truncated, an entry out of range or compressed, a name twice
  explicit ZipArchive(const std::filesystem::path& path);
  /// An archive that is a part of a mapped file. @param part  must outlive this @throws InputError as above
  ZipArchive(const std::filesystem::path& path, std::span<const std::byte> part);

  const std::filesystem::path& path() const { return path_; }
  /// In the order of the central directory.
  const std::vector<ZipEntry>& entries() const { return entries_; }
  /// By full name; nullptr if there is none.
  const ZipEntry* find(std::string_view name) const;
  /// First path component of the first entry, with no '/': PyTorch's root folder. "" where there is none.
  const std::string& root() const { return root_; }

 private:
  void read_directory(std::span<const std::byte> bytes);

  std::filesystem::path path_;
  std::optional<MappedFile> file_;  // where the archive is a whole file
  std::vector<ZipEntry> entries_;
  std::unordered_map<std::string_view, std::size_t> by_name_;  // views of the entries' own names
  std::string root_;
};

}  // namespace hesspect
