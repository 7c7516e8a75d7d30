// The cumulative spectral density from the probes' quadratures, with what it is known to.
//
// Variance-reduced stochastic Lanczos quadrature (Bhattacharjee et al. 2024): an eigenvalue that a probe's own Lanczos
// run has found is taken out of its quadrature and put back as a point of weight 1/n, which is what it weighs in the
// spectrum, whatever the probe's component on it was. The rest of the probe keeps its nodes, their weights scaled to
// the share of the eigenvalues that are left. Between its nodes F is the mean of many rules with as many moments.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hesspect/spectrum/estimates.h"

namespace hesspect {

/// An eigenvalue up to this share of max |θ| counts as zero.
constexpr double kZeroWidth = 1e-6;

struct CumulativeOptions {
  double confidence = 0.9;  // of the band and of w1
  double moved = 0;         // what the precision of products moves eigenvalues by, in the mean: w1_precision
  /// Most points of F over all probes: as many rules are averaged for each probe (16 at most) as keep within it. 0: F
  /// steps at the probes' own nodes, which is all that the bounds need.
  std::int64_t most_points = 40'000;
};

/// A probe's quadrature with its converged eigenvalues as exact points.
struct ReducedQuadrature {
  std::vector<double> node;         // [steps], ascending
  std::vector<double> weight;       // [steps], sum to 1
  std::vector<std::uint8_t> exact;  // [steps], 1: an eigenvalue of weight 1/n (or all copies of one)
  std::vector<double> residual;     // [steps], |β s|: bound of ‖A y − θ y‖
  std::int64_t points = 0;          // how many are exact
};

/// Which nodes are eigenvalues: those whose residual |β s| is far below the distance to the next node, and whose weight
/// a single eigenvalue could have (n · weight of a simple one is χ² of one degree; a multiple one weighs more). A value
/// of a few copies can pass as simple: where all points together weigh more than simple ones would, none is taken out.
/// Zero never is. Where a run has found all n eigenvalues (`all_found`) all of them are points,
/// whatever the weights, and what it found to be left over weighs as often as it is. Copies that come
/// without re-orthogonalisation stand too close to each other for points, and keep their weights.
/// @param n  dimensions
/// @throws UsageError where nodes, weights, α and β differ in number; NumericalError for a non-finite one
ReducedQuadrature reduced(const ProbeQuadrature& quadrature, std::int64_t n);

/// Bound of ∫ |F_q − F_μ| dλ between a probe's own spectral measure μ and its quadrature: from the
/// Chebyshev–Markov–Stieltjes inequalities at its nodes (Chen, Trogdon & Ubaru 2021, §4) and Christoffel's function
/// between them. Exact points count as known. 0 where the Krylov space closed. Rounding of the products is not in it.
/// @throws as reduced
double quadrature_w1(const ProbeQuadrature& quadrature, std::int64_t n);

/// Nodes and weights of as many rules as were averaged: a discrete measure.
struct AveragedQuadrature {
  std::vector<double> node;    // ascending
  std::vector<double> weight;  // sum to 1, to 1e-12
};

/// The mean of `rules` quadratures of m + 1 nodes that have the probe's 2m moments as Gauss's has, and a node each
/// somewhere else in every gap between Gauss's nodes: where the spectrum is dense Gauss's nodes are no more likely
/// than theirs, and the mean is nearer to it by a factor of 1.2 to 5; what a gap isolates all rules agree on. Their
/// last diagonal entries are quantiles of Cauchy's distribution at the last α with the last β as its width, which is
/// what a Jacobi matrix that goes on as it ended would have there (the terminator of the recursion method). Exact
/// points and nodes whose residual is nothing beside their gap stay as they are. A closed quadrature is returned as it
/// is.
/// @param reduced  of the quadrature
/// Source: Haydock & Nex, J. Phys. C 17, 1984 (terminators); Akhiezer, The Classical Moment Problem, §1.2 (the rules);
///         Golub, SIAM Rev. 15, 1973 (the bordered matrix). The mean over Cauchy's quantiles is our own.
AveragedQuadrature averaged(const ProbeQuadrature& quadrature, const ReducedQuadrature& reduced, int rules);

/// F, its band and the rest. Local; nothing random. Probes without a step are left out; of none the result is empty,
/// its w1 infinite. Where one probe has found all n eigenvalues, those are the result ("exact").
///
/// w1 = w1_sampling + w1_quadrature + w1_precision. The first is the quantile of the normal (a priori) or Student's
/// (jackknife) distribution times ∫ s(λ) dλ, s the standard error of F: by Minkowski's inequality ∫ s bounds the root
/// mean square of ∫ |F̂ − F|. A priori s² = 2 Φ (1 − Φ) / (P (n + 2)), which is the variance of the share Φ for
/// spherical probes and a bound of it for Rademacher ones, with the estimate in Φ's place and n less the exact points.
/// To that comes, and to the band, what as many further copies of the exact points would change as their own weights
/// don't exclude: a simple eigenvalue can't be told from a pair. The standard errors of the other figures are over
/// probes, or a priori from the same variance where there are fewer than 3, with what the quadrature leaves open.
/// @param n  dimensions of the operator
/// @throws as reduced; UsageError for a confidence that is not between 0 and 1
/// Source: Chen, Trogdon & Ubaru, arXiv:2105.06595, 2021; Bhattacharjee, Jayaram, Musco, Musco & Ray, arXiv:2410.21690,
///         2024; Efron, Ann. Statist. 7, 1979
CumulativeDensity cumulative_density(std::span<const ProbeQuadrature> quadratures, std::int64_t n,
                                     const CumulativeOptions& options = {});

}  // namespace hesspect
