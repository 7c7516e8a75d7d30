// Work on many vectors a few at a time, for the trace estimators that choose their own vectors.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "hesspect/krylov/linear_operator.h"

namespace hesspect {

/// Vectors whose products are taken at once, and that are held beside those that are kept.
inline constexpr std::int64_t kTogether = 4;

/// kTogether vectors of undefined content, [chunk] each. Not collective: run it inside `agree`.
std::vector<at::Tensor> vector_block(const LinearOperator& op);

/// use(first, size) for 0 … count in blocks of kTogether at most.
void for_blocks(std::int64_t count, const std::function<void(std::int64_t first, std::int64_t size)>& use);

/// The coefficients of a result of `dots_block` of so many vectors, without the vectors' own squared norms.
std::vector<double> without_norms(std::span<const double> sums, std::size_t vectors);

/// @throws NumericalError for a sum over a product that is not finite
void require_finite(double sum, std::int64_t products);

}  // namespace hesspect
