#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "reduced_probes.h"

namespace hesspect {
namespace {

/// Standard deviation of a value that may lie anywhere in an interval of this length.
double uniform_deviation(double length) { return length / std::sqrt(12.0); }

/// F_μ(x) can be so much off, mean over probes: the length of the interval that it is known to lie in.
double unknown_at(const ReducedProbes& probes, double x) {
  double sum = 0;
  for (const ReducedProbe& probe : probes.all()) {
    const MeasureBounds bounds(*probe.quadrature, probe.reduced);
    const std::vector<double>& node = probe.reduced.node;
    const std::ptrdiff_t k = std::upper_bound(node.begin(), node.end(), x) - node.begin() - 1;
    sum += bounds.below(x, k) + bounds.above(x, k);
  }
  return sum / static_cast<double>(probes.count());
}

}  // namespace

ReducedProbes::ReducedProbes(std::span<const ProbeQuadrature> quadratures, std::int64_t n)
    : n_(static_cast<double>(n)) {
  for (const ProbeQuadrature& quadrature : quadratures) {
    ReducedProbe probe{&quadrature, reduced(quadrature, n)};
    if (probe.reduced.node.empty()) continue;
    for (std::size_t k = 0; k < probe.reduced.node.size(); ++k)
      if (probe.reduced.exact[k] == 0) probe.rest += probe.reduced.weight[k];
    exact_ = probe.reduced.points == n;
    if (exact_) probes_.clear();
    probes_.push_back(std::move(probe));
    if (exact_) break;
  }
  for (const ReducedProbe& probe : probes_) {
    points_ += static_cast<double>(probe.reduced.points) / static_cast<double>(count());
    rest_ += probe.rest / static_cast<double>(count());
  }
}

double ReducedProbes::spread(std::span<const double> values) const {
  const double probes = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / probes;
  double square = 0;
  for (const double value : values) square += (value - mean) * (value - mean);
  return std::sqrt(square / (probes * (probes - 1)));
}

Estimate ReducedProbes::mean_of(const std::function<double(double)>& f) const {
  std::vector<double> values;
  double variance = 0;
  for (const ReducedProbe& probe : probes_) {
    double value = 0, mean = 0, square = 0;
    for (std::size_t k = 0; k < probe.reduced.node.size(); ++k) {
      const double at_node = f(probe.reduced.node[k]), weight = probe.reduced.weight[k];
      value += weight * at_node;
      if (probe.reduced.exact[k] == 0) mean += weight / probe.rest * at_node;
    }
    for (std::size_t k = 0; k < probe.reduced.node.size(); ++k)
      if (probe.reduced.exact[k] == 0)
        square += probe.reduced.weight[k] / probe.rest * std::pow(f(probe.reduced.node[k]) - mean, 2);
    values.push_back(value);
    variance += probe.rest * probe.rest * square / static_cast<double>(count());
  }
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(count());
  if (exact_) return {mean, 0};
  return {mean, jackknife() ? spread(values) : std::sqrt(2 * variance / probe_dimensions())};
}

void estimate_figures(const ReducedProbes& probes, CumulativeDensity& density) {
  for (const int k : {1, 2, 3, 4})
    density.moments.push_back(probes.mean_of([k](double lambda) { return std::pow(lambda, k); }));
  const double zero = density.zero_width;
  density.weight_at_zero = probes.mean_of([zero](double lambda) { return std::abs(lambda) <= zero ? 1.0 : 0.0; });
  density.negative_mass = probes.mean_of([zero](double lambda) { return lambda < -zero ? 1.0 : 0.0; });
  const double left = unknown_at(probes, -zero), right = unknown_at(probes, zero);
  density.weight_at_zero.standard_error =
      std::hypot(density.weight_at_zero.standard_error, uniform_deviation(left + right));
  density.negative_mass.standard_error = std::hypot(density.negative_mass.standard_error, uniform_deviation(left));
}

}  // namespace hesspect
