// The losses of classes, row by row: cross entropy of class indices and of probabilities, and nll.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "hesspect/curvature/loss.h"
#include "hesspect/tangent/objective.h"
#include "outer_rows.h"

namespace hesspect {

/// As row_loss, for the losses that takes_classes names.
std::unique_ptr<RowObjective> class_rows(const LossOptions& options, const at::Tensor& output_like,
                                         const at::Tensor& target, const at::Tensor& weight, OutputMatrix matrix);

}  // namespace hesspect
