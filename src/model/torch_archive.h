// An archive of torch.save (the zip form), and what its pickle holds: dicts by key, tensors over the storages' bytes.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "hesspect/core/unpickle.h"
#include "hesspect/core/zip_archive.h"

namespace hesspect {

class TensorArchive {
 public:
  /// @param file  the quoted name, for messages
  /// @throws InputError: no archive of torch.save, or one of something else than a state dict
  TensorArchive(const std::filesystem::path& path, std::string file);
  /// An archive that is a part of a mapped file, which must outlive it.
  TensorArchive(const std::filesystem::path& path, std::span<const std::byte> part, std::string file);

  std::span<const std::byte> pickle() const;
  /// A tensor over the archive's memory, which must outlive it. @throws InputError where it reaches beyond its storage
  at::Tensor place(const std::string& name, const pickle::Value& tensor);

 private:
  std::span<const std::byte> storage_bytes(const pickle::Value& storage, const std::string& what);

  ZipArchive archive_;
  std::string file_;
  std::string folder_;
  std::map<std::string, at::Tensor> copies_;  // of storages that the archive does not align
};

/// Dicts, and objects of unknown classes that were given items as a dict is.
bool has_items(const pickle::Value& value);
std::string key_name(const pickle::Value& key);
std::vector<std::string> keys_of(const pickle::Value& dict);
/// The last value under a text key; nullptr where there is none.
const pickle::Value* item_of(const pickle::Value& dict, std::string_view key);

}  // namespace hesspect
