// Tangents of one value, stacked: [K, shape of the value].
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "hesspect/tangent/strided.h"

namespace hesspect {

/// Puts K tensors of one shape together. Views of one storage at equal distances stay views; others are copied.
at::Tensor restacked(const std::vector<at::Tensor>& each);

/// f of each tangent, stacked again.
template <class F>
at::Tensor each(const at::Tensor& stacked, F&& f) {
  if (stacked.size(0) == 1) return stacked_alone(f(part(stacked, 0)));
  std::vector<at::Tensor> results;
  for (std::int64_t k = 0; k < stacked.size(0); ++k) results.push_back(f(part(stacked, k)));
  return restacked(results);
}

/// [K, shape] -> [K, 1…, shape] with `dims` dimensions behind K, so that it broadcasts as the value does.
at::Tensor aligned(const at::Tensor& stacked, std::int64_t dims);

/// Sums [K, shape] over what was broadcast from `sizes`. @return [K, sizes]; the tensor itself where nothing was
at::Tensor summed_to(const at::Tensor& stacked, at::IntArrayRef sizes);

/// [K, shape].
std::vector<std::int64_t> with_count(std::int64_t k, at::IntArrayRef shape);

/// [K, sizes] of zeros, as `like` otherwise.
at::Tensor stacked_zeros(std::int64_t k, at::IntArrayRef sizes, const at::Tensor& like);

/// The same numbers as another type; t itself where it is of that type.
inline at::Tensor as_type(const at::Tensor& t, at::ScalarType type) { return t.scalar_type() == type ? t : t.to(type); }

/// An op's output [K, shape] of what was made from arguments of other types or fewer entries.
at::Tensor as_output(const at::Tensor& stacked, at::ScalarType type, at::IntArrayRef shape);

/// a + b, where either may be undefined, which is zero.
at::Tensor sum_of(const at::Tensor& a, const at::Tensor& b);

}  // namespace hesspect
