#include "archive.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "hesspect/core/errors.h"
#include "hesspect/core/json_nesting.h"
#include "hesspect/core/text.h"

namespace hesspect {
namespace {

using nlohmann::json;

/// A size of the schema: {"as_int": 3}.
std::int64_t static_int(const json& value, const std::string& what) {
  if (!value.is_object() || !value.contains("as_int") || !value["as_int"].is_number_integer())
    throw InputError(what + ": expected a fixed integer, found " + value.dump().substr(0, 80));
  return integer_from(value["as_int"]);
}

/// More elements than any tensor has, and so few that no sum over a file's tensors overflows.
constexpr std::int64_t kMostElements = std::int64_t{1} << 40;

/// @throws InputError for sizes below 0, or more elements than any tensor has
void check_sizes(const std::vector<std::int64_t>& sizes) {
  std::int64_t numel = 1;
  for (const std::int64_t size : sizes) {
    if (size < 0) throw InputError("of shape " + format_shape(sizes) + " has a negative size or stride");
    if (size > 0 && numel > kMostElements / size)
      throw InputError("of shape " + format_shape(sizes) + " is larger than any memory");
    numel *= std::max<std::int64_t>(size, 1);
  }
}

}  // namespace

std::int64_t integer_from(const json& value) {
  const bool fits =
      value.is_number_unsigned()
          ? value.get<std::uint64_t>() <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())
          : value.is_number_integer();
  if (!fits) throw InputError("has a broken integer: " + value.dump().substr(0, 40));
  return value.get<std::int64_t>();
}

std::int64_t type_code_of(const json& meta) {
  if (!meta.is_object() || !meta.contains("dtype") || !meta["dtype"].is_number_integer()) return 0;
  return meta["dtype"].get<std::int64_t>();
}

at::ScalarType scalar_type_from_schema(std::int64_t code) {
  // Codes from 1 on: torch/_export/serde/schema.py, ScalarType.
  static constexpr at::ScalarType kTypes[] = {
      at::kByte,   at::kChar,        at::kShort,        at::kInt,           at::kLong, at::kHalf,    at::kFloat,
      at::kDouble, at::kComplexHalf, at::kComplexFloat, at::kComplexDouble, at::kBool, at::kBFloat16};
  if (code < 1 || code > std::ssize(kTypes))
    throw InputError("dtype code " + std::to_string(code) + " of the export schema is not supported");
  return kTypes[code - 1];
}

Pt2Archive::Pt2Archive(const std::filesystem::path& path) : path_(path) {
  std::error_code ec;
  const auto status = std::filesystem::status(path, ec);
  if (!std::filesystem::exists(status)) throw InputError("model " + path.string() + ": no such file");
  if (std::filesystem::is_directory(status))
    throw InputError("model " + path.string() + ": is a directory; expected a .pt2 file written by torch.export.save");
  try {
    zip_ = std::make_shared<ZipArchive>(path);
  } catch (const InputError& e) {
    throw InputError(where() + "not a readable .pt2 archive; expected a file written by torch.export.save (" +
                     e.what() + ")");
  }
  const std::string root = zip_->root() + "/";
  std::string model_record;
  for (const ZipEntry& entry : zip_->entries()) {
    if (!entry.name.starts_with(root + "models/") || !entry.name.ends_with(".json")) continue;
    const std::string record = entry.name.substr(root.size());
    if (model_record.empty() || record == "models/model.json") model_record = record;
  }
  if (model_record.empty()) {
    const bool old_form = find("serialized_exported_program.json") != nullptr;
    const bool torch_save = find("data.pkl") != nullptr;
    throw InputError(where() +
                     (old_form ? "was written by an older torch.export.save; export it again with torch 2.8 or later"
                      : torch_save
                          ? "is a PyTorch state dict (torch.save), not an exported program; pass it as --weights, and "
                            "as --model the .pt2 that torch.export.save writes"
                          : "holds no exported program (models/*.json); expected a file written by torch.export.save"));
  }
  const std::string name = model_record.substr(7, model_record.size() - 7 - 5);
  model_ = parsed(model_record);
  if (model_.is_discarded() || !model_.is_object() || !model_.contains("graph_module"))
    throw InputError(where() + "its graph (" + model_record + ") is not valid JSON of an exported program");
  weights_ = read_config("data/weights/", name + "_weights_config.json");
  constants_ = read_config("data/constants/", name + "_constants_config.json");
}

std::int64_t Pt2Archive::most_bytes() const {
  std::error_code error;
  const auto bytes = std::filesystem::file_size(path_, error);
  return (std::int64_t{64} << 20) + (error ? 0 : 10 * static_cast<std::int64_t>(bytes));
}

std::string Pt2Archive::where() const { return "model " + path_.string() + ": "; }

const ZipEntry* Pt2Archive::find(const std::string& record) const { return zip_->find(zip_->root() + "/" + record); }

nlohmann::json Pt2Archive::parsed(const std::string& record) const {
  const ZipEntry* entry = find(record);
  if (entry == nullptr) throw InputError(where() + "lacks its record " + record);
  const std::string_view text(reinterpret_cast<const char*>(entry->data.data()), entry->data.size());
  if (json_nests_deeper(text)) throw InputError(where() + record + " nests deeper than any exported program");
  return json::parse(text, nullptr, false);
}

std::map<std::string, ArchivedTensor> Pt2Archive::read_config(const std::string& folder,
                                                              const std::string& record) const {
  std::map<std::string, ArchivedTensor> tensors;
  if (find(folder + record) == nullptr) return tensors;
  const json config = parsed(folder + record);
  if (config.is_discarded() || !config.is_object() || !config.contains("config"))
    throw InputError(where() + folder + record + " is not valid JSON of tensors");
  for (const auto& [name, entry] : config["config"].items()) {
    try {
      if (entry.value("use_pickle", false))
        throw InputError("is stored as a pickle, which is never executed; only plain tensors can be read");
      const json& meta = entry.at("tensor_meta");
      if (meta.is_null()) throw InputError("is not a tensor");
      ArchivedTensor tensor;
      tensor.record = folder + entry.at("path_name").get<std::string>();
      tensor.dtype = scalar_type_from_schema(integer_from(meta.at("dtype")));
      for (const json& size : meta.at("sizes")) tensor.sizes.push_back(static_int(size, "size"));
      check_sizes(tensor.sizes);
      for (const json& stride : meta.at("strides")) tensor.strides.push_back(static_int(stride, "stride"));
      tensor.storage_offset = static_int(meta.at("storage_offset"), "storage offset");
      tensor.requires_grad = meta.value("requires_grad", false);
      // Without data torch.export.save writes one empty record for all of them, so records say nothing about ties.
      const bool empty = std::find(tensor.sizes.begin(), tensor.sizes.end(), 0) != tensor.sizes.end();
      const ZipEntry* data = find(tensor.record);
      tensor.has_data = empty || data == nullptr || !data->data.empty();
      tensors.emplace(name, std::move(tensor));
    } catch (const InputError& e) {
      throw InputError(where() + "tensor '" + name + "' " + e.what());
    } catch (const json::exception& e) {
      throw InputError(where() + "tensor '" + name + "' has a broken entry in " + folder + record + " (" + e.what() +
                       ")");
    }
  }
  return tensors;
}

bool Pt2Archive::lacks_data() const {
  const auto lacks = [](const auto& named) { return !named.second.has_data; };
  return std::any_of(weights_.begin(), weights_.end(), lacks) ||
         std::any_of(constants_.begin(), constants_.end(), lacks);
}

at::Tensor Pt2Archive::read(const std::string& name, const ArchivedTensor& entry) const {
  const auto fail = [&](const std::string& why) -> InputError {
    return InputError(where() + "tensor '" + name + "' of shape " + format_shape(entry.sizes) + " " + why);
  };
  const std::int64_t item = static_cast<std::int64_t>(c10::elementSize(entry.dtype));
  if (entry.sizes.size() != entry.strides.size() || entry.storage_offset < 0) throw fail("has inconsistent strides");
  bool empty = false;
  std::int64_t last = entry.storage_offset;  // index of the furthest element
  for (std::size_t d = 0; d < entry.sizes.size(); ++d) {
    if (entry.sizes[d] < 0 || entry.strides[d] < 0) throw fail("has a negative size or stride");
    if (entry.sizes[d] == 0) empty = true;
    std::int64_t step = 0;
    if (__builtin_mul_overflow(std::max<std::int64_t>(entry.sizes[d] - 1, 0), entry.strides[d], &step) ||
        __builtin_add_overflow(last, step, &last) || last > std::numeric_limits<std::int64_t>::max() / 16)
      throw fail("is larger than any memory");
  }
  if (empty) return at::empty_strided(entry.sizes, entry.strides, at::TensorOptions().dtype(entry.dtype));
  const ZipEntry* record = find(entry.record);
  if (record == nullptr) throw fail("has no data: the archive lacks " + entry.record);
  const auto needed = static_cast<std::size_t>(last + 1) * static_cast<std::size_t>(item);
  if (record->data.size() < needed)
    throw fail("needs " + std::to_string(needed) + " bytes, but " + entry.record + " holds " +
               std::to_string(record->data.size()));
  // The tensor is only ever read; from_blob takes no const pointer.
  const std::byte* begin = record->data.data() + entry.storage_offset * item;
  auto* first = const_cast<std::byte*>(begin);
  std::shared_ptr<void> owner = zip_;
  if (reinterpret_cast<std::uintptr_t>(first) % static_cast<std::uintptr_t>(item) != 0) {
    const auto copy = std::make_shared<std::vector<std::byte>>(begin, record->data.data() + record->data.size());
    first = copy->data();
    owner = copy;
  }
  return at::from_blob(
      first, entry.sizes, entry.strides, [owner](void*) {}, at::TensorOptions().dtype(entry.dtype));
}

}  // namespace hesspect
