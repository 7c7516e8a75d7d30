// Views and matrix products of strided arrays, with as little around them as there can be: a sweep makes thousands of
// both, and a call through LibTorch's dispatcher takes longer than many of them.
//
//   multiply(turned(out), part(a, k), narrowed(b, 0, 0, 64), /*add=*/true);  // outᵀ += a[k] b[:64]
//
// Autograd does not see these: they are for sweeps, where it is off.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace hesspect {

/// The same storage with other sizes and strides. @param offset  of the first entry in the storage
at::Tensor strided(const at::Tensor& t, at::IntArrayRef sizes, at::IntArrayRef strides, std::int64_t offset);

/// t[k], as t.select(0, k).
at::Tensor part(const at::Tensor& t, std::int64_t k);
/// [1, shape].
at::Tensor stacked_alone(const at::Tensor& t);
/// t.narrow(dim, begin, length). @param dim  from the front
at::Tensor narrowed(const at::Tensor& t, std::int64_t dim, std::int64_t begin, std::int64_t length);
/// t.transpose(-1, -2).
at::Tensor turned(const at::Tensor& t);
/// t.permute(order). @param order  from the front
at::Tensor permuted(const at::Tensor& t, at::IntArrayRef order);
/// t.reshape(sizes), where no size is left to be found: a view where one will do, else a copy.
at::Tensor reshaped(const at::Tensor& t, at::IntArrayRef sizes);

/// Whether products take the matrices of […, m, n] as they lie: entries of rows or of columns beside each other.
bool is_readable(const at::Tensor& t);
/// t itself where it is readable, else a contiguous copy.
at::Tensor readable(const at::Tensor& t);

/// out := a b, or out += a b: matrices [m, d] [d, n], or batches of them […, m, d] […, d, n], all with the same leading
/// dimensions (of strides 0 where what is multiplied is broadcast). Any strides; what is not readable is copied.
/// float32 on a CPU rounds where RoundedProducts says so.
/// @param out  […, m, n], of the operands' dtype and device; its entries are apart, and none of theirs
/// @throws std::logic_error where shapes or dtypes do not fit
void multiply(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b, bool add);

}  // namespace hesspect
