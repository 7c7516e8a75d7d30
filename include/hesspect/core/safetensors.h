// Reader of one safetensors file (https://github.com/huggingface/safetensors, format section of its README).
//
// The header is checked in full before any tensor is handed out: its length against the file, every offset against the
// data section, no overlap and no hole, shape times element size against the byte range, no duplicate names. Nothing is
// allocated on the word of an unchecked number. The data are memory-mapped.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "hesspect/core/element_type.h"
#include "hesspect/core/mapped_file.h"

namespace hesspect {

struct SafetensorsEntry {
  std::string name;
  ElementType type;
  std::vector<std::int64_t> shape;
  const std::byte* data;  // into the mapping; unaligned; valid while the file object lives
  std::size_t bytes;
};

class SafetensorsFile {
 public:
  /// @throws InputError naming the file, the tensor and the bound that was broken
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  /// In the file's header order.
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }
  /// nullptr if there is none of that name.
  const SafetensorsEntry* find(const std::string& name) const;
  /// The optional `__metadata__` map.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  MappedFile file_;
  std::vector<SafetensorsEntry> entries_;
  std::unordered_map<std::string, std::size_t> by_name_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace hesspect
