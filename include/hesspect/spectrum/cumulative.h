// The cumulative spectral density from the probes' quadratures, with what it is known to.
//
// Variance-reduced stochastic Lanczos quadrature (Bhattacharjee & Musco 2024): an eigenvalue that a probe's own Lanczos
// run has found is taken out of its quadrature and put back as a point of weight 1/n, which is what it weighs in the
// spectrum, whatever the probe's component on it was. The rest of the probe keeps its nodes, their weights scaled to
// the share of the eigenvalues that are left.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hesspect/spectrum/estimates.h"

namespace hesspect {

struct CumulativeOptions {
  double confidence = 0.9;  // of the band and of w1
};

/// A probe's quadrature with its converged eigenvalues as exact points.
struct ReducedQuadrature {
  std::vector<double> node;         // [steps], ascending
  std::vector<double> weight;       // [steps], sum to 1
  std::vector<std::uint8_t> exact;  // [steps], 1: an eigenvalue of weight 1/n
  std::int64_t points = 0;          // how many are exact
};

/// Which nodes are eigenvalues: those whose residual |β s| is far below the distance to the next node, and whose weight
/// a single eigenvalue could have (a multiple one weighs more: n · weight of a simple one is χ² of one degree).
/// @param n  dimensions
ReducedQuadrature reduced(const ProbeQuadrature& quadrature, std::int64_t n);

/// Bound of ∫ |F_q − μ| dλ between a probe's own spectral measure and its quadrature, from the
/// Chebyshev–Markov–Stieltjes inequalities at its nodes (Chen, Trogdon & Ubaru 2021, §4): exact points count as known.
double quadrature_w1(const ProbeQuadrature& quadrature, std::int64_t n);

/// F, its band and the rest. Local; nothing random.
/// @param n  dimensions of the operator
/// Source: Chen, Trogdon & Ubaru, arXiv:2105.06595, 2021; Bhattacharjee & Musco 2024; Efron, Ann. Statist. 7, 1979
CumulativeDensity cumulative_density(std::span<const ProbeQuadrature> quadratures, std::int64_t n,
                                     const CumulativeOptions& options = {});

}  // namespace hesspect
