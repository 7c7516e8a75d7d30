// Lanczos on many small symmetric matrices at once, one for each row: one product is a product for all of them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

namespace hesspect {

/// The outermost eigenvalues of each row's matrix, float64 [rows].
struct RowEigenvalues {
  at::Tensor largest, largest_error;      // and bounds of their errors
  at::Tensor magnitude, magnitude_error;  // of largest |eigenvalue|, with its sign
  at::Tensor converged;                   // bool
  std::int64_t products = 0;
};

/// Runs until all rows have both eigenvalues to rtol times their largest |eigenvalue|, with full re-orthogonalisation.
/// Where a row's Krylov space closes, its eigenvalues are exact and its vector is zero from there on.
/// @param product  [rows, D] to [rows, D], in the dtype of `start`
/// @param start    [rows, D], no row of it zero
/// Source: Golub & Van Loan, Matrix Computations 4e, §10.1
RowEigenvalues row_lanczos(const std::function<at::Tensor(const at::Tensor&)>& product, const at::Tensor& start,
                           double rtol, std::int64_t most_products);

}  // namespace hesspect
