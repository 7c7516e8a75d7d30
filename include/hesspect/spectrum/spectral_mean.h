// Means of functions over the spectrum, (1/n) Σ f(λ), from the probes' quadratures.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "hesspect/spectrum/estimates.h"

namespace hesspect {

/// (1/n) Σ f(λ), and what it is known to.
struct SpectralMean {
  double value = 0;
  double sampling = 0;    // half width at the confidence asked for, of too few probes
  double quadrature = 0;  // bound of what too few steps leave open
  std::int64_t products = 0;
  double half_width() const { return sampling + quadrature; }
};

/// The mean of a monotone f over all n eigenvalues, converged ones as exact points (cumulative.h).
///
/// Sampling: Student's quantile times the standard error over probes, or with fewer than 3 of them the normal quantile
/// times √(2 Var f / (P (n + 2))), Var f over the eigenvalues that are no exact points. To
/// it comes what as many further copies of the exact points would move as their own weights don't exclude. Quadrature:
/// ∫ |F_q − F_μ| |df| by Christoffel's function and the nodes' weights, mean over probes.
/// @throws as `reduced`; UsageError without a probe that has a step
/// Source: as cumulative_density, whose w1 is this for f(λ) = λ
SpectralMean spectral_mean(std::span<const ProbeQuadrature> quadratures, std::int64_t n,
                           const std::function<double(double)>& f, double confidence = 0.9);

}  // namespace hesspect
