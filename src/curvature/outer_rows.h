// The empirical Fisher's part of a loss: its terms' outer products instead of their second derivatives.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "hesspect/core/curvature.h"
#include "hesspect/tangent/objective.h"

namespace hesspect {

/// Which matrix in the outputs stands for the loss's second derivative: its own, or one of the Fisher's.
struct OutputMatrix {
  Curvature curvature = Curvature::kHessian;
  FisherUnit fisher_unit = FisherUnit::kTerm;
};

/// The loss with z̄̇ = Σ s ⟨s, ż⟩ over units, s = g / √a of each term's derivative g and weight a. A unit is a term, or
/// a row of the data. Of one term this is g gᵀ / a: with the weight a once, as the loss has it.
/// @param weights  of the terms, [R, D] in any shape, R the loss's rows; undefined: all 1. A term of weight zero is
/// none
/// @param inner    D: of the terms in a row
/// @param rows     of the data: the output's first dimension
std::unique_ptr<RowObjective> outer_rows(std::unique_ptr<RowObjective> loss, const at::Tensor& weights,
                                         std::int64_t inner, std::int64_t rows, FisherUnit unit);

}  // namespace hesspect
