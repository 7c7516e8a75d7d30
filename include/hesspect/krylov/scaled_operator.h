// S A S with a diagonal S: what a preconditioner D leaves of A, for S = D^-1/2, is similar to D^-1 A and symmetric.
#pragma once

#include <span>

#include "hesspect/krylov/linear_operator.h"

namespace hesspect {

class ScaledOperator final : public LinearOperator {
 public:
  /// Borrows the operator. @param scale_local  this rank's shard of S [chunk], padding any finite number; shared
  ScaledOperator(LinearOperator& op, at::Tensor scale_local) : op_(op), scale_(std::move(scale_local)) {}

  Communicator& comm() const override { return op_.comm(); }
  const Shard& shard() const override { return op_.shard(); }
  at::TensorOptions options() const override { return op_.options(); }
  /// y := S A S x, with room for one vector. Collective.
  void apply(const at::Tensor& x_local, at::Tensor& y_local) override;

 private:
  LinearOperator& op_;
  at::Tensor scale_, scaled_;  // [chunk]
};

}  // namespace hesspect
