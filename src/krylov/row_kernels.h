// The inner loops of vector_math.h: short tiles of a few rows, in the best instruction set the CPU has.
#pragma once

#include <cstdint>

namespace hesspect::kernels {

/// A bfloat16's bits: the upper half of a float32's.
using Bfloat16Bits = std::uint16_t;

/// out[j] += Σ_i rows[j][i] w[i], for j < count.
void dots(const float* const* rows, std::int64_t count, const float* w, std::int64_t length, double* out);
void dots(const double* const* rows, std::int64_t count, const double* w, std::int64_t length, double* out);
void dots(const float* const* rows, std::int64_t count, const double* w, std::int64_t length, double* out);
void dots(const Bfloat16Bits* const* rows, std::int64_t count, const float* w, std::int64_t length, double* out);
void dots(const Bfloat16Bits* const* rows, std::int64_t count, const double* w, std::int64_t length, double* out);

/// acc[i] −= Σ_j c[j] rows[j][i].
void subtract(const float* const* rows, std::int64_t count, const double* c, std::int64_t length, double* acc);
void subtract(const double* const* rows, std::int64_t count, const double* c, std::int64_t length, double* acc);
void subtract(const Bfloat16Bits* const* rows, std::int64_t count, const double* c, std::int64_t length, double* acc);

/// Σ_i w[i]².
double norm_sq(const float* w, std::int64_t length);
double norm_sq(const double* w, std::int64_t length);

}  // namespace hesspect::kernels
