#include "hesspect/tangent/strided.h"

#include <ATen/ATen.h>
#include <ATen/TensorUtils.h>

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "rounded_products.h"

#ifdef HESSPECT_HAVE_GEMM_BATCH
// Of MKL, which the wheel's libtorch_cpu holds and exports; integers have 32 bits.
extern "C" {
void sgemm_(const char*, const char*, const int*, const int*, const int*, const float*, const float*, const int*,
            const float*, const int*, const float*, float*, const int*);
void dgemm_(const char*, const char*, const int*, const int*, const int*, const double*, const double*, const int*,
            const double*, const int*, const double*, double*, const int*);
void cblas_sgemm_batch(int, const int*, const int*, const int*, const int*, const int*, const float*, const float**,
                       const int*, const float**, const int*, const float*, float**, const int*, int, const int*);
void cblas_dgemm_batch(int, const int*, const int*, const int*, const int*, const int*, const double*, const double**,
                       const int*, const double**, const int*, const double*, double**, const int*, int, const int*);
}
#endif

namespace hesspect {
namespace {

using Sizes = c10::SmallVector<std::int64_t, 6>;

/// The matrices of […, rows, columns]: whether a row's entries lie beside each other, or a column's, and what lies from
/// one row (column) to the next.
struct Layout {
  bool by_rows = true;
  std::int64_t distance = 1;
};

/// @return whether there is one that BLAS reads
bool layout_of(const at::Tensor& t, Layout& layout) {
  const std::int64_t d = t.dim(), rows = t.size(d - 2), columns = t.size(d - 1);
  const std::int64_t of_row = t.stride(d - 2), of_column = t.stride(d - 1);
  if ((of_column == 1 || columns == 1) && (of_row >= std::max<std::int64_t>(columns, 1) || rows == 1)) {
    layout = {true, rows == 1 ? std::max<std::int64_t>(columns, 1) : of_row};
    return true;
  }
  if ((of_row == 1 || rows == 1) && (of_column >= std::max<std::int64_t>(rows, 1) || columns == 1)) {
    layout = {false, columns == 1 ? std::max<std::int64_t>(rows, 1) : of_column};
    return true;
  }
  return false;
}

void require(bool fits) {
  if (!fits) throw std::logic_error("multiply: shapes, dtypes or devices do not fit");
}

/// out's leading dimensions and dtype, and rows, depth and columns of one product, are those of a and b.
void check_product(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) {
  const std::int64_t d = out.dim();
  require(d >= 2 && a.dim() == d && b.dim() == d);
  require(a.size(d - 2) == out.size(d - 2) && b.size(d - 1) == out.size(d - 1) && a.size(d - 1) == b.size(d - 2));
  const std::size_t leading = static_cast<std::size_t>(d) - 2;
  const at::IntArrayRef sizes = out.sizes().slice(0, leading);
  require(a.sizes().slice(0, leading) == sizes && b.sizes().slice(0, leading) == sizes);
  require(a.scalar_type() == out.scalar_type() && b.scalar_type() == out.scalar_type());
  require(a.device() == out.device() && b.device() == out.device());
}

/// [B, m, n], without a copy where `t` allows it.
at::Tensor flat(const at::Tensor& t) { return t.dim() == 3 ? t : t.flatten(0, t.dim() - 3); }

/// By LibTorch: on GPUs, for other dtypes, and where float32 is rounded.
void multiply_by_torch(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b, bool add) {
  at::Tensor target = out;
  if (out.dim() == 2) {
    if (add)
      target.addmm_(a, b);
    else
      at::mm_out(target, a, b);
    return;
  }
  target = flat(out);
  if (target.is_alias_of(out)) {
    if (add)
      target.baddbmm_(flat(a), flat(b));
    else
      at::bmm_out(target, flat(a), flat(b));
    return;
  }
  const at::Tensor product = at::bmm(flat(a), flat(b)).view(out.sizes());
  if (add)
    out.add_(product);
  else
    out.copy_(product);
}

#ifdef HESSPECT_HAVE_GEMM_BATCH

void gemm(const char* a_op, const char* b_op, const int* m, const int* n, const int* k, const float* a, const int* lda,
          const float* b, const int* ldb, const float* beta, float* c, const int* ldc) {
  const float one = 1;
  sgemm_(a_op, b_op, m, n, k, &one, a, lda, b, ldb, beta, c, ldc);
}
void gemm(const char* a_op, const char* b_op, const int* m, const int* n, const int* k, const double* a, const int* lda,
          const double* b, const int* ldb, const double* beta, double* c, const int* ldc) {
  const double one = 1;
  dgemm_(a_op, b_op, m, n, k, &one, a, lda, b, ldb, beta, c, ldc);
}

constexpr int kByColumns = 102, kAsItIs = 111, kTransposed = 112;  // CBLAS's

void gemm_batch(const int* a_op, const int* b_op, const int* m, const int* n, const int* k, const float** a,
                const int* lda, const float** b, const int* ldb, const float* beta, float** c, const int* ldc,
                int count) {
  const float one = 1;
  cblas_sgemm_batch(kByColumns, a_op, b_op, m, n, k, &one, a, lda, b, ldb, beta, c, ldc, 1, &count);
}
void gemm_batch(const int* a_op, const int* b_op, const int* m, const int* n, const int* k, const double** a,
                const int* lda, const double** b, const int* ldb, const double* beta, double** c, const int* ldc,
                int count) {
  const double one = 1;
  cblas_dgemm_batch(kByColumns, a_op, b_op, m, n, k, &one, a, lda, b, ldb, beta, c, ldc, 1, &count);
}

/// Where each matrix of a batch begins, the last leading dimension running fastest.
template <class T, class Pointer>
void starts_of(const at::Tensor& t, c10::SmallVectorImpl<Pointer>& starts) {
  const std::size_t leading = static_cast<std::size_t>(t.dim()) - 2;
  T* const first = t.data_ptr<T>();
  starts.assign(1, first);
  for (std::size_t d = 0; d < leading; ++d) {
    const std::int64_t size = t.sizes()[d], stride = t.strides()[d];
    const std::size_t before = starts.size();
    starts.resize(before * static_cast<std::size_t>(size));
    for (std::size_t i = before; i-- > 0;) {
      const Pointer at = starts[i];
      for (std::int64_t j = size; j-- > 0;)
        starts[i * static_cast<std::size_t>(size) + static_cast<std::size_t>(j)] = at + j * stride;
    }
  }
}

/// BLAS counts matrices by columns: a matrix by rows is one by columns transposed, and (a b)ᵀ = bᵀ aᵀ.
template <class T>
void multiply_by_blas(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b, bool add) {
  Layout of_out, of_a, of_b;
  layout_of(out, of_out);
  layout_of(a, of_a);
  layout_of(b, of_b);
  const at::Tensor &first = of_out.by_rows ? b : a, &second = of_out.by_rows ? a : b;
  const Layout &of_first = of_out.by_rows ? of_b : of_a, &of_second = of_out.by_rows ? of_a : of_b;
  const bool first_as_it_is = of_first.by_rows == of_out.by_rows, second_as_it_is = of_second.by_rows == of_out.by_rows;
  const std::int64_t d = out.dim();
  const int m = static_cast<int>(out.size(of_out.by_rows ? d - 1 : d - 2));
  const int n = static_cast<int>(out.size(of_out.by_rows ? d - 2 : d - 1));
  const int k = static_cast<int>(a.size(d - 1));
  const int first_ld = static_cast<int>(of_first.distance), second_ld = static_cast<int>(of_second.distance);
  const int out_ld = static_cast<int>(of_out.distance);
  const T beta = add ? 1 : 0;
  if (out.dim() == 2 || c10::multiply_integers(out.sizes().slice(0, static_cast<std::size_t>(d) - 2)) == 1) {
    gemm(first_as_it_is ? "N" : "T", second_as_it_is ? "N" : "T", &m, &n, &k, first.data_ptr<T>(), &first_ld,
         second.data_ptr<T>(), &second_ld, &beta, out.data_ptr<T>(), &out_ld);
    return;
  }
  c10::SmallVector<const T*, 128> of_firsts, of_seconds;
  c10::SmallVector<T*, 128> of_outs;
  starts_of<T>(first, of_firsts);
  starts_of<T>(second, of_seconds);
  starts_of<T>(out, of_outs);
  const int first_op = first_as_it_is ? kAsItIs : kTransposed, second_op = second_as_it_is ? kAsItIs : kTransposed;
  gemm_batch(&first_op, &second_op, &m, &n, &k, of_firsts.data(), &first_ld, of_seconds.data(), &second_ld, &beta,
             of_outs.data(), &out_ld, static_cast<int>(of_outs.size()));
}

/// Whether 32-bit integers hold what BLAS is told.
bool is_small(const at::Tensor& t) {
  constexpr std::int64_t kMost = std::numeric_limits<int>::max();
  return std::ranges::all_of(t.sizes(), [](std::int64_t s) { return s <= kMost; }) &&
         std::ranges::all_of(t.strides(), [](std::int64_t s) { return s <= kMost; });
}

bool takes_blas(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) {
  const bool is_known = out.scalar_type() == at::kDouble ||
                        (out.scalar_type() == at::kFloat && RoundedProducts::now() == Rounding::kNone);
  return out.is_cpu() && is_known && is_small(out) && is_small(a) && is_small(b);
}

#endif

}  // namespace

at::Tensor strided(const at::Tensor& t, at::IntArrayRef sizes, at::IntArrayRef strides, std::int64_t offset) {
  auto view =
      c10::make_intrusive<c10::TensorImpl>(c10::TensorImpl::VIEW, c10::Storage(t.storage()), t.key_set(), t.dtype());
  view->set_storage_offset(offset);
  view->set_sizes_and_strides(sizes, strides);
  return at::Tensor(std::move(view));
}

at::Tensor part(const at::Tensor& t, std::int64_t k) {
  return strided(t, t.sizes().slice(1), t.strides().slice(1), t.storage_offset() + k * t.stride(0));
}

at::Tensor stacked_alone(const at::Tensor& t) {
  Sizes sizes{1}, strides{t.dim() == 0 ? 1 : t.size(0) * t.stride(0)};
  sizes.append(t.sizes().begin(), t.sizes().end());
  strides.append(t.strides().begin(), t.strides().end());
  return strided(t, sizes, strides, t.storage_offset());
}

at::Tensor narrowed(const at::Tensor& t, std::int64_t dim, std::int64_t begin, std::int64_t length) {
  Sizes sizes(t.sizes().begin(), t.sizes().end());
  sizes[static_cast<std::size_t>(dim)] = length;
  return strided(t, sizes, t.strides(), t.storage_offset() + begin * t.stride(dim));
}

at::Tensor turned(const at::Tensor& t) {
  Sizes sizes(t.sizes().begin(), t.sizes().end()), strides(t.strides().begin(), t.strides().end());
  std::swap(sizes[sizes.size() - 1], sizes[sizes.size() - 2]);
  std::swap(strides[strides.size() - 1], strides[strides.size() - 2]);
  return strided(t, sizes, strides, t.storage_offset());
}

at::Tensor permuted(const at::Tensor& t, at::IntArrayRef order) {
  Sizes sizes, strides;
  for (const std::int64_t d : order) {
    sizes.push_back(t.size(d));
    strides.push_back(t.stride(d));
  }
  return strided(t, sizes, strides, t.storage_offset());
}

at::Tensor reshaped(const at::Tensor& t, at::IntArrayRef sizes) {
  if (t.sizes() == sizes) return t;
  const auto strides = at::detail::computeStride(t.sizes(), t.strides(), at::DimVector(sizes));
  return strides ? strided(t, sizes, *strides, t.storage_offset()) : t.reshape(sizes);
}

bool is_readable(const at::Tensor& t) {
  Layout layout;
  return layout_of(t, layout);
}

at::Tensor readable(const at::Tensor& t) { return is_readable(t) ? t : t.contiguous(); }

void multiply(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b, bool add) {
  check_product(out, a, b);
  if (out.numel() == 0) return;
#ifdef HESSPECT_HAVE_GEMM_BATCH
  if (a.size(-1) > 0 && takes_blas(out, a, b)) {
    if (!is_readable(out)) {
      const at::Tensor product = at::empty(out.sizes(), out.options());
      multiply(product, a, b, false);
      if (add)
        out.add_(product);
      else
        out.copy_(product);
      return;
    }
    const at::Tensor left = readable(a), right = readable(b);
    return out.scalar_type() == at::kFloat ? multiply_by_blas<float>(out, left, right, add)
                                           : multiply_by_blas<double>(out, left, right, add);
  }
#endif
  multiply_by_torch(out, a, b, add);
}

}  // namespace hesspect
