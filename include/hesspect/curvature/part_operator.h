// The diagonal block of one part of the model, as an operator on vectors of the part's length.
#pragma once

#include <cstdint>
#include <span>

#include "hesspect/curvature/hessian.h"
#include "hesspect/curvature/parts.h"

namespace hesspect {

class PartOperator final : public LinearOperator {
 public:
  /// Borrows both. @throws UsageError for a part without entries
  PartOperator(HessianOperator& whole, const Part& part);

  Communicator& comm() const override { return whole_.comm(); }
  const Shard& shard() const override { return shard_; }
  at::TensorOptions options() const override { return whole_.options(); }
  void apply(const at::Tensor& x_local, at::Tensor& y_local) override;
  void apply_block(std::span<const at::Tensor> x_local, std::span<at::Tensor> y_local) override;

  /// Of products so far, and the wall time inside them.
  std::int64_t products() const { return products_; }
  double product_s() const { return product_s_; }

 private:
  HessianOperator& whole_;
  const Part& part_;
  Shard shard_;
  std::int64_t products_ = 0;
  double product_s_ = 0;
};

}  // namespace hesspect
