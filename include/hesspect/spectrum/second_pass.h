// A second pass through a Lanczos recurrence whose vectors are gone, and whether it was the first one again.
#pragma once

#include <functional>

#include "hesspect/spectrum/eigenvalues.h"

namespace hesspect {

struct SecondPass {
  VectorSource vectors;
  /// The largest difference of its α and β from those of the first pass, over T's scale: 0 where products repeat bit
  /// for bit. From where the passes part, rows are others than those that T's eigenvectors belong to.
  double difference = 0;
};

/// What eigenvectors_by_second_pass does. Collective. @throws as that
SecondPass second_pass(LinearOperator& op, const at::Tensor& start_local, const LanczosOptions& options,
                       const EigenPairs& pairs, const std::function<void()>& on_step = {});

}  // namespace hesspect
