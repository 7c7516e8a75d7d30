// The small symmetric eigenproblem T s = θ s of a Lanczos run, in double.
#pragma once

#include <span>
#include <vector>

namespace hesspect {

struct TridiagonalEigen {
  std::vector<double> values;   // [m], ascending
  std::vector<double> first;    // [m], s_0 of each unit eigenvector: its square is a quadrature weight
  std::vector<double> last;     // [m], s_{m-1}: |β_m s_{m-1}| bounds the residual of the Ritz pair
  std::vector<double> vectors;  // [m · m] where asked for: eigenvector i in [i·m, (i+1)·m)
};

/// @param alpha  [m], the diagonal
/// @param beta   [m − 1] or longer; entries beyond are ignored
/// Divide and conquer (LAPACK's syevd in LibTorch): components are accurate to some 1e-16 absolutely.
/// Without vectors and for m > 512 implicit QL on two rows: O(m) memory, components to some 1e-14.
TridiagonalEigen tridiagonal_eigen(std::span<const double> alpha, std::span<const double> beta, bool vectors = false);

/// The same of T after a thick restart, an arrow and then tridiagonal: diagonal θ [k] and α [m], θ_i coupled to the row
/// of α_0 by coupling_i, below it β. `first` is the component on that row, 0 where m = 0. As a dense matrix.
TridiagonalEigen arrow_eigen(std::span<const double> theta, std::span<const double> coupling,
                             std::span<const double> alpha, std::span<const double> beta, bool vectors = false);

}  // namespace hesspect
