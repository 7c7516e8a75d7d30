#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <map>
#include <set>

#include "checkpoint_formats.h"
#include "hesspect/core/element_type_torch.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/core/zip_archive.h"
#include "unpickle.h"

namespace hesspect {
namespace {

using pickle::Kind;
using pickle::Value;

// Where training scripts put the state dict among other things; at most so many levels down.
constexpr std::array<std::string_view, 8> kStateDictKeys{"state_dict", "model_state_dict", "model",   "module",
                                                         "net",        "network",          "weights", "params"};
constexpr int kMaxLevels = 2;

struct Holder {
  explicit Holder(const std::filesystem::path& path) : archive(path) {}
  ZipArchive archive;
  std::vector<at::Tensor> copies;  // of storages that the archive does not align
};

/// Places the tensors of one archive over its storages' bytes.
class TensorPlacer {
 public:
  TensorPlacer(Holder& holder, std::string file, std::string folder)
      : holder_(holder), file_(std::move(file)), folder_(std::move(folder)) {}

  at::Tensor place(const std::string& name, const Value& tensor) {
    const std::string what = file_ + ": tensor " + quote(name);
    const Value& storage = *tensor.items.at(0);
    const auto bytes = storage_bytes(storage, what);
    // Index of the last element, and of how many: neither may overflow or leave the storage.
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
      fits = fits && !__builtin_mul_overflow(strides[d], size - 1, &step) &&
             !__builtin_add_overflow(last, step, &last) && !__builtin_mul_overflow(numel, size, &numel) &&
             numel < std::numeric_limits<std::int64_t>::max() / 16;
    }
    if (!fits || (!empty && last >= storage.number)) {
      throw InputError(what + " of shape " + format_shape(tensor.sizes) + ", strides " + format_shape(tensor.strides) +
                       " and offset " + std::to_string(tensor.number) + " reaches beyond the " +
                       std::to_string(storage.number) + " elements of its storage");
    }
    const auto type = at::TensorOptions(to_scalar_type(tensor.type));
    if (empty) return at::empty(tensor.sizes, type);
    const auto offset = static_cast<std::size_t>(tensor.number) * element_size(tensor.type);
    return tensor_over(bytes.data() + offset, tensor.type, tensor.sizes, strides);
  }

 private:
  /// The record of a storage, aligned, and long enough for its elements.
  std::span<const std::byte> storage_bytes(const Value& storage, const std::string& what) {
    const std::string record = folder_ + "data/" + storage.text;
    const ZipEntry* entry = holder_.archive.find(record);
    if (entry == nullptr) throw InputError(what + ": the archive lacks its storage " + quote(record));
    const std::size_t size = element_size(storage.type);
    if (static_cast<std::uint64_t>(storage.number) > entry->data.size() / size) {
      throw InputError(what + ": its storage should hold " + std::to_string(storage.number) + " elements of " +
                       std::string(element_name(storage.type)) + ", but has " + std::to_string(entry->data.size()) +
                       " bytes");
    }
    if (reinterpret_cast<std::uintptr_t>(entry->data.data()) % size == 0) return entry->data;
    auto& aligned = aligned_[record];
    if (aligned.empty() && !entry->data.empty()) {
      holder_.copies.push_back(at::empty({static_cast<std::int64_t>(entry->data.size())}, at::kByte));
      void* copy = holder_.copies.back().data_ptr();
      std::memcpy(copy, entry->data.data(), entry->data.size());
      aligned = {static_cast<const std::byte*>(copy), entry->data.size()};
    }
    return aligned;
  }

  Holder& holder_;
  std::string file_;
  std::string folder_;
  std::map<std::string, std::span<const std::byte>> aligned_;
};

/// The archive's folder, with its '/'. PyTorch names it after the file it first wrote.
std::string state_dict_folder(const ZipArchive& archive, const std::string& file) {
  const std::string folder = archive.root().empty() ? "" : archive.root() + "/";
  if (archive.find(folder + "constants.pkl") != nullptr) {
    throw InputError(file + " is a TorchScript program, not a state dict; save torch.save(model.state_dict(), FILE)");
  }
  if (archive.find(folder + "archive_format") != nullptr || archive.find(folder + "models/model.json") != nullptr) {
    throw InputError(file + " is an exported program (.pt2), not a state dict; give it as the model, not as weights");
  }
  if (archive.find(folder + "data.pkl") == nullptr) {
    throw InputError(file + " is a zip archive, but not one of torch.save: it lacks " + quote(folder + "data.pkl"));
  }
  if (const ZipEntry* order = archive.find(folder + "byteorder")) {
    const std::string text(reinterpret_cast<const char*>(order->data.data()),
                           std::min<std::size_t>(order->data.size(), 32));
    if (text != "little") {
      throw InputError(file + " was written with byte order " + quote(text) + "; only little-endian files are read");
    }
  }
  return folder;
}

bool holds_tensors(const Value& value) {
  if (value.kind != Kind::kDict) return false;
  for (std::size_t i = 1; i < value.items.size(); i += 2) {
    if (value.items[i]->kind == Kind::kTensor) return true;
  }
  return false;
}

std::string key_name(const Value& key) {
  if (key.kind == Kind::kText) return key.text;
  return key.kind == Kind::kInt ? std::to_string(key.number) : "(a key that is no text)";
}

const Value* item_of(const Value& dict, std::string_view key) {
  const Value* found = nullptr;
  for (std::size_t i = 0; i + 1 < dict.items.size(); i += 2) {
    if (dict.items[i]->kind == Kind::kText && dict.items[i]->text == key)
      found = dict.items[i + 1];  // the last one wins
  }
  return found;
}

/// Does a state dict lie here or under the known keys? Bounded in depth, for dicts may hold themselves.
bool leads_to_tensors(const Value& value, int levels) {
  if (holds_tensors(value)) return true;
  if (value.kind != Kind::kDict || levels == 0) return false;
  return std::any_of(kStateDictKeys.begin(), kStateDictKeys.end(), [&](std::string_view key) {
    const Value* inner = item_of(value, key);
    return inner != nullptr && leads_to_tensors(*inner, levels - 1);
  });
}

/// Goes down from the root to the state dict; `checkpoint` gets its key and the names of what was passed by.
const Value& find_state_dict(const Value& root, const std::string& file, Checkpoint& checkpoint) {
  const Value* dict = &root;
  for (int level = 0; level < kMaxLevels; ++level) {
    if (dict->kind != Kind::kDict) break;
    const Value* inner = nullptr;
    std::string inner_key;
    for (const std::string_view key : kStateDictKeys) {
      const Value* candidate = item_of(*dict, key);
      if (candidate == nullptr || candidate == inner || !leads_to_tensors(*candidate, kMaxLevels - 1 - level)) continue;
      if (candidate->kind != Kind::kDict) continue;
      if (inner != nullptr) {
        throw InputError(file + " holds tensors under both " + quote(inner_key) + " and " + quote(key) +
                         "; save the state dict to be used alone");
      }
      inner = candidate;
      inner_key = key;
    }
    if (inner == nullptr) break;
    for (std::size_t i = 0; i < dict->items.size(); i += 2) {
      const std::string name = key_name(*dict->items[i]);
      if (name != inner_key) checkpoint.skipped.push_back(checkpoint.key.empty() ? name : checkpoint.key + "." + name);
    }
    checkpoint.key += (checkpoint.key.empty() ? "" : ".") + inner_key;
    dict = inner;
  }
  if (holds_tensors(*dict)) return *dict;
  if (root.kind != Kind::kDict) throw InputError(file + " holds no state dict, but another kind of value");
  std::vector<std::string> keys;
  for (std::size_t i = 0; i < root.items.size(); i += 2) keys.push_back(key_name(*root.items[i]));
  throw InputError(
      file + " holds no state dict: " +
      (keys.empty() ? "its dict is empty" : "there are no tensors by name among its keys " + format_names(keys)));
}

}  // namespace

Checkpoint read_pytorch_checkpoint(const std::filesystem::path& path) {
  const std::string file = quote(path.string());
  auto holder = std::make_shared<Holder>(path);
  const std::string folder = state_dict_folder(holder->archive, file);
  const pickle::Document document =
      pickle::unpickle(holder->archive.find(folder + "data.pkl")->data, file, std::filesystem::file_size(path));

  Checkpoint checkpoint;
  checkpoint.format = "PyTorch state dict";
  checkpoint.files = {path};
  const Value& dict = find_state_dict(*document.root, file, checkpoint);
  TensorPlacer placer(*holder, file, folder);
  std::set<std::string> seen;
  for (std::size_t i = 0; i < dict.items.size(); i += 2) {
    const Value& key = *dict.items[i];
    const Value& value = *dict.items[i + 1];
    const std::string name = key_name(key);
    if (value.kind != Kind::kTensor || key.kind != Kind::kText) {
      checkpoint.skipped.push_back(checkpoint.key.empty() ? name : checkpoint.key + "." + name);
      continue;
    }
    if (!seen.insert(name).second) throw InputError(file + ": its state dict holds " + quote(name) + " twice");
    checkpoint.tensors.push_back({name, to_scalar_type(value.type), value.sizes, placer.place(name, value)});
  }
  checkpoint.storage = std::move(holder);
  return checkpoint;
}

}  // namespace hesspect
