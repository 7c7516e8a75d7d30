// Reader of one safetensors file (https://github.com/huggingface/safetensors, format section of its README).
//
// The header is checked in full before any tensor is handed out: its length against the file, every offset against the
// data section, no overlap and no hole, shape times element size against the byte range, no duplicate names. Nothing is
// allocated on the word of an unchecked number. The data are memory-mapped.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "hesspect/core/element_type.h"

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
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;

  const std::filesystem::path& path() const;
  /// In the file's header order.
  const std::vector<SafetensorsEntry>& entries() const;
  /// nullptr if there is none of that name.
  const SafetensorsEntry* find(const std::string& name) const;
  /// The optional `__metadata__` map.
  const std::map<std::string, std::string>& metadata() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hesspect
