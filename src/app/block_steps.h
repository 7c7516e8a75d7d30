// The largest stable steps of each diagonal block by itself, of gradient descent and as Adam sees it, checked by steps.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "hesspect/curvature/parts.h"
#include "hesspect/spectrum/loss_around.h"
#include "one_group.h"

namespace hesspect {

/// Adam's preconditioner for it; nothing is defined where there are no second moments.
struct AdamScale {
  at::Tensor inverse_root;  // [n] D^-1/2, in host memory
  LossAround around;        // in the coordinates D^1/2 θ
  double beta1 = 0;
};

/// A Lanczos run for each block's largest eigenvalue, and one for that of D^-1/2 H D^-1/2 in the block. Steps are real
/// gradients of the whole loss along the block's eigenvector, all else held fixed. Collective.
/// Gives up what the run's own eigenvectors are made of (OneGroup::leading_pair).
/// @param around  of the run's loss
/// @param check   whether steps are taken, some 20 gradients and 60 with second moments for each block
StepsByBlock steps_by_block(OneGroup& run, const std::vector<Part>& parts, const LossAround& around,
                            const AdamScale& adam, bool check);

}  // namespace hesspect
