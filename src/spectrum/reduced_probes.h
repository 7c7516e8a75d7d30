// The probes of a cumulative density, reduced, and what their spread says: used by its parts.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "christoffel.h"
#include "hesspect/spectrum/cumulative.h"
#include "hesspect/spectrum/estimates.h"

namespace hesspect {

/// With this many probes or more their spread tells the error; with fewer it is too uncertain.
constexpr std::int64_t kJackknifeFrom = 3;

/// The distance from node k to the nearest other one; infinity where there is none.
double node_gap(const std::vector<double>& node, std::size_t k);

struct ReducedProbe {
  const ProbeQuadrature* quadrature;
  ReducedQuadrature reduced;
  double rest = 0;  // mass that is not exact
};

class ReducedProbes {
 public:
  /// Takes the probes that have a step, or one alone that has found all n eigenvalues. Borrows the quadratures.
  ReducedProbes(std::span<const ProbeQuadrature> quadratures, std::int64_t n);

  const std::vector<ReducedProbe>& all() const { return probes_; }
  std::int64_t count() const { return static_cast<std::int64_t>(probes_.size()); }
  bool exact() const { return exact_; }  // all n eigenvalues are known
  bool jackknife() const { return count() >= kJackknifeFrom; }
  double dimensions() const { return n_; }
  double mean_points() const { return points_; }
  double mean_rest() const { return rest_; }
  /// a priori: P (n + 2), n without the exact points
  double probe_dimensions() const { return static_cast<double>(count()) * (n_ - points_ + 2); }
  /// Standard error of the mean of as many values as there are probes, over probes.
  double spread(std::span<const double> values) const;
  /// (1/n) Σ f(λ) and its standard error.
  Estimate mean_of(const std::function<double(double)>& f) const;

 private:
  std::vector<ReducedProbe> probes_;
  double n_, points_ = 0, rest_ = 0;
  bool exact_ = false;
};

/// How many copies beyond one each exact points may have, as far as their own weights tell: n · weight of g copies is
/// χ² of g degrees, summed over probes of P g, and its root nearly normal.
/// @param points, weight  their number and n · weight, mean over probes
/// Source: Fisher's approximation, √(2χ²_g) ~ N(√(2g − 1), 1)
double further_copies(double points, double weight, double probes, double quantile);

/// Moments, weight at zero and negative mass, into `density`.
void estimate_figures(const ReducedProbes& probes, CumulativeDensity& density);

}  // namespace hesspect
