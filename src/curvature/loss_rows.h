// The loss and its count row by row; loss.h has their sums.
#pragma once

#include <ATen/core/Tensor.h>

#include "hesspect/curvature/loss.h"

namespace hesspect {

/// [rows], double; they add up to loss_sum. Takes what fit_loss, check_target and check_weight returned; not of loss
/// `output`.
at::Tensor loss_by_row(const LossOptions& options, const at::Tensor& output, const at::Tensor& target,
                       const at::Tensor& weight);
/// [rows], double; they add up to loss_count.
at::Tensor count_by_row(const LossOptions& options, const at::Tensor& target, const at::Tensor& weight);

/// Target classes that a language model's outputs predict, moved as the loss moves them; those of other losses as they
/// are.
at::Tensor moved_targets(const LossOptions& options, const at::Tensor& target);

}  // namespace hesspect
