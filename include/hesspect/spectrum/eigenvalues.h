// The extreme eigenvalues from a Lanczos run.
#pragma once

#include <cstdint>

#include "hesspect/krylov/lanczos.h"
#include "hesspect/spectrum/estimates.h"

namespace hesspect {

struct EigenOptions {
  std::int64_t top = 10;
  std::int64_t bottom = 0;
  std::int64_t max_steps = 300;  // Lanczos steps of the run in all, those it already had included
  /// A Ritz value is converged where its residual bound, the products' rounding (Lanczos::rounding) included, is
  /// ≤ rtol · max |θ|, or ≤ twice that rounding where rtol asks for less (float32: 2.4e-6 of the largest product). The
  /// eigenvalue is then within that bound, and within bound²/gap where it is well apart from its neighbours: 1e-6
  /// usually means 1e-11.
  double rtol = 1e-6;
  std::uint64_t seed = 0;  // of the fresh vectors after a breakdown
};

/// The largest and smallest eigenvalues of `op`, taking `run` further until they are converged, or max_steps.
/// Collective over op.comm().
///
/// `run` may be new or a probe's: the products it has taken are used. With full re-orthogonalisation, which it must
/// have, no eigenvalue appears twice but a multiple one. Each eigenvalue is reported once: the top ones come first, and
/// where top + bottom > n the bottom list holds the remaining n − top, so that both lists together are the whole
/// spectrum. Ritz values that are not converged are listed with their bounds and converged = false. Where there are
/// fewer than top + bottom yet, both lists are short in proportion.
///
/// Multiplicity: a single start vector sees one copy of a multiple eigenvalue until rounding brings in the next. Where
/// the Krylov space closes, the run restarts with a fresh vector, and ends only when such a restart adds nothing to the
/// lists; then multiplicities are right. In float32 a space mostly closes with a β of rounding's size (below
/// 1e3 ε · scale) that is no breakdown: the run goes on in a direction that rounding chose, and ends only when a
/// further round of as many steps as the space had adds nothing (at most twice the steps where nothing is to be found;
/// eight steps do where all that is left lies far within the wanted values). Where the space does not close, further
/// copies may be missing.
/// @param on_step  called on every rank after each product
/// @throws UsageError for negative counts or a run without re-orthogonalisation; as Lanczos::extend
/// Source: Golub & Van Loan, Matrix Computations 4e, §10.1; Parlett, The Symmetric Eigenvalue Problem, §13.2 (bounds)
EigenResult eigenvalues(LinearOperator& op, Lanczos& run, const EigenOptions& options,
                        const StepCallback& on_step = {});

/// The lists from a run as it is, no product taken. Local.
EigenResult eigenvalues_so_far(const Lanczos& run, std::int64_t n, const EigenOptions& options);

}  // namespace hesspect
