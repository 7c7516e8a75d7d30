// State dicts of torch.distributed.checkpoint, whose tensors lie in parts in many files.
#include <ATen/ATen.h>

#include <algorithm>
#include <deque>
#include <map>
#include <memory>

#include "hesspect/core/distributed_checkpoint.h"
#include "hesspect/core/element_type_torch.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/mapped_file.h"
#include "hesspect/core/text.h"
#include "state_dict_formats.h"
#include "torch_archive.h"

namespace hesspect {
namespace {

namespace fs = std::filesystem;
using pickle::Kind;
using pickle::Value;

/// The files of a folder, each mapped once.
struct Storage {
  std::map<std::string, MappedFile> files;
  std::deque<TensorArchive> archives;
};

/// The dict that was saved, with tensors by their places in the list in `number`.
class SavedDict {
 public:
  explicit SavedDict(const std::vector<DistributedTensor>& tensors) {
    root_.kind = Kind::kDict;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      Value* dict = &root_;
      for (std::size_t level = 0; level + 1 < tensors[i].path.size(); ++level)
        dict = &below(*dict, tensors[i].path[level]);
      Value& leaf = entry(*dict, tensors[i].path.back(), Kind::kTensor);
      leaf.number = static_cast<std::int64_t>(i);
      leaf.holds_tensor = true;
    }
  }
  const Value& root() const { return root_; }

 private:
  Value& entry(Value& dict, const std::string& key, Kind kind) {
    Value& name = values_.emplace_back();
    name.kind = Kind::kText;
    name.text = key;
    Value& value = values_.emplace_back();
    value.kind = kind;
    dict.items.push_back(&name);
    dict.items.push_back(&value);
    dicts_[{&dict, key}] = &value;
    return value;
  }
  Value& below(Value& dict, const std::string& key) {
    const auto found = dicts_.find({&dict, key});
    return found != dicts_.end() ? *found->second : entry(dict, key, Kind::kDict);
  }

  Value root_;
  std::deque<Value> values_;
  std::map<std::pair<const Value*, std::string>, Value*> dicts_;
};

class Parts {
 public:
  Parts(fs::path folder, Storage& storage) : folder_(std::move(folder)), storage_(storage) {}

  /// A part that is the whole tensor stays where it lies; others are copied together.
  at::Tensor tensor(const DistributedTensor& one) {
    if (one.parts.size() == 1 && one.parts.front().sizes == one.sizes) return part(one, one.parts.front());
    at::Tensor whole;
    for (const DistributedPart& piece : one.parts) {
      const at::Tensor there = part(one, piece);
      if (!whole.defined()) whole = at::empty(one.sizes, there.options());
      at::Tensor place = whole;
      for (std::size_t d = 0; d < one.sizes.size(); ++d)
        place = place.narrow(static_cast<std::int64_t>(d), piece.offsets[d], piece.sizes[d]);
      place.copy_(there);
    }
    return whole;
  }

 private:
  at::Tensor part(const DistributedTensor& one, const DistributedPart& piece) {
    const fs::path path = folder_ / piece.file;
    const std::string file = quote(path.string());
    auto found = storage_.files.find(piece.file);
    if (found == storage_.files.end()) found = storage_.files.emplace(piece.file, MappedFile(path)).first;
    const auto bytes = found->second.bytes();
    if (piece.begin + piece.length > bytes.size())
      throw InputError(file + " has " + std::to_string(bytes.size()) + " bytes, but .metadata puts a part of " +
                       quote(one.name) + " up to byte " + std::to_string(piece.begin + piece.length) +
                       " (cut short, or not of this checkpoint)");
    const auto own = bytes.subspan(piece.begin, piece.length);
    if (own.size() < 2 || own[0] != std::byte{'P'} || own[1] != std::byte{'K'})
      throw InputError(file + ": " + quote(one.name) +
                       " was not written by torch.save, the default of torch.distributed.checkpoint, which is the only "
                       "form of it that hesspect reads");
    TensorArchive& archive = storage_.archives.emplace_back(path, own, file);
    const pickle::Document document = pickle::unpickle(archive.pickle(), file, own.size());
    if (document.root->kind != Kind::kTensor)
      throw InputError(file + ": the part of " + quote(one.name) + " at byte " + std::to_string(piece.begin) +
                       " is no plain tensor");
    at::Tensor tensor = archive.place(one.name, *document.root);
    if (tensor.sizes() != at::IntArrayRef(piece.sizes) || to_string(document.root->type) != one.dtype)
      throw InputError(file + ": a part of " + quote(one.name) + " is of " + to_string(document.root->type) +
                       " and shape " + format_shape(tensor.sizes().vec()) + ", but .metadata says " + one.dtype +
                       " and " + format_shape(piece.sizes));
    return tensor;
  }

  fs::path folder_;
  Storage& storage_;
};

}  // namespace

StateDict read_distributed_state_dict(const fs::path& folder, const std::string& key) {
  const DistributedCheckpoint checkpoint = read_distributed_metadata(folder);
  StateDict state_dict;
  state_dict.format = "torch.distributed.checkpoint";
  state_dict.files = {folder / ".metadata"};
  const SavedDict saved(checkpoint.tensors);
  const Value& dict = find_state_dict(saved.root(), quote(folder.string()), key, state_dict);
  const auto storage = std::make_shared<Storage>();
  Parts parts(folder, *storage);
  for (std::size_t i = 0; i + 1 < dict.items.size(); i += 2) {
    const Value& value = *dict.items[i + 1];
    const std::string name = key_name(*dict.items[i]);
    if (value.kind != Kind::kTensor) {
      state_dict.skipped.push_back(state_dict.key.empty() ? name : state_dict.key + "." + name);
      continue;
    }
    const at::Tensor tensor = parts.tensor(checkpoint.tensors[static_cast<std::size_t>(value.number)]);
    state_dict.tensors.push_back({name, tensor.scalar_type(), tensor.sizes().vec(), tensor});
  }
  for (const auto& [name, file] : storage->files) state_dict.files.push_back(folder / name);
  state_dict.skipped.insert(state_dict.skipped.end(), checkpoint.others.begin(), checkpoint.others.end());
  state_dict.storage = storage;
  return state_dict;
}

}  // namespace hesspect
