// The empirical spectral density from the probes' quadratures.
#pragma once

#include <cstdint>
#include <span>

#include "hesspect/spectrum/estimates.h"

namespace hesspect {

struct DensityOptions {
  double sigma = 0;             // standard deviation of the kernel, in units of λ; 0: default_sigma
  double points_per_sigma = 4;  // of the grid where there is density
  double reach = 8;             // half width of a kernel's support, in σ; what is cut off is below 1e-14
  std::int64_t n = 0;           // dimensions: converged eigenvalues then weigh 1/n (`reduced`); 0: weights as they are
  std::int64_t zeros = 0;       // further dimensions, which the quadratures leave out: eigenvalues of zero
};

/// The kernel width where none is given: the mass-weighted mean distance from a node to its nearest neighbour,
/// Σ_i w_i min(θ_i − θ_{i−1}, θ_{i+1} − θ_i), averaged over probes. At least 1e-6 of max |θ|, where the
/// rounding of float32 products lies; at most range · π / 2m, the node distance amid a spectrum that fills its range
/// evenly (a tenth of the range for few steps), or range / 100 where all runs broke down, for then the nodes are
/// eigenvalues. Where all nodes agree to 1e-6 of max |θ| they count as one value: 1e-3 of max |θ|.
///
/// A quadrature knows the mass between two nodes only to within those nodes' weights (Chebyshev–Markov–Stieltjes; Chen,
/// Trogdon & Ubaru, 2105.06595, §4), so the node distance is its resolution: a narrower kernel shows a comb of nodes, a
/// wider one hides what was computed. Weighing by mass gives the resolution of the bulk, however far the outliers lie;
/// a width fixed in proportion to the range (PyHessian: √(1e-5 · range) in λ; Ghorbani et al. 2019: 3e-3 of the range)
/// is wider than a whole bulk that is much narrower than the range.
double default_sigma(std::span<const ProbeQuadrature> quadratures);

/// The mean over probes of Σ_i w_i N(λ; θ_i, σ²), and its standard error over probes.
///
/// The grid is not uniform: σ / points_per_sigma apart near nodes, empty between (the density there is 0). The
/// trapezoidal rule over it gives 1 to 1e-6 and much better.
/// @throws UsageError for a negative or non-finite sigma, or one so small or large that a double can't resolve it;
///         NumericalError{node, value} for a node or weight that is not finite
Density density(std::span<const ProbeQuadrature> quadratures, const DensityOptions& options = {});

}  // namespace hesspect
