#include "hesspect/model/parameter_layout.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace hesspect {

void ParameterLayout::add(ParameterEntry entry) {
  entry.offset = size_;
  entry.model_offset = model_size_;
  if (!entry.rows) {
    entry.model_shape = entry.shape;
    entry.model_numel = entry.numel;
  }
  size_ += entry.numel;
  model_size_ += entry.model_numel;
  entries_.push_back(std::move(entry));
}

std::shared_ptr<const EntryNumbers> ParameterLayout::numbers() const {
  if (size_ == model_size_) return nullptr;
  auto numbers = std::make_shared<EntryNumbers>();
  for (const ParameterEntry& entry : entries_) {
    if (!entry.rows) {
      numbers->add(entry.model_offset, entry.numel);
      continue;
    }
    const std::int64_t width = entry.model_numel / entry.model_shape.front();
    for (const std::int64_t row : *entry.rows) numbers->add(entry.model_offset + row * width, width);
  }
  return numbers;
}

std::int64_t ParameterLayout::complex_count() const {
  std::int64_t count = 0;
  for (const ParameterEntry& entry : entries_)
    if (entry.is_complex()) count += entry.numel / 2;
  return count;
}

const ParameterEntry* ParameterLayout::find(const std::string& name) const {
  for (const ParameterEntry& entry : entries_) {
    if (entry.name == name) return &entry;
    if (std::find(entry.aliases.begin(), entry.aliases.end(), name) != entry.aliases.end()) return &entry;
  }
  return nullptr;
}

std::vector<at::Tensor> ParameterLayout::views(const at::Tensor& flat) const {
  std::vector<at::Tensor> tensors;
  tensors.reserve(entries_.size());
  for (const ParameterEntry& entry : entries_)
    tensors.push_back(flat.narrow(0, entry.offset, entry.numel).view(entry.shape));
  return tensors;
}

at::Tensor rows_held(const ParameterEntry& entry, const at::Tensor& whole) {
  if (!entry.rows) return whole;
  const auto count = static_cast<std::int64_t>(entry.rows->size());
  const at::Tensor rows = at::tensor(*entry.rows, at::kLong).view({count});
  return whole.index_select(0, rows.to(whole.device()));
}

}  // namespace hesspect
