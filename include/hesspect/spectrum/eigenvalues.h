// Extreme eigenpairs.
//
//   Lanczos run(op, probe_vector(op, ProbeDistribution::kGaussian, seed, 0));
//   EigenPairs pairs = eigenvalues(op, run, {.top = 5});
//   measure_residuals(op, eigenvectors(run, pairs), pairs, 1);  // pairs.top[0].true_residual
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "hesspect/krylov/lanczos.h"
#include "hesspect/spectrum/estimates.h"

namespace hesspect {

struct EigenOptions {
  std::int64_t top = 10;
  std::int64_t bottom = 0;
  /// Instead of top and bottom: so many of largest |λ|.
  std::int64_t magnitude = 0;
  std::int64_t max_steps = 300;  // Lanczos steps of the run in all, those it already had included
  /// Rows that the basis may have, the next vector included: where the run would need more, it restarts thick. 0: as
  /// many as there are steps. Without re-orthogonalisation there is no basis.
  std::int64_t max_basis = 0;
  /// A Ritz value is converged where its residual bound, the products' rounding (Lanczos::rounding) included, is
  /// ≤ rtol · max |θ|, or ≤ twice that rounding where rtol asks for less (float32: 2.4e-6 of the largest product). The
  /// eigenvalue is then within that bound, and within bound²/gap where it is well apart from its neighbours: 1e-6
  /// usually means 1e-11.
  double rtol = 1e-6;
  /// What the precision of products adds to a residual, over max |θ|: part of every bound, and of what must meet rtol.
  double product_error = 0;
  std::uint64_t seed = 0;  // of the fresh vectors after a breakdown
  std::int64_t block = 1;  // of block_eigenvalues: start vectors
};

/// Eigenvalues as one look at a run found them, and of which pairs of which T they are: whatever the run has done
/// since, `eigenvectors` gives the vectors of these values. The same on all ranks: rank 0's, for each has solved for
/// T's own.
struct EigenPairs : EigenResult {
  Tridiagonal t;                     // at the look
  std::vector<std::size_t> indices;  // into t.ritz_pairs(), in the lists' order: top, bottom, magnitude
};

/// The wanted eigenvalues of `op`, taking `run` further until they are converged, or max_steps. Collective over
/// op.comm().
///
/// `run` may be new or a probe's: the products it has taken are used. With full re-orthogonalisation no eigenvalue
/// appears twice but a multiple one; without it ghosts are recognised and left out (ghosts.h), each value stands once,
/// and the run ends where its space closes. Each eigenvalue is reported once: the top ones come first, and where top +
/// bottom > n the bottom list holds the remaining n − top, so that both lists together are the whole spectrum. Ritz
/// values that are not converged are listed with their bounds and converged = false. Where there are fewer than top +
/// bottom yet, both lists are short in proportion.
///
/// Multiplicity: a single start vector sees one copy of a multiple eigenvalue until rounding brings in the next. Where
/// the Krylov space closes, the run restarts with a fresh vector, and ends only when such a restart adds nothing to the
/// lists; then multiplicities are right. In float32 a space mostly closes with a β of rounding's size (below
/// 1e3 ε · scale) that is no breakdown: the run goes on in a direction that rounding chose, and ends only when a
/// further round of as many steps as the space had adds nothing (at most twice the steps where nothing is to be found;
/// eight steps do where all that is left lies far within the wanted values). Where the space does not close, or the
/// basis has no room for as many such spaces as there are copies and restarts thick between, further copies may be
/// missing: block_eigenvalues finds them.
///
/// Where the basis reaches max_basis rows, a thick restart keeps the wanted Ritz vectors and half as many more, next to
/// them, as there are others (Wu & Simon 2000). A resumed run takes its recorded thick restarts again, whatever
/// max_basis is now.
/// @param on_step  called on every rank after each product
/// @throws UsageError for negative counts, magnitude beside top or bottom, a max_basis too small for the wanted values
/// (it says
///         which would do), or smaller than the steps where the basis can't restart thick; as Lanczos::extend
/// Source: Golub & Van Loan, Matrix Computations 4e, §10.1; Parlett, The Symmetric Eigenvalue Problem, §13.2 (bounds)
EigenPairs eigenvalues(LinearOperator& op, Lanczos& run, const EigenOptions& options, const StepCallback& on_step = {});

/// The lists from a run as it is, no product taken. Collective.
EigenPairs eigenvalues_so_far(const Lanczos& run, const EigenOptions& options);

/// Eigenvectors of what `result` lists: this rank's shard [chunk] of each, unit norm, top then bottom, or magnitude, in
/// the lists' order; made one at a time. Not collective, but all ranks must ask for the same.
using VectorSource = std::function<at::Tensor(std::size_t i)>;
/// The vectors of a look at `run`, which may have taken further steps since, but must not restart thick while the
/// source is used, and must outlive it. Collective: rank 0's eigenvectors of T count.
/// @throws UsageError without re-orthogonalisation; Error(kInternal) where the run has restarted thick since
VectorSource eigenvectors(const Lanczos& run, const EigenPairs& pairs);

/// The same of a run without re-orthogonalisation, whose vectors are gone: the recurrence is gone through once more
/// from its start (two-pass Lanczos), with a product for each step but the last, and the wanted vectors, which are all
/// that is held, are summed up on the way. A converged eigenvalue's vector comes out well, for all that the rows have
/// lost their orthogonality; measure_residuals tells how well. Collective.
/// @param start_local, options  those of the run
/// @param on_step  called on every rank after each product
/// @throws as Lanczos::extend
/// Source: Cullum & Willoughby, Lanczos Algorithms for Large Symmetric Eigenvalue Computations, 1985, §4.6
VectorSource eigenvectors_by_second_pass(LinearOperator& op, const at::Tensor& start_local,
                                         const LanczosOptions& options, const EigenPairs& pairs,
                                         const std::function<void()>& on_step = {});

/// ‖A y − θ y‖ of every listed pair, put into `result` (true_residual), with a product for each, in lock-step blocks of
/// at most `together`. Collective.
/// @param on_step  called on every rank after each block
/// @throws NumericalError on all ranks if a product is not finite
void measure_residuals(LinearOperator& op, const VectorSource& vectors, EigenResult& result, std::int64_t together,
                       const std::function<void()>& on_step = {});

/// The same from a block of options.block random start vectors (BlockLanczos, Gaussian probes of options.seed):
/// multiplicities up to the block's size and clusters are found whether the space closes or not. Takes its own
/// products.
/// @return the result; `vectors`, where given, can be asked for eigenvectors afterwards and holds the basis
EigenResult block_eigenvalues(LinearOperator& op, const EigenOptions& options, VectorSource* vectors = nullptr,
                              const std::function<void()>& on_step = {});

struct PowerOptions {
  std::int64_t count = 10;           // eigenvalues of largest magnitude
  double rtol = 1e-3;                // stops where λ moved by less than rtol · |λ| in an iteration
  std::int64_t max_products = 1000;  // in all
  std::uint64_t seed = 0;
};

/// Power iteration with deflation, an eigenvalue after the other: the reference that PyHessian uses, for comparison. It
/// gives largest magnitudes; residual is the true one, from the last product. Not converged where the products are
/// spent. Collective.
EigenResult power_iteration(LinearOperator& op, const PowerOptions& options, VectorSource* vectors = nullptr,
                            const std::function<void()>& on_step = {});

}  // namespace hesspect
