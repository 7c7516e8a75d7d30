#include "hesspect/model/parameter_layout.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace hesspect {

void ParameterLayout::add(ParameterEntry entry) {
  entry.offset = size_;
  size_ += entry.numel;
  entries_.push_back(std::move(entry));
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

}  // namespace hesspect
