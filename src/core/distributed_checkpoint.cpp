#include "hesspect/core/distributed_checkpoint.h"

#include <algorithm>
#include <array>
#include <limits>

#include "hesspect/core/errors.h"
#include "hesspect/core/mapped_file.h"
#include "hesspect/core/text.h"
#include "hesspect/core/unpickle.h"

// The classes and their fields: torch/distributed/checkpoint/metadata.py and filesystem.py.

namespace hesspect {
namespace {

namespace fs = std::filesystem;
using pickle::Kind;
using pickle::Value;

constexpr const char* kMetadata = ".metadata";
/// Of transformers' Trainer and accelerate with FSDP and sharded state dicts.
constexpr const char* kBelow = "pytorch_model_fsdp_0";
constexpr std::size_t kMostParts = 4096;  // of a tensor

bool is_here(const fs::path& folder) {
  std::error_code error;
  if (fs::exists(folder / kMetadata, error)) return true;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    if (entry->path().extension() == ".distcp") return true;
  return false;
}

bool has_other_weights(const fs::path& folder) {
  static constexpr std::array<std::string_view, 4> kEndings{".safetensors", ".bin", ".safetensors.index.json",
                                                            ".bin.index.json"};
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (std::ranges::any_of(kEndings, [&](std::string_view ending) { return name.ends_with(ending); }) &&
        !name.starts_with("training_args") && !name.starts_with("optimizer"))
      return true;
  }
  return false;
}

class Reader {
 public:
  Reader(const std::string& file, const Value& root) : file_(file), root_(root) {}

  DistributedCheckpoint read() {
    if (root_.kind != Kind::kObject || !root_.text.ends_with(".Metadata"))
      refuse("it holds no metadata of torch.distributed.checkpoint");
    read_places();
    read_paths();
    const Value& tensors = dict_of(root_, "state_dict_metadata");
    for (std::size_t i = 0; i + 1 < tensors.items.size(); i += 2) {
      const std::string& name = text_of(*tensors.items[i], "a name");
      const Value& entry = *tensors.items[i + 1];
      if (entry.kind == Kind::kObject && entry.text.ends_with(".TensorStorageMetadata"))
        found_.tensors.push_back(tensor(name, entry));
      else
        found_.others.push_back(name);
    }
    return std::move(found_);
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const { throw InputError(file_ + ": " + why); }

  /// A field of an object, as it was pickled; nullptr: none.
  static const Value* field(const Value& object, std::string_view name) {
    if (object.kind != Kind::kObject || object.state == nullptr || object.state->kind != Kind::kDict) return nullptr;
    const auto& items = object.state->items;
    const Value* found = nullptr;
    for (std::size_t i = 0; i + 1 < items.size(); i += 2)
      if (items[i]->kind == Kind::kText && items[i]->text == name) found = items[i + 1];
    return found;
  }
  const Value& required(const Value& object, std::string_view name, Kind kind) const {
    const Value* const found = field(object, name);
    if (found == nullptr || found->kind != kind)
      refuse("an entry of it lacks its " + quote(std::string(name)) + ": written by another version of PyTorch?");
    return *found;
  }
  const Value& dict_of(const Value& object, std::string_view name) const { return required(object, name, Kind::kDict); }

  const std::string& text_of(const Value& value, const std::string& what) const {
    if (value.kind != Kind::kText) refuse(what + " is no text");
    return value.text;
  }

  std::vector<std::int64_t> numbers_of(const Value& value, const std::string& what) const {
    if (value.kind != Kind::kTuple && value.kind != Kind::kList) refuse(what + " is no list of numbers");
    std::vector<std::int64_t> numbers;
    for (const Value* one : value.items) {
      if (one->kind != Kind::kInt || one->number < 0) refuse(what + " is no list of numbers");
      numbers.push_back(one->number);
    }
    return numbers;
  }

  std::uint64_t count_of(const Value& object, std::string_view name) const {
    const Value& value = required(object, name, Kind::kInt);
    if (value.number < 0) refuse(quote(std::string(name)) + " is below zero");
    return static_cast<std::uint64_t>(value.number);
  }

  /// Where each part lies, by the tensor's name.
  void read_places() {
    const Value& places = dict_of(root_, "storage_data");
    for (std::size_t i = 0; i + 1 < places.items.size(); i += 2) {
      const Value &index = *places.items[i], &info = *places.items[i + 1];
      const std::string& name = required(index, "fqn", Kind::kText).text;
      DistributedPart part;
      if (const Value* offset = field(index, "offset"); offset != nullptr && offset->kind != Kind::kNone)
        part.offsets = numbers_of(*offset, "an offset of " + quote(name));
      part.file = required(info, "relative_path", Kind::kText).text;
      part.begin = count_of(info, "offset");
      part.length = count_of(info, "length");
      const fs::path relative(part.file);
      bool inside = !part.file.empty() && relative.is_relative() && part.file.find('\0') == std::string::npos;
      for (const auto& piece : relative) inside = inside && piece != "..";
      if (!inside) refuse("it names the file " + quote(part.file) + ", which is not within its folder");
      if (part.begin > std::numeric_limits<std::uint64_t>::max() / 2 - part.length) refuse("a part has no end");
      if (const Value* changed = field(info, "transform_descriptors");
          changed != nullptr && changed->kind != Kind::kNone && !changed->items.empty())
        refuse(
            "its parts are compressed or changed otherwise, which hesspect does not read; save it without "
            "extensions of the storage writer");
      std::uint64_t& bytes = found_.files[part.file];
      bytes = std::max(bytes, part.begin + part.length);
      places_[name].push_back(std::move(part));
    }
  }

  /// The keys that led to each name.
  void read_paths() {
    const Value* const paths = field(root_, "planner_data");
    if (paths == nullptr || paths->kind != Kind::kDict) return;
    for (std::size_t i = 0; i + 1 < paths->items.size(); i += 2) {
      if (paths->items[i]->kind != Kind::kText) continue;
      std::vector<std::string>& path = paths_[paths->items[i]->text];
      for (const Value* key : paths->items[i + 1]->items)
        path.push_back(key->kind == Kind::kInt ? std::to_string(key->number) : key->text);
    }
  }

  DistributedTensor tensor(const std::string& name, const Value& entry) {
    DistributedTensor one;
    one.name = name;
    const auto path = paths_.find(name);
    one.path = path == paths_.end() || path->second.empty() ? std::vector{name} : path->second;
    one.dtype = dtype_of(entry, name);
    one.sizes = numbers_of(required(entry, "size", Kind::kTuple), "the size of " + quote(name));
    const Value& chunks = required(entry, "chunks", Kind::kList);
    const std::vector<DistributedPart>& places = places_[name];
    if (chunks.items.size() > kMostParts) refuse(quote(name) + " is in more parts than are read");
    for (const Value* chunk : chunks.items) {
      DistributedPart part;
      const std::vector<std::int64_t> offsets =
          numbers_of(required(*chunk, "offsets", Kind::kTuple), "an offset of " + quote(name));
      const auto place = std::ranges::find_if(places, [&](const DistributedPart& there) {
        return there.offsets == offsets || (there.offsets.empty() && chunks.items.size() == 1);
      });
      if (place == places.end()) refuse("it does not say where a part of " + quote(name) + " lies");
      part = *place;
      part.offsets = offsets;
      part.sizes = numbers_of(required(*chunk, "sizes", Kind::kTuple), "the size of a part of " + quote(name));
      one.parts.push_back(std::move(part));
    }
    check_cover(one);
    return one;
  }

  /// Of its properties, which are pickled as a tuple that begins with the dtype, or in older versions as a dict.
  std::string dtype_of(const Value& entry, const std::string& name) const {
    const Value& properties = required(entry, "properties", Kind::kObject);
    const Value* dtype = field(properties, "dtype");
    if (dtype == nullptr && properties.state != nullptr && properties.state->kind == Kind::kTuple &&
        !properties.state->items.empty())
      dtype = properties.state->items.front();
    if (dtype == nullptr || !dtype->text.starts_with("torch."))
      refuse("it does not say what type " + quote(name) + " has");
    return dtype->text.substr(6);
  }

  /// Every entry is in one part.
  void check_cover(const DistributedTensor& one) const {
    const auto entries = [&](const std::vector<std::int64_t>& sizes) {
      std::int64_t count = 1;
      for (const std::int64_t size : sizes)
        if (__builtin_mul_overflow(count, size, &count)) refuse(quote(one.name) + " is larger than can be");
      return count;
    };
    const auto wrong = [&](const char* why) {
      refuse("the parts of " + quote(one.name) + " of shape " + format_shape(one.sizes) + " " + why);
    };
    std::int64_t sum = 0;
    for (const DistributedPart& part : one.parts) {
      if (part.offsets.size() != one.sizes.size() || part.sizes.size() != one.sizes.size())
        wrong("have other dimensions");
      for (std::size_t d = 0; d < one.sizes.size(); ++d)
        if (part.offsets[d] > one.sizes[d] || part.sizes[d] > one.sizes[d] - part.offsets[d]) wrong("reach beyond it");
      if (__builtin_add_overflow(sum, entries(part.sizes), &sum)) wrong("are too large");
    }
    for (std::size_t i = 0; i < one.parts.size(); ++i)
      for (std::size_t j = 0; j < i; ++j) {
        const DistributedPart &a = one.parts[i], &b = one.parts[j];
        bool apart = entries(a.sizes) == 0 || entries(b.sizes) == 0;
        for (std::size_t d = 0; d < one.sizes.size(); ++d)
          apart = apart || a.offsets[d] >= b.offsets[d] + b.sizes[d] || b.offsets[d] >= a.offsets[d] + a.sizes[d];
        if (!apart) wrong("overlap");
      }
    if (sum != entries(one.sizes)) wrong("leave out entries of it");
  }

  const std::string& file_;
  const Value& root_;
  DistributedCheckpoint found_;
  std::map<std::string, std::vector<DistributedPart>> places_;
  std::map<std::string, std::vector<std::string>> paths_;
};

}  // namespace

std::optional<fs::path> distributed_folder(const fs::path& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) return std::nullopt;
  if (is_here(folder)) return folder;
  if (is_here(folder / kBelow) && !has_other_weights(folder)) return folder / kBelow;
  return std::nullopt;
}

DistributedCheckpoint distributed_metadata(std::span<const std::byte> bytes, const std::string& file) {
  const pickle::Document document = pickle::unpickle(bytes, file, bytes.size());
  return Reader(file, *document.root).read();
}

DistributedCheckpoint read_distributed_metadata(const fs::path& folder) {
  const fs::path path = folder / kMetadata;
  std::error_code error;
  if (!fs::exists(path, error))
    throw InputError(
        quote(folder.string()) +
        " is a checkpoint of torch.distributed.checkpoint without its .metadata, which is written last: it "
        "is not whole");
  const MappedFile file(path);
  return distributed_metadata(file.bytes(), quote(path.string()));
}

}  // namespace hesspect
