#include <ATen/ATen.h>

#include <cstring>

#include "array_formats.h"
#include "hesspect/core/element_type_torch.h"
#include "hesspect/core/safetensors.h"

namespace hesspect {
namespace {

class SafetensorsArrays final : public ArrayFile {
 public:
  explicit SafetensorsArrays(const std::filesystem::path& path) : file_(path) {
    for (const SafetensorsEntry& entry : file_.entries()) {
      arrays_.push_back({entry.name, to_scalar_type(entry.type), entry.shape});
    }
  }

  const std::filesystem::path& path() const override { return file_.path(); }
  std::string format() const override { return "safetensors"; }
  const std::vector<ArrayInfo>& arrays() const override { return arrays_; }

  at::Tensor read_rows(const std::string& name, std::int64_t begin, std::int64_t end) const override {
    const ArrayInfo& array = info(name);
    at::Tensor rows = empty_rows(*this, array, begin, end);
    if (rows.numel() == 0) return rows;
    const std::size_t row_bytes = rows.nbytes() / static_cast<std::size_t>(end - begin);
    std::memcpy(rows.data_ptr(), file_.find(array.name)->data + static_cast<std::size_t>(begin) * row_bytes,
                rows.nbytes());
    if (array.dtype == at::kBool) normalise_bool(rows);
    return rows;
  }

 private:
  SafetensorsFile file_;
  std::vector<ArrayInfo> arrays_;
};

}  // namespace

std::unique_ptr<ArrayFile> open_safetensors_arrays(const std::filesystem::path& path) {
  return std::make_unique<SafetensorsArrays>(path);
}

}  // namespace hesspect
