// Products of one micro-batch, by the tangent program or by autograd.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "hesspect/core/curvature.h"
#include "hesspect/core/matrix_precision.h"

namespace hesspect {

/// How products are taken, and of which matrix.
struct ProductChoice {
  bool tangent = true;                        // by the tangent program; else by autograd
  bool segments = false;                      // where nothing is kept: of the tangent program
  Curvature curvature = Curvature::kHessian;  // another is of the tangent program
  FisherUnit fisher_unit = FisherUnit::kTerm;
  /// Of matrix products in keep() and add(); gradients are in full precision.
  MatrixPrecision precision = MatrixPrecision::kFp32;
  bool cuda_graphs = true;  // where they are faster: of the tangent program, kept, on a GPU
  /// Whether products leave out the program's own second derivatives.
  bool gauss_newton() const { return curvature != Curvature::kHessian; }
};

class BatchProducts {
 public:
  virtual ~BatchProducts() = default;
  /// Makes what does not depend on the vectors: it stays until drop().
  virtual void keep() = 0;
  virtual void drop() = 0;
  virtual bool is_kept() const = 0;
  /// sums[k] += ∇(∇ℓ_sum · v[k]). Where it throws, some of the sums may have been added to.
  /// @param v, sums  [K, n], any stride between vectors
  virtual void add(const at::Tensor& v, const at::Tensor& sums) = 0;
  /// The same where v is zero outside some of the parameter tensors, and only their sums are wanted: what lies outside
  /// is neither read nor written.
  /// @param chosen  [tensors], one at least
  virtual void add_part(const at::Tensor& v, const at::Tensor& sums, const std::vector<bool>& chosen) = 0;
  /// sum [n] += ∇ℓ_sum. @return ℓ_sum
  virtual double add_gradient(const at::Tensor& sum) = 0;
  /// add_gradient, then keep. Where it throws, some of the sum may have been added to.
  virtual double keep_with_gradient(const at::Tensor& sum) {
    const double loss = add_gradient(sum);
    keep();
    return loss;
  }
  /// Whether add() replays recorded launches; they read and write the v and sums that they were recorded with.
  virtual bool replays() const { return false; }
  /// Lets go of what was recorded, and with it of those v and sums. @param for_good  nothing is recorded from here on
  virtual void drop_recorded(bool for_good) { (void)for_good; }
};

}  // namespace hesspect
