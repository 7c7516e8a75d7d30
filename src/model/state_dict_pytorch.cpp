#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <map>
#include <set>

#include "hesspect/core/element_type_torch.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/core/zip_archive.h"
#include "state_dict_formats.h"
#include "unpickle.h"

namespace hesspect {
namespace {

using pickle::Kind;
using pickle::Value;

// Where training scripts put the state dict among other things; at most so many levels down.
constexpr std::array<std::string_view, 8> kStateDictKeys{"state_dict", "model_state_dict", "model",   "module",
                                                         "net",        "network",          "weights", "params"};
constexpr int kMaxLevels = 2;

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

/// An archive of torch.save, and the tensors over its storages' bytes.
class TensorArchive {
 public:
  TensorArchive(const std::filesystem::path& path, std::string file)
      : archive_(path), file_(std::move(file)), folder_(state_dict_folder(archive_, file_)) {}

  std::span<const std::byte> pickle() const { return archive_.find(folder_ + "data.pkl")->data; }

  at::Tensor place(const std::string& name, const Value& tensor) {
    const std::string what = file_ + ": tensor " + quote(name);
    const Value& storage = *tensor.items.at(0);
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
      fits = fits && !__builtin_mul_overflow(strides[d], size - 1, &step) &&
             !__builtin_add_overflow(last, step, &last) && !__builtin_mul_overflow(numel, size, &numel) &&
             numel < std::numeric_limits<std::int64_t>::max() / 16;
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

 private:
  /// The record of a storage, aligned, and long enough for its elements.
  std::span<const std::byte> storage_bytes(const Value& storage, const std::string& what) {
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

  ZipArchive archive_;
  std::string file_;
  std::string folder_;
  std::map<std::string, at::Tensor> copies_;  // of storages that the archive does not align
};

/// Dicts, and objects of unknown classes that were given items as a dict is.
bool has_items(const Value& value) {
  return value.kind == Kind::kDict || (value.kind == Kind::kObject && !value.items.empty());
}

bool holds_tensors(const Value& value) {
  if (!has_items(value)) return false;
  for (std::size_t i = 1; i < value.items.size(); i += 2) {
    if (value.items[i]->kind == Kind::kTensor) return true;
  }
  return false;
}

std::string key_name(const Value& key) {
  if (key.kind == Kind::kText) return key.text;
  return key.kind == Kind::kInt ? std::to_string(key.number) : "(a key that is no text)";
}

std::vector<std::string> keys_of(const Value& dict) {
  std::vector<std::string> keys;
  if (!has_items(dict)) return keys;
  for (std::size_t i = 0; i < dict.items.size(); i += 2) keys.push_back(key_name(*dict.items[i]));
  return keys;
}

const Value* item_of(const Value& dict, std::string_view key) {
  const Value* found = nullptr;
  for (std::size_t i = 0; i + 1 < dict.items.size(); i += 2) {
    if (dict.items[i]->kind == Kind::kText && dict.items[i]->text == key)
      found = dict.items[i + 1];  // the last one wins
  }
  return found;
}

/// Whether a state dict lies here or under the known keys; bounded in depth, for dicts may hold themselves.
bool leads_to_tensors(const Value& value, int levels) {
  if (holds_tensors(value)) return true;
  if (!has_items(value) || levels == 0) return false;
  return std::any_of(kStateDictKeys.begin(), kStateDictKeys.end(), [&](std::string_view key) {
    const Value* inner = item_of(value, key);
    return inner != nullptr && leads_to_tensors(*inner, levels - 1);
  });
}

/// Finds the state dict among what else the file holds, and keeps account of the way there.
class Search {
 public:
  Search(const Value& root, const std::string& file, StateDict& state_dict)
      : file_(file), state_dict_(state_dict), dict_(&root) {}

  /// Goes down the keys of `path`, which dots divide; a key may hold dots itself.
  void follow(const std::string& path) {
    std::string rest = path;
    while (!rest.empty()) {
      std::size_t end = rest.size();
      const Value* inner = nullptr;
      while (has_items(*dict_) && (inner = item_of(*dict_, rest.substr(0, end))) == nullptr && end > 0) {
        end = rest.rfind('.', end - 1);
        if (end == std::string::npos) break;
      }
      if (inner == nullptr) {
        const std::vector<std::string> keys = keys_of(*dict_);
        throw InputError(file_ + " holds nothing under --weights-key " + quote(path) + did_you_mean(rest, keys) +
                         (keys.empty() ? "" : "; there are " + format_names(keys)));
      }
      go_down(rest.substr(0, end), *inner);
      rest = end < rest.size() ? rest.substr(end + 1) : "";
    }
  }

  const Value& find() {
    for (int level = 0; level < kMaxLevels && has_items(*dict_); ++level) {
      const Value* inner = nullptr;
      std::string inner_key;
      for (const std::string_view key : kStateDictKeys) {
        const Value* candidate = item_of(*dict_, key);
        if (candidate == nullptr || candidate == inner || !leads_to_tensors(*candidate, kMaxLevels - 1 - level))
          continue;
        if (inner != nullptr)
          throw InputError(file_ + " holds tensors under both " + quote(inner_key) + " and " + quote(key) +
                           "; choose one by --weights-key");
        inner = candidate;
        inner_key = key;
      }
      if (inner == nullptr) break;
      go_down(inner_key, *inner);
    }
    if (!holds_tensors(*dict_)) refuse();
    return *dict_;
  }

 private:
  void go_down(const std::string& key, const Value& inner) {
    const std::string way = state_dict_.key.empty() ? "" : state_dict_.key + ".";
    for (std::size_t i = 0; i < dict_->items.size(); i += 2) {
      const std::string name = key_name(*dict_->items[i]);
      if (name == key) continue;
      state_dict_.skipped.push_back(way + name);
      if (leads_to_tensors(*dict_->items[i + 1], kMaxLevels)) state_dict_.other_sets.push_back(way + name);
    }
    state_dict_.key = way + key;
    dict_ = &inner;
  }

  [[noreturn]] void refuse() const {
    const std::string where = state_dict_.key.empty() ? "" : " under " + quote(state_dict_.key);
    if (dict_->kind == Kind::kObject && dict_->items.empty())
      throw InputError(file_ + " holds no state dict" + where + ", but an object of " + quote(dict_->text) +
                       ", which hesspect does not make (nothing in the file was executed); save "
                       "torch.save(model.state_dict(), FILE)");
    if (!has_items(*dict_)) throw InputError(file_ + " holds no state dict" + where + ", but another kind of value");
    std::vector<std::string> sets;
    std::string made_by;
    for (std::size_t i = 0; i < dict_->items.size(); i += 2) {
      const Value& value = *dict_->items[i + 1];
      if (leads_to_tensors(value, kMaxLevels)) sets.push_back(key_name(*dict_->items[i]));
      if (value.kind == Kind::kObject && made_by.empty())
        made_by = "; " + quote(key_name(*dict_->items[i])) + " is an object of " + quote(value.text) +
                  ", which hesspect does not make (nothing in the file was executed)";
    }
    const std::vector<std::string> keys = keys_of(*dict_);
    throw InputError(
        file_ + " holds no state dict" + where + ": " +
        (keys.empty() ? "its dict is empty" : "there are no tensors by name among its keys " + format_names(keys)) +
        (sets.empty() ? made_by : "; choose by --weights-key of " + format_names(sets)));
  }

  const std::string& file_;
  StateDict& state_dict_;
  const Value* dict_;
};

}  // namespace

StateDict read_pytorch_state_dict(const std::filesystem::path& path, const std::string& key) {
  const std::string file = quote(path.string());
  const auto archive = std::make_shared<TensorArchive>(path, file);
  const pickle::Document document = pickle::unpickle(archive->pickle(), file, std::filesystem::file_size(path));

  StateDict state_dict;
  state_dict.format = "PyTorch state dict";
  state_dict.files = {path};
  Search search(*document.root, file, state_dict);
  search.follow(key);
  const Value& dict = search.find();
  std::set<std::string> seen;
  for (std::size_t i = 0; i < dict.items.size(); i += 2) {
    const Value& item_key = *dict.items[i];
    const Value& value = *dict.items[i + 1];
    const std::string name = key_name(item_key);
    // Modules keep what they like under this name; it is no weight.
    const bool extra_state = name.ends_with("_extra_state");
    if (value.kind == Kind::kObject && value.holds_tensor && !extra_state)
      throw InputError(file + ": tensor " + quote(name) + " is made by " + quote(value.text) +
                       ", which hesspect does not know (nothing in the file was executed); save it as a plain tensor");
    if (value.kind != Kind::kTensor || item_key.kind != Kind::kText) {
      if (value.kind == Kind::kObject) state_dict.objects.emplace_back(name, value.text);
      state_dict.skipped.push_back(state_dict.key.empty() ? name : state_dict.key + "." + name);
      continue;
    }
    if (!seen.insert(name).second) throw InputError(file + ": its state dict holds " + quote(name) + " twice");
    state_dict.tensors.push_back({name, to_scalar_type(value.type), value.sizes, archive->place(name, value)});
  }
  state_dict.storage = archive;
  return state_dict;
}

}  // namespace hesspect
