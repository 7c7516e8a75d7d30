// Lanczos from a block of start vectors: eigenvalues of multiplicity up to the block's size, and clusters, in one run.
//
//   A Q = Q T + Q₊ Bᵀ,   Q [n, m] orthonormal,   T [m, m] symmetric, banded in exact arithmetic,   Q₊ the next block
//
// Every new vector is made orthogonal to the whole basis (classical Gram-Schmidt, twice or more). Vectors of a block
// that depend on what is there already are dropped, and the block goes on smaller; at none the space is invariant. One
// apply_block a step. Rows are of the vectors' own dtype and device. All scalars are double and equal on all ranks.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "hesspect/krylov/basis.h"
#include "hesspect/krylov/lanczos.h"
#include "hesspect/krylov/linear_operator.h"

namespace hesspect {

class BlockLanczos {
 public:
  /// @param starts  b vectors, [chunk] each, padding zero; linearly dependent ones are dropped. Collective.
  /// @throws NumericalError where none is left
  BlockLanczos(LinearOperator& op, std::span<const at::Tensor> starts);

  /// Takes block steps until `products` more have been taken, or the space closes. Collective.
  /// @throws NumericalError on all ranks if a product is not finite; MemoryError (agreed) for the basis
  std::int64_t extend(LinearOperator& op, std::int64_t products, const std::function<void()>& on_step = {});
  /// After the space has closed: a further start vector. Collective. @return false where nothing is left of it
  bool restart(LinearOperator& op, const at::Tensor& start);
  /// Thick restart: keeps these Ritz pairs (indices into ritz_pairs()) and the next block. Collective.
  void thick_restart(LinearOperator& op, std::span<const std::size_t> keep);

  std::int64_t products() const { return products_; }
  std::int64_t rows() const;       // of T
  std::int64_t next_rows() const;  // of the next block
  std::int64_t thick_restarts() const { return thick_restarts_; }
  bool closed() const;                     // the space is invariant, or all of Rⁿ
  double scale() const { return scale_; }  // max ‖A q‖
  double rounding() const { return rounding_unit_ * scale_; }
  /// Ascending; residual = ‖Bᵀ s_last‖. Local.
  std::vector<RitzPair> ritz_pairs() const;
  /// Eigenvectors of T, row i of pair i: [rows · rows]. Local.
  std::vector<double> ritz_coefficients() const;
  at::Tensor ritz_vector(std::span<const double> s) const;

 private:
  std::int64_t products_ = 0, thick_restarts_ = 0;
  double scale_ = 0, rounding_unit_ = 0;
  // The rest as its implementation needs it.
};

}  // namespace hesspect
