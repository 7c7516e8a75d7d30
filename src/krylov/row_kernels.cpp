#include "row_kernels.h"

#include <bit>

// One binary serves all x86-64 machines: GCC compiles each function several times and the loader picks. Sanitizers are
// not ready yet when it does.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define HESSPECT_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define HESSPECT_CLONES
#endif
#if defined(__GNUC__)
#define HESSPECT_INLINE __attribute__((always_inline)) inline
#else
#define HESSPECT_INLINE inline
#endif

namespace hesspect::kernels {
namespace {

HESSPECT_INLINE double widened(double x) { return x; }
HESSPECT_INLINE double widened(float x) { return static_cast<double>(x); }
HESSPECT_INLINE double widened(Bfloat16Bits x) {
  return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(x) << 16));
}

// Four rows at a time: w is read and widened once for the four, and their sums are independent chains.
template <class Row, class Real>
HESSPECT_INLINE void dots_body(const Row* const* rows, std::int64_t count, const Real* w, std::int64_t length,
                               double* out) {
  std::int64_t j = 0;
  for (; j + 4 <= count; j += 4) {
    const Row *r0 = rows[j], *r1 = rows[j + 1], *r2 = rows[j + 2], *r3 = rows[j + 3];
    double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
    for (std::int64_t i = 0; i < length; ++i) {
      const double x = widened(w[i]);
      s0 += widened(r0[i]) * x;
      s1 += widened(r1[i]) * x;
      s2 += widened(r2[i]) * x;
      s3 += widened(r3[i]) * x;
    }
    out[j] += s0;
    out[j + 1] += s1;
    out[j + 2] += s2;
    out[j + 3] += s3;
  }
  for (; j < count; ++j) {
    const Row* r = rows[j];
    double s = 0;
#pragma omp simd reduction(+ : s)
    for (std::int64_t i = 0; i < length; ++i) s += widened(r[i]) * widened(w[i]);
    out[j] += s;
  }
}

template <class Row>
HESSPECT_INLINE void subtract_body(const Row* const* rows, std::int64_t count, const double* c, std::int64_t length,
                                   double* acc) {
  std::int64_t j = 0;
  for (; j + 4 <= count; j += 4) {
    const Row *r0 = rows[j], *r1 = rows[j + 1], *r2 = rows[j + 2], *r3 = rows[j + 3];
    const double c0 = c[j], c1 = c[j + 1], c2 = c[j + 2], c3 = c[j + 3];
#pragma omp simd
    for (std::int64_t i = 0; i < length; ++i)
      acc[i] -= (c0 * widened(r0[i]) + c1 * widened(r1[i])) + (c2 * widened(r2[i]) + c3 * widened(r3[i]));
  }
  for (; j < count; ++j) {
    const Row* r = rows[j];
    const double factor = c[j];
#pragma omp simd
    for (std::int64_t i = 0; i < length; ++i) acc[i] -= factor * widened(r[i]);
  }
}

template <class Real>
HESSPECT_INLINE double norm_sq_body(const Real* w, std::int64_t length) {
  double s = 0;
#pragma omp simd reduction(+ : s)
  for (std::int64_t i = 0; i < length; ++i) s += static_cast<double>(w[i]) * static_cast<double>(w[i]);
  return s;
}

}  // namespace

// A template can't be cloned: each pair of types that row_kernels.h declares is a function of its own.
#define HESSPECT_DOTS(Row, Real)                                                                            \
  HESSPECT_CLONES void dots(const Row* const* rows, std::int64_t count, const Real* w, std::int64_t length, \
                            double* out) {                                                                  \
    dots_body(rows, count, w, length, out);                                                                 \
  }
HESSPECT_DOTS(float, float)
HESSPECT_DOTS(double, double)
HESSPECT_DOTS(float, double)
HESSPECT_DOTS(Bfloat16Bits, float)
HESSPECT_DOTS(Bfloat16Bits, double)

#define HESSPECT_SUBTRACT(Row)                                                                                    \
  HESSPECT_CLONES void subtract(const Row* const* rows, std::int64_t count, const double* c, std::int64_t length, \
                                double* acc) {                                                                    \
    subtract_body(rows, count, c, length, acc);                                                                   \
  }
HESSPECT_SUBTRACT(float)
HESSPECT_SUBTRACT(double)
HESSPECT_SUBTRACT(Bfloat16Bits)

HESSPECT_CLONES double norm_sq(const float* w, std::int64_t length) { return norm_sq_body(w, length); }
HESSPECT_CLONES double norm_sq(const double* w, std::int64_t length) { return norm_sq_body(w, length); }

}  // namespace hesspect::kernels
