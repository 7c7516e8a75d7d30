// Extreme eigenpairs from a Krylov space and vectors that are known to be near them, such as the eigenvectors of the
// same model a few training steps earlier.
//
//   Lanczos run(op, probe);          // of a random vector: what is new shows here
//   run.extend(op, 40);
//   VectorSource vectors;
//   EigenResult pairs = augmented_eigenvalues(op, run, earlier, {.top = 10}, 60, &vectors);
//
// Rayleigh-Ritz over [V W]: V [n, q] the run's rows, whose products are known, W [n, p] orthonormal to them, with a
// product each. W begins with what the given vectors have beside V, the outermost wanted one first, as far as it is
// near an eigenvector and its place in the lists has not converged by then, and goes on with residuals: that of the
// pair which is furthest from converged (Davidson's method without a preconditioner; of W empty that is the Lanczos
// process itself). With
//   A V = V T + β v₊ e_qᵀ   and   F = (I − [V W][V W]ᵀ) [β v₊, A W]
// the residual of every pair is F times the last entries of its coefficients: all of them are known, by F's Gram
// matrix, without a further product, and to rounding, not as a bound.
//
// A vector that has turned too far costs more than its product: after it, a residual is no longer one direction that
// serves all pairs (bench/series/warm_starts.py). How far is told without a product, by what the space knows of it.
//
// What is missed: an eigenvalue whose vector neither V nor W sees. V is the Krylov space of a random vector, as in a
// fresh run of q steps, and in exact arithmetic no eigenvalue lies above the (k + 1)-th Ritz value by more than ε times
// the spectrum's width with probability 1 − 1.648 √n exp(−√ε (2q − 1)) (Kuczyński & Woźniakowski, SIAM J. Matrix Anal.
// Appl. 13 (1992), for what the k converged vectors leave over).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "hesspect/krylov/lanczos.h"
#include "hesspect/spectrum/eigenvalues.h"

namespace hesspect {

/// Whether the run is one that can be augmented: full re-orthogonalisation, rows of the vectors' own type and device,
/// one space that is not closed, no thick restart.
bool can_augment(const Lanczos& run, const at::TensorOptions& vectors);

/// The places of those vectors v that are near eigenvectors: whose residual, as far as it lies in the run's space,
/// VᵀAv − θ Vᵀv = (T − θ) Vᵀv + β (v₊ᵀv) e_q with the best θ, is within five times rtol · largest |Ritz value| · ‖Vᵀv‖.
/// Zero for eigenvectors, whatever the space holds of them. Collective over run.comm(); each rank's own opinion.
std::vector<std::size_t> near_eigenvectors(const Lanczos& run, std::span<const at::Tensor> vectors, double rtol);

/// The wanted eigenvalues, in at most so many products of its own beside those of the run. Collective over op.comm().
/// @param run      two steps at least, which must stay as it is while `vectors` is used, and outlive it
/// @param starts   [chunk] each, nonzero, padding zero: in the order of the lists of an earlier result, top then
/// bottom,
///                 or magnitude; any number
/// @param options  max_steps, max_basis, seed and block don't count
/// @param most     products; 2 vectors are held for each
/// @param vectors  where given, can be asked for eigenvectors afterwards
/// @return true_residual: measured, from these products; steps: those of the run and the products beside them;
/// converged = false where `most` were not enough
/// @throws NumericalError on all ranks if a product is not finite; MemoryError (agreed); UsageError as eigenvalues
EigenResult augmented_eigenvalues(LinearOperator& op, const Lanczos& run, std::span<const at::Tensor> starts,
                                  const EigenOptions& options, std::int64_t most, VectorSource* vectors = nullptr,
                                  const std::function<void()>& on_step = {});

}  // namespace hesspect
