#include <ATen/ATen.h>

#include <cstring>

#include "array_formats.h"
#include "hesspect/core/element_type_torch.h"
#include "hesspect/core/safetensors.h"

namespace hesspect {
namespace {

class SafetensorsArrays final : public ArrayFile {
 public:
  explicit SafetensorsArrays(const std::filesystem::path& path) : ArrayFile(path), file_(path) {
    for (const SafetensorsEntry& entry : file_.entries())
      arrays_.push_back({entry.name, to_scalar_type(entry.type), entry.shape});
  }

  std::string format() const override { return "safetensors"; }

  at::Tensor read_slab(const std::string& name, std::int64_t dim, std::int64_t begin, std::int64_t end) const override {
    const ArrayInfo& array = info(name);
    at::Tensor rows = empty_slab(*this, array, dim, begin, end);
    if (rows.numel() == 0) return rows;
    // The dimensions before `dim` cut the file into stretches; a part of each is taken.
    const auto d = static_cast<std::size_t>(dim);
    std::int64_t stretches = 1;
    for (std::size_t i = 0; i < d; ++i) stretches *= array.shape[i];
    const std::size_t part = rows.nbytes() / static_cast<std::size_t>(stretches);
    const std::size_t entry = part / static_cast<std::size_t>(end - begin);
    const std::byte* from = file_.find(array.name)->data + static_cast<std::size_t>(begin) * entry;
    auto* to = static_cast<std::byte*>(rows.data_ptr());
    for (std::int64_t s = 0; s < stretches; ++s, to += part, from += static_cast<std::size_t>(array.shape[d]) * entry)
      std::memcpy(to, from, part);
    if (array.dtype == at::kBool) normalise_bool(rows);
    return rows;
  }

  at::Tensor read_block(const std::string& name, std::int64_t at, std::int64_t begin, std::int64_t end) const override {
    const ArrayInfo& array = info(name);
    const at::Tensor block = empty_block(*this, array, at, begin, end);
    if (block.numel() == 0) return block;
    const std::size_t entry = block.nbytes() / static_cast<std::size_t>(end - begin);
    const std::byte* from =
        file_.find(array.name)->data + static_cast<std::size_t>(at * array.shape[1] + begin) * entry;
    std::memcpy(block.data_ptr(), from, block.nbytes());
    if (array.dtype == at::kBool) normalise_bool(block);
    return block;
  }

 private:
  SafetensorsFile file_;
};

}  // namespace

std::unique_ptr<ArrayFile> open_safetensors_arrays(const std::filesystem::path& path) {
  return std::make_unique<SafetensorsArrays>(path);
}

}  // namespace hesspect
