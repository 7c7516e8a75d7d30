// Lanczos from a block of start vectors: eigenvalues of multiplicity up to the block's size, and clusters, in one run.
//
//   A Q = Q T + Q₊ Bᵀ,   Q [n, m] orthonormal,   T [m, m] symmetric, banded in exact arithmetic,   Q₊ the next block
//
// Every new vector is made orthogonal to the whole basis (classical Gram-Schmidt, twice or more). Vectors of a block
// that depend on what is there already are dropped, and the block goes on smaller; at none the space is invariant. One
// apply_block a step. Rows are of the vectors' own dtype and device. All scalars are double and equal on all ranks.
//
//   BlockLanczos run(op, starts);  // as many vectors as an eigenvalue may have copies
//   while (!run.closed() && run.ritz_pairs().back().residual > tolerance) run.extend(op, 8);
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "hesspect/krylov/basis.h"
#include "hesspect/krylov/linear_operator.h"
#include "hesspect/krylov/tridiagonal.h"

namespace hesspect {

class BlockLanczos {
 public:
  /// @param starts  b vectors, [chunk] each, padding zero; linearly dependent ones are dropped. Collective over
  ///                op.comm(), which must outlive the run.
  /// @throws NumericalError where none is left, or one is not finite
  BlockLanczos(LinearOperator& op, std::span<const at::Tensor> starts);

  /// Takes block steps until `products` more have been taken, or the space closes; of the last block only as many
  /// products as are wanted, the rest of it stays in the next block. Collective.
  /// @param on_step  called on every rank after each block of products
  /// @return products taken
  /// @throws NumericalError on all ranks if a product is not finite; MemoryError (agreed) for the basis
  std::int64_t extend(LinearOperator& op, std::int64_t products, const std::function<void()>& on_step = {});
  /// Takes a further start vector after the space has closed; several are taken one by one. Collective.
  /// @return false where nothing is left of it beside the basis
  bool restart(const at::Tensor& start);
  /// Thick restart: keeps these Ritz pairs (indices into ritz_pairs(), rank 0's count) and the next block. Collective.
  void thick_restart(std::span<const std::size_t> keep);

  std::int64_t products() const { return products_; }
  std::int64_t rows() const { return static_cast<std::int64_t>(columns_.size()); }  // of T
  std::int64_t next_rows() const { return basis_.rows() - rows(); }                 // of the next block
  std::int64_t thick_restarts() const { return thick_restarts_; }
  /// Diagonal blocks of T: one more after each closing of the space and restart.
  std::int64_t spaces() const { return static_cast<std::int64_t>(begin_.size()); }
  bool closed() const { return next_rows() == 0; }  // the space is invariant, or all of Rⁿ
  bool complete() const { return rows() >= n_; }
  double scale() const { return scale_; }  // max ‖A q‖
  /// What rounding alone adds to a residual: 10 ε of the vectors' dtype times scale().
  double rounding() const { return rounding_unit_ * scale_; }
  /// Ascending; residual = ‖Bᵀ s‖, block = which diagonal block of T, first = on that block's first row. Local.
  std::vector<RitzPair> ritz_pairs() const;
  /// Eigenvectors of T, those of pairs `indices`: [indices · rows]. Local.
  std::vector<double> ritz_coefficients(std::span<const std::size_t> indices) const;
  /// Q s, this rank's shard [chunk]. Local. @param s  [rows]
  at::Tensor ritz_vector(std::span<const double> s) const;
  /// Rows of Q, then those of the next block, and A on them: column j [rows + next_rows or fewer] holds A q_j. Local.
  std::vector<at::Tensor> basis_rows() const { return basis_.head(basis_.rows()); }
  const std::vector<std::vector<double>>& columns() const { return columns_; }

 private:
  struct Eigen;
  std::vector<Eigen> eigen() const;
  double entry(std::size_t i, std::size_t j) const;

  Communicator* comm_;
  std::int64_t n_;
  double tolerance_, rounding_unit_;
  Basis basis_;                               // Q, then the next block
  std::vector<at::Tensor> work_;              // [largest block], [chunk] each
  std::vector<std::vector<double>> columns_;  // [rows]: A q_j = Σ_i columns_[j][i] · row i of the basis
  std::vector<std::int64_t> begin_;           // first rows of T's diagonal blocks
  std::int64_t products_ = 0, thick_restarts_ = 0;
  double scale_ = 0;
};

}  // namespace hesspect
