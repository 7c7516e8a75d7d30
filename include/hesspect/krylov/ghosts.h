// Telling a Lanczos run's genuine Ritz values from ghosts where vectors were not re-orthogonalised.
#pragma once

#include <span>
#include <vector>

#include "hesspect/krylov/tridiagonal.h"

namespace hesspect {

/// The Ritz pairs of T that belong to the operator, each value once, ascending.
///
/// Cullum & Willoughby: let T̂ be T without its first row and column. A value that T has several times (to tolerance) is
/// genuine and has converged: an eigenvalue and its copies, listed once. Its residual is the smallest bound of the
/// copies, or how far they lie apart where that is less (while another copy comes up, the others' bounds are large for
/// some steps); its first component is the root of their weights' sum. A value that T has once, and T̂ too, is spurious.
/// A value that T has once and T̂ has not is genuine. True multiplicities cannot be told. Local.
///
/// T̂ has a value where it has one to T's own rounding, m · 10 ε · max |θ|; or to tolerance²/δ, with δ the distance to
/// the nearest value of T with more weight: so far off is a copy at distance δ of its eigenvalue where vectors are
/// rounded to `tolerance`, while a genuine value of weight w is off by some w max |θ|, however small w is.
/// @param alpha, beta  [m], beta's last entry the norm of the residual vector
/// @param tolerance    values so close are one: the products' rounding (Lanczos::rounding), and at least T's own
/// Source: Cullum & Willoughby, Lanczos Algorithms for Large Symmetric Eigenvalue Computations, 1985, §4.5
std::vector<RitzPair> genuine_ritz_pairs(std::span<const double> alpha, std::span<const double> beta,
                                         double tolerance = 0);

}  // namespace hesspect
