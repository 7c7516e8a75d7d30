// The mean loss beside the trained parameters: what steps of one's choice do to it.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "hesspect/curvature/hessian.h"
#include "hesspect/curvature/parts.h"

namespace hesspect {

/// The loss that an operator is the curvature of, on the same rows, at θ + s for steps s. Parameters are θ again when a
/// call returns, bit for bit, also where it throws: the operator's products stay what they were.
class LossSurface {
 public:
  /// Takes room for two whole vectors. Collective; borrows the operator, and the program that this borrows.
  /// @throws MemoryError (agreed)
  explicit LossSurface(HessianOperator& op);
  ~LossSurface();

  /// The mean loss at θ + s, added up in double; not finite where the model overflows there. A forward pass over all
  /// rows. Collective.
  /// @param step_local  this rank's shard of s [chunk], padding zero
  /// @throws InputError (agreed) where an op of the program fails there
  double loss(const at::Tensor& step_local);
  /// The same for a step of one part of the parameters. @param step_local  [chunk] of the part's own cut (PartOperator)
  double loss(const Part& part, const at::Tensor& step_local);
  /// The norm of the part's parameters. Local, the same on all ranks.
  double parameter_norm(const Part& part) const;
  /// The gradient of the mean loss at θ + s. Collective.
  /// @param gradient_local  [chunk], overwritten; not the same storage as step_local
  /// @return the mean loss there
  double gradient(const at::Tensor& step_local, at::Tensor& gradient_local);
  /// Passes so far, forward ones and gradients.
  std::int64_t losses() const;
  std::int64_t gradients() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hesspect
