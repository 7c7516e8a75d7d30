// What the loss and the model's predictions are on each row.
#pragma once

#include <string>

#include "hesspect/core/row_sums.h"
#include "hesspect/curvature/hessian.h"

namespace hesspect {

/// Why a loss's targets can't be classified; "" where they can: as classes, or as 0 and 1.
std::string no_classes(const LossOptions& loss);

/// Of the rows that the operator has on this process. Not collective.
/// @throws InputError: targets or outputs that don't fit, a loss that is not finite
RowSums row_quality(HessianOperator& op, const HessianOptions& options);
/// Of other rows, by the same program and loss.
RowSums row_quality(HessianOperator& op, const HessianOptions& options, DataShard shard);

}  // namespace hesspect
