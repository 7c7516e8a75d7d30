// Inner products and updates of long vectors against a block of rows, in memory-bound passes.
//
// Every sum is accumulated in double, whatever the vectors' dtype: LibTorch's float32 dot was off by 1.1 % at 1e8
// elements. On the CPU the sums are taken over fixed column blocks and added in block order: the result does not depend
// on the number of threads. Nothing here communicates: callers reduce over ranks.
//
// `Rows`: matrices [b_k, m], contiguous, stacked: row 0 is the first row of the first block. m = entries of w. Each of
// w's dtype, or narrower (float32, bfloat16), read as they are; on w's device, or in host memory where w is on a GPU.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

namespace hesspect {

using Rows = std::span<const at::Tensor>;

/// Σ a_i b_i. @param a, b  [m], same dtype (float32 or float64) and device
double dot_product(const at::Tensor& a, const at::Tensor& b);
/// Σ a_i².
double norm_sq(const at::Tensor& a);

/// [row_0 · w, …, row_{r−1} · w, w · w]: one pass over the rows.
/// @return [r + 1]
std::vector<double> dots(Rows rows, const at::Tensor& w);

/// The coefficients of a result of `dots` of one vector, without w · w.
inline std::span<const double> coefficients(std::span<const double> sums) { return sums.first(sums.size() - 1); }
/// What a result of `dots_block` of so many vectors holds of vector k, as `dots` alone would give it.
inline std::span<const double> dots_of(std::span<const double> sums, std::size_t vectors, std::size_t k) {
  return sums.subspan(k * (sums.size() / vectors), sums.size() / vectors);
}

/// w −= Σ_j c_j row_j, rounded once. One pass over the rows.
/// @param c  [r]
/// @return w · w after the update
double subtract(Rows rows, std::span<const double> c, at::Tensor& w);

/// `subtract`, then `dots` of the new w, in one pass over the rows: the first update and the second projection of
/// Gram-Schmidt done twice, which would otherwise read the rows once each.
/// @return [r + 1]
std::vector<double> subtract_and_dots(Rows rows, std::span<const double> c, at::Tensor& w);

/// The same where the rows that are taken are some of those that the products are with, or others.
/// @param c  [rows of `taken`]
std::vector<double> subtract_and_dots(Rows taken, std::span<const double> c, Rows rows, at::Tensor& w);

/// The same with several vectors at once, of one length, dtype and device, distinct: bitwise what each gives alone (on
/// the CPU), in one pass over the rows for all of them.
/// @param c  [vectors · r], those of the first vector first
/// @return   [vectors · (r + 1)]; of `subtract_block` [vectors], w_k · w_k
std::vector<double> dots_block(Rows rows, std::span<const at::Tensor> w);
std::vector<double> subtract_block(Rows rows, std::span<const double> c, std::span<at::Tensor> w);
std::vector<double> subtract_and_dots_block(Rows rows, std::span<const double> c, std::span<at::Tensor> w);

/// w := Σ_j c_j row_j, rounded once. @param c  [r]
void combine_into(Rows rows, std::span<const double> c, at::Tensor& w);
/// `combine_into`, then `dots`, in one pass over the rows. @return [r + 1]
std::vector<double> combine_and_dots(Rows rows, std::span<const double> c, at::Tensor& w);

/// row_i := Σ_j s_ij row_j for i < count, in place, the sums taken in double; rows from `count` on keep what they hold.
/// Rows are all of one device, and of float32 or float64.
/// @param s  [count · r], count ≤ r
void combine_rows(Rows rows, std::span<const double> s, std::int64_t count);

/// out := factor · x, the product taken in double. `out` may be x.
void scale_into(const at::Tensor& x, double factor, at::Tensor& out);

namespace detail {
/// @throws Error(kInternal) saying `what`, unless `condition`
void require(bool condition, const char* what);
/// Rows in all, checked against every vector.
std::int64_t count_rows(Rows rows, std::span<const at::Tensor> w);
/// The same in LibTorch's own operations, chunk by chunk converted to double: any device, for CUDA and as a check.
/// Rows in host memory are streamed to the device once a call. What is held in double stays within kEntriesInDouble.
std::vector<double> portable_dots(Rows rows, std::span<const at::Tensor> w);
void portable_subtract(Rows rows, std::span<const double> c, std::span<const at::Tensor> w);
void portable_scale_into(const at::Tensor& x, double factor, at::Tensor& out);
}  // namespace detail

}  // namespace hesspect
