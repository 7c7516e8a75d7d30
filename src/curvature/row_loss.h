// The losses in closed form, row by row, as the tangent program ends in them. loss.h has the same by autograd.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "hesspect/curvature/loss.h"
#include "hesspect/tangent/objective.h"
#include "outer_rows.h"

namespace hesspect {

/// ℓ_sum of one micro-batch: value and derivatives are those of loss_sum. Keeps target and weight, and of class targets
/// a few numbers for each row; cross entropy makes no further array of the size of what it is given.
/// @param options      that fit_loss returned; not loss `output`
/// @param output_like  of the output's shape, dtype and device
/// @param target, weight  that check_target and check_weight returned
/// @param matrix          that is to stand for the second derivative; that itself for kGgn, too
std::unique_ptr<RowObjective> row_loss(const LossOptions& options, const at::Tensor& output_like,
                                       const at::Tensor& target, const at::Tensor& weight, OutputMatrix matrix = {});

}  // namespace hesspect
