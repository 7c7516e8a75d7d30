#include "hesspect/model/state_dict.h"

#include <ATen/ATen.h>
#include <c10/util/strides.h>

#include <array>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "hesspect/core/distributed_checkpoint.h"
#include "hesspect/core/element_type_torch.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/mapped_file.h"
#include "hesspect/core/safetensors.h"
#include "hesspect/core/text.h"
#include "state_dict_formats.h"

namespace hesspect {
namespace {

constexpr std::size_t kMaxIndexBytes = 100'000'000;

enum class Format { kSafetensors, kIndex, kZip, kBarePickle, kUnknown };

Format format_of(const std::filesystem::path& path) {
  check_input_file(path);
  std::array<char, 64> start{};
  std::ifstream in(path, std::ios::binary);
  in.read(start.data(), start.size());
  const std::string_view text(start.data(), static_cast<std::size_t>(in.gcount()));
  if (text.starts_with("PK\x03\x04") || text.starts_with("PK\x05\x06")) return Format::kZip;
  if (text.size() >= 2 && text[0] == '\x80' && text[1] >= 2 && text[1] <= 5) return Format::kBarePickle;
  // A safetensors header of 123 bytes starts as JSON does, so this comes before the index.
  if (text.size() > 8 && text[8] == '{' && text[7] == '\0') return Format::kSafetensors;
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && text[first] == '{') return Format::kIndex;
  if (text.size() > 8 && text[8] == '{') return Format::kSafetensors;
  return Format::kUnknown;
}

StateDict read_safetensors_state_dict(const std::filesystem::path& path) {
  auto file = std::make_shared<SafetensorsFile>(path);
  StateDict state_dict;
  state_dict.format = "safetensors";
  state_dict.files = {path};
  for (const SafetensorsEntry& entry : file->entries()) {
    StateDictTensor tensor{entry.name, to_scalar_type(entry.type), entry.shape, {}};
    const bool aligned = reinterpret_cast<std::uintptr_t>(entry.data) % element_size(entry.type) == 0;
    if (aligned && entry.bytes > 0) {
      const auto strides = c10::contiguous_strides(entry.shape);
      tensor.tensor = tensor_over(entry.data, entry.type, entry.shape, {strides.begin(), strides.end()});
    } else {
      tensor.tensor = at::empty(entry.shape, at::TensorOptions(tensor.dtype));
      if (entry.bytes > 0) std::memcpy(tensor.tensor.data_ptr(), entry.data, entry.bytes);
    }
    state_dict.tensors.push_back(std::move(tensor));
  }
  state_dict.storage = std::move(file);
  return state_dict;
}

/// Takes in the index of a sharded state dict as events: names may not stand twice, nesting costs no stack.
class IndexReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<std::pair<std::string, std::string>> weight_map;  // tensor, shard
  bool has_map = false;
  std::string problem;

  bool null() override { return value("null"); }
  bool boolean(bool) override { return value("a boolean"); }
  bool number_integer(number_integer_t) override { return value("a number"); }
  bool number_unsigned(number_unsigned_t) override { return value("a number"); }
  bool number_float(number_float_t, const string_t&) override { return value("a number"); }
  bool binary(binary_t&) override { return value("binary data"); }
  bool string(string_t& text) override {
    if (in_map()) weight_map.emplace_back(key_, text);
    return in_map() || value("text");
  }
  bool start_object(std::size_t) override {
    if (in_map()) return value("an object");
    ++depth_;
    if (depth_ == 2 && key_ == "weight_map") {
      if (has_map) return fail("'weight_map' stands twice");
      has_map = true;
      map_open_ = true;
    }
    return true;
  }
  bool key(string_t& name) override {
    if (in_map() && !names_.insert(name).second) return fail("the tensor " + quote(name) + " stands twice");
    if (depth_ == 1 || in_map()) key_ = name;
    return true;
  }
  bool end_object() override {
    if (depth_ == 2) map_open_ = false;
    --depth_;
    return true;
  }
  bool start_array(std::size_t) override {
    if (in_map() || depth_ == 0) return value("a list");
    ++depth_;
    return true;
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    return fail("it is not valid JSON (at byte " + std::to_string(position) + ")");
  }

 private:
  bool in_map() const { return map_open_ && depth_ == 2; }
  bool fail(std::string why) {
    problem = std::move(why);
    return false;
  }
  bool value(const char* what) {
    if (in_map()) return fail("the shard of tensor " + quote(key_) + " is " + what + ", not a file name");
    return depth_ > 0 || fail(std::string("it is ") + what);
  }

  std::size_t depth_ = 0;
  bool map_open_ = false;
  std::string key_;
  std::unordered_set<std::string> names_;
};

/// A shard may only lie in the index's folder or below it.
void check_shard_name(const std::string& index, const std::string& shard) {
  const std::filesystem::path path(shard);
  bool inside = !shard.empty() && path.is_relative() && shard.find('\0') == std::string::npos;
  for (const auto& part : path) inside = inside && part != "..";
  if (!inside) throw InputError(index + " names the shard " + quote(shard) + ", which is not within its folder");
}

StateDict read_single(const std::filesystem::path& path, Format format, const std::string& key);

StateDict read_index(const std::filesystem::path& path) {
  const std::string index = quote(path.string());
  const MappedFile file(path);
  if (file.bytes().size() > kMaxIndexBytes) throw InputError(index + " is too large for the index of a state dict");
  IndexReader reader;
  const auto* text = reinterpret_cast<const char*>(file.bytes().data());
  if (!nlohmann::json::sax_parse(text, text + file.bytes().size(), &reader))
    throw InputError(index + " is no sound index of a sharded state dict: " + reader.problem);
  if (!reader.has_map) throw InputError(index + " is no index of a sharded state dict: it has no 'weight_map'");

  std::vector<std::string> shards;
  std::unordered_map<std::string, std::vector<std::string>> names_of;
  for (const auto& [name, shard] : reader.weight_map) {
    check_shard_name(index, shard);
    auto& names = names_of[shard];
    if (names.empty()) shards.push_back(shard);
    names.push_back(name);
  }

  StateDict all;
  all.files = {path};
  auto storages = std::make_shared<std::vector<std::shared_ptr<void>>>();
  for (const std::string& shard : shards) {
    const auto shard_path = path.parent_path() / shard;
    const Format format = format_of(shard_path);
    if (format == Format::kIndex)
      throw InputError(index + " names the shard " + quote(shard) + ", which is an index itself");
    StateDict part = read_single(shard_path, format, "");
    std::unordered_set<std::string> wanted(names_of[shard].begin(), names_of[shard].end());
    for (StateDictTensor& tensor : part.tensors) {
      if (wanted.erase(tensor.name) > 0) {
        all.tensors.push_back(std::move(tensor));
      } else {
        all.skipped.push_back(tensor.name);
      }
    }
    for (const std::string& name : names_of[shard]) {
      if (wanted.contains(name))
        throw InputError(index + " maps tensor " + quote(name) + " to the shard " + quote(shard) + ", which lacks it");
    }
    all.format = part.format + " index";
    all.files.push_back(shard_path);
    storages->push_back(std::move(part.storage));
  }
  if (all.format.empty()) all.format = "safetensors index";
  all.storage = std::move(storages);
  return all;
}

/// The shards of a folder without an index, whose names must differ.
StateDict read_shards(const std::vector<std::filesystem::path>& shards, const std::filesystem::path& folder) {
  StateDict all;
  auto storages = std::make_shared<std::vector<std::shared_ptr<void>>>();
  std::unordered_set<std::string> names;
  for (const auto& shard : shards) {
    StateDict part = read_single(shard, format_of(shard), "");
    for (StateDictTensor& tensor : part.tensors) {
      if (!names.insert(tensor.name).second)
        throw InputError(quote(folder.string()) + ": two of its shards hold the tensor " + quote(tensor.name));
      all.tensors.push_back(std::move(tensor));
    }
    all.skipped.insert(all.skipped.end(), part.skipped.begin(), part.skipped.end());
    all.objects.insert(all.objects.end(), part.objects.begin(), part.objects.end());
    all.format = part.format + " shards";
    all.files.push_back(shard);
    storages->push_back(std::move(part.storage));
  }
  all.storage = std::move(storages);
  return all;
}

StateDict read_single(const std::filesystem::path& path, Format format, const std::string& key) {
  if (!key.empty() && format != Format::kZip)
    throw InputError(quote(path.string()) + " has no keys for --weights-key " + quote(key) +
                     ": only PyTorch's own files (torch.save) do");
  switch (format) {
    case Format::kSafetensors: return read_safetensors_state_dict(path);
    case Format::kIndex: return read_index(path);
    case Format::kZip: return read_pytorch_state_dict(path, key);
    case Format::kBarePickle:
      throw InputError(quote(path.string()) +
                       " is in PyTorch's legacy form (a bare pickle), which hesspect does not read; save it again with "
                       "torch.save(torch.load(FILE, weights_only=True), NEW_FILE)");
    case Format::kUnknown: break;
  }
  throw InputError(
      quote(path.string()) +
      " is no state dict: neither safetensors, nor the index of sharded ones, nor a PyTorch archive (or it "
      "was cut short)");
}

}  // namespace

at::Tensor tensor_over(const std::byte* first, ElementType type, const std::vector<std::int64_t>& sizes,
                       const std::vector<std::int64_t>& strides) {
  // LibTorch has no read-only tensors. The mapping is read-only, so a write by mistake ends at once.
  return at::from_blob(const_cast<std::byte*>(first), sizes, strides, at::TensorOptions(to_scalar_type(type)));
}

StateDict read_state_dict(const std::filesystem::path& path, const std::string& key) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) return read_single(path, format_of(path), key);
  if (const auto distributed = distributed_folder(path)) return read_distributed_state_dict(*distributed, key);
  const std::vector<std::filesystem::path> files = weights_in_folder(path);
  if (files.size() > 1) return read_shards(files, path);
  return read_single(files.front(), format_of(files.front()), key);
}

}  // namespace hesspect
