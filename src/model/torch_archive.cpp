#include "torch_archive.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "hesspect/core/element_type_torch.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "state_dict_formats.h"

namespace hesspect {

namespace {

/// The archive's folder, with its '/'. PyTorch names it after the file it first wrote.
std::string state_dict_folder(const ZipArchive& archive, const std::string& file) {
  const std::string folder = archive.root().empty() ? "" : archive.root() + "/";
  if (archive.find(folder + "constants.pkl") != nullptr)
    throw InputError(file + " is a TorchScript program, not a state dict; save torch.save(model.state_dict(), FILE)");
  if (archive.find(folder + "archive_format") != nullptr || archive.find(folder + "models/model.json") != nullptr)
    throw InputError(file + " is an exported program (.pt2), not a state dict; give it as the model, not as weights");
  if (archive.find(folder + "data.pkl") == nullptr)
    throw InputError(file + " is a zip archive, but not one of torch.save: it lacks " + quote(folder + "data.pkl"));
  if (const ZipEntry* order = archive.find(folder + "byteorder")) {
    const std::string text(reinterpret_cast<const char*>(order->data.data()),
                           std::min<std::size_t>(order->data.size(), 32));
    if (text != "little")
      throw InputError(file + " was written with byte order " + quote(text) + "; only little-endian files are read");
  }
  return folder;
}

}  // namespace

TensorArchive::TensorArchive(const std::filesystem::path& path, std::string file)
    : archive_(path), file_(std::move(file)), folder_(state_dict_folder(archive_, file_)) {}

TensorArchive::TensorArchive(const std::filesystem::path& path, std::span<const std::byte> part, std::string file)
    : archive_(path, part), file_(std::move(file)), folder_(state_dict_folder(archive_, file_)) {}

std::span<const std::byte> TensorArchive::pickle() const { return archive_.find(folder_ + "data.pkl")->data; }

at::Tensor TensorArchive::place(const std::string& name, const pickle::Value& tensor) {
  const std::string what = file_ + ": tensor " + quote(name);
  const pickle::Value& storage = *tensor.items.at(0);
  const auto bytes = storage_bytes(storage, what);
  // The index of the last element and their number may neither overflow nor leave the storage.
  std::int64_t last = tensor.number;
  std::int64_t numel = 1;
  bool empty = false;
  bool fits = true;
  std::vector<std::int64_t> strides = tensor.strides;
  for (std::size_t d = 0; d < strides.size(); ++d) {
    const std::int64_t size = tensor.sizes[d];
    empty = empty || size == 0;
    if (size <= 1) {
      strides[d] = 1;  // never used
      continue;
    }
    std::int64_t step = 0;
    fits = fits && !__builtin_mul_overflow(strides[d], size - 1, &step) && !__builtin_add_overflow(last, step, &last) &&
           !__builtin_mul_overflow(numel, size, &numel) && numel < std::numeric_limits<std::int64_t>::max() / 16;
  }
  if (!fits || (!empty && last >= storage.number))
    throw InputError(what + " of shape " + format_shape(tensor.sizes) + ", strides " + format_shape(tensor.strides) +
                     " and offset " + std::to_string(tensor.number) + " reaches beyond the " +
                     std::to_string(storage.number) + " elements of its storage");
  const auto type = at::TensorOptions(to_scalar_type(tensor.type));
  if (empty) return at::empty(tensor.sizes, type);
  const auto offset = static_cast<std::size_t>(tensor.number) * element_size(tensor.type);
  return tensor_over(bytes.data() + offset, tensor.type, tensor.sizes, strides);
}

/// The record of a storage, aligned, and long enough for its elements.
std::span<const std::byte> TensorArchive::storage_bytes(const pickle::Value& storage, const std::string& what) {
  const std::string record = folder_ + "data/" + storage.text;
  const ZipEntry* entry = archive_.find(record);
  if (entry == nullptr) throw InputError(what + ": the archive lacks its storage " + quote(record));
  const std::size_t size = element_size(storage.type);
  if (static_cast<std::uint64_t>(storage.number) > entry->data.size() / size)
    throw InputError(what + ": its storage should hold " + std::to_string(storage.number) + " elements of " +
                     to_string(storage.type) + ", but has " + std::to_string(entry->data.size()) + " bytes");
  const bool aligned = reinterpret_cast<std::uintptr_t>(entry->data.data()) % size == 0;
  if (aligned || entry->data.empty()) return entry->data;
  at::Tensor& copy = copies_[record];
  if (!copy.defined()) {
    copy = at::empty({static_cast<std::int64_t>(entry->data.size())}, at::kByte);
    std::memcpy(copy.data_ptr(), entry->data.data(), entry->data.size());
  }
  return {static_cast<const std::byte*>(copy.const_data_ptr()), entry->data.size()};
}

bool has_items(const pickle::Value& value) {
  return value.kind == pickle::Kind::kDict || (value.kind == pickle::Kind::kObject && !value.items.empty());
}

std::string key_name(const pickle::Value& key) {
  if (key.kind == pickle::Kind::kText) return key.text;
  return key.kind == pickle::Kind::kInt ? std::to_string(key.number) : "(a key that is no text)";
}

std::vector<std::string> keys_of(const pickle::Value& dict) {
  std::vector<std::string> keys;
  if (!has_items(dict)) return keys;
  for (std::size_t i = 0; i < dict.items.size(); i += 2) keys.push_back(key_name(*dict.items[i]));
  return keys;
}

const pickle::Value* item_of(const pickle::Value& dict, std::string_view key) {
  const pickle::Value* found = nullptr;
  for (std::size_t i = 0; i + 1 < dict.items.size(); i += 2) {
    if (dict.items[i]->kind == pickle::Kind::kText && dict.items[i]->text == key)
      found = dict.items[i + 1];  // the last one wins
  }
  return found;
}

}  // namespace hesspect
