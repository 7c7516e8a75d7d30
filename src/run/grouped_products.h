// The operator, and what its products say of each group of rows: at no product more.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "hesspect/curvature/hessian.h"
#include "hesspect/spectrum/data_error.h"
#include "hesspect/spectrum/deflation.h"

namespace hesspect {

class GroupedProducts final : public LinearOperator {
 public:
  /// Borrows op. @param probes  shards of vectors that every product is multiplied with besides its own
  /// @param layers  between which sums are taken; none: over all entries
  GroupedProducts(HessianOperator& op, std::vector<at::Tensor> probes, const LayerOffsets& layers);

  Communicator& comm() const override { return op_.comm(); }
  const Shard& shard() const override { return op_.shard(); }
  at::TensorOptions options() const override { return op_.options(); }
  void apply(const at::Tensor& x, at::Tensor& y) override { apply_block(std::span(&x, 1), std::span(&y, 1)); }
  void apply_block(std::span<const at::Tensor> x, std::span<at::Tensor> y) override;

  /// [products so far]; none where the operator tells no groups apart.
  const std::vector<GroupedProduct>& products() const { return products_; }

 private:
  HessianOperator& op_;
  std::vector<at::Tensor> probes_;
  LayerOffsets segments_;
  std::vector<GroupedProduct> products_;
};

}  // namespace hesspect
