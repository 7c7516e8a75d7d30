// Products with another matrix of the same loss and rows than an operator's own: its Fisher matrix beside its Hessian.
#pragma once

#include <ATen/core/Tensor.h>

#include "hesspect/curvature/hessian.h"

namespace hesspect {

/// Takes products by the tangent program, and keeps nothing between them. The operator's own products stay what they
/// were.
class OtherMatrix final : public LinearOperator {
 public:
  /// Takes room for two whole vectors. Collective; borrows the operator.
  /// @throws UsageError (agreed) where the loss has no such matrix, or products are by autograd; MemoryError (agreed)
  OtherMatrix(HessianOperator& op, Curvature curvature);

  Communicator& comm() const override { return op_.comm(); }
  const Shard& shard() const override { return op_.shard(); }
  at::TensorOptions options() const override { return op_.options(); }
  void apply(const at::Tensor& x_local, at::Tensor& y_local) override;
  std::int64_t products() const { return products_; }

 private:
  HessianOperator& op_;
  const Curvature curvature_;
  at::Tensor whole_, sums_;  // [1, padded]
  std::int64_t products_ = 0;
};

}  // namespace hesspect
