#include "stacked.h"

namespace hesspect {

at::Tensor restacked(const std::vector<at::Tensor>& each) {
  const at::Tensor& first = each.front();
  if (each.size() == 1) return stacked_alone(first);
  const std::int64_t distance = each[1].storage_offset() - first.storage_offset();
  bool is_view = distance > 0;
  for (std::size_t k = 1; is_view && k < each.size(); ++k)
    is_view = each[k].is_alias_of(first) && each[k].sizes() == first.sizes() && each[k].strides() == first.strides() &&
              each[k].storage_offset() == first.storage_offset() + static_cast<std::int64_t>(k) * distance;
  if (!is_view) return at::stack(each);
  std::vector<std::int64_t> sizes = first.sizes().vec(), strides = first.strides().vec();
  sizes.insert(sizes.begin(), static_cast<std::int64_t>(each.size()));
  strides.insert(strides.begin(), distance);
  return first.as_strided(sizes, strides, first.storage_offset());
}

at::Tensor aligned(const at::Tensor& stacked, std::int64_t dims) {
  if (!stacked.defined() || stacked.dim() == dims + 1) return stacked;
  const std::size_t new_ones = static_cast<std::size_t>(dims + 1 - stacked.dim());
  std::vector<std::int64_t> sizes = stacked.sizes().vec(), strides = stacked.strides().vec();
  sizes.insert(sizes.begin() + 1, new_ones, 1);
  strides.insert(strides.begin() + 1, new_ones, stacked.numel() / stacked.size(0));
  return strided(stacked, sizes, strides, stacked.storage_offset());
}

at::Tensor summed_to(const at::Tensor& stacked, at::IntArrayRef sizes) {
  if (!stacked.defined() || stacked.sizes().slice(1) == sizes) return stacked;
  const std::int64_t extra = stacked.dim() - 1 - static_cast<std::int64_t>(sizes.size());
  std::vector<std::int64_t> over;
  for (std::int64_t d = 0; d < stacked.dim() - 1; ++d)
    if (d < extra || (sizes[static_cast<std::size_t>(d - extra)] == 1 && stacked.size(d + 1) != 1))
      over.push_back(d + 1);
  return reshaped(over.empty() ? stacked : stacked.sum(over, /*keepdim=*/true), with_count(stacked.size(0), sizes));
}

std::vector<std::int64_t> with_count(std::int64_t k, at::IntArrayRef shape) {
  std::vector<std::int64_t> sizes{k};
  sizes.insert(sizes.end(), shape.begin(), shape.end());
  return sizes;
}

at::Tensor stacked_zeros(std::int64_t k, at::IntArrayRef sizes, const at::Tensor& like) {
  return at::zeros(with_count(k, sizes), like.options());
}

at::Tensor as_output(const at::Tensor& stacked, at::ScalarType type, at::IntArrayRef shape) {
  const std::vector<std::int64_t> sizes = with_count(stacked.size(0), shape);
  const at::Tensor typed = as_type(stacked, type);
  return typed.sizes() == sizes ? typed : typed.expand(sizes);
}

at::Tensor sum_of(const at::Tensor& a, const at::Tensor& b) {
  if (!a.defined()) return b;
  return b.defined() ? a + b : a;
}

}  // namespace hesspect
