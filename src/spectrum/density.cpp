#include "hesspect/spectrum/density.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/spectrum/cumulative.h"
#include "reduced_probes.h"

namespace hesspect {
namespace {

constexpr double kSmallestMagnitude = 1e-290;  // below it 1/σ and what is computed with it overflow

struct Range {
  double lo = std::numeric_limits<double>::infinity();
  double hi = -std::numeric_limits<double>::infinity();
  double width() const { return hi - lo; }
  double magnitude() const { return std::max(std::abs(lo), std::abs(hi)); }
};

Range node_range(std::span<const ProbeQuadrature> quadratures) {
  Range range;
  for (const ProbeQuadrature& quadrature : quadratures)
    for (const double theta : quadrature.ritz) {
      range.lo = std::min(range.lo, theta);
      range.hi = std::max(range.hi, theta);
    }
  return range;
}

double mean_node_distance(const ProbeQuadrature& quadrature) {
  const std::vector<double>& theta = quadrature.ritz;
  double sum = 0;
  for (std::size_t i = 0; i < theta.size(); ++i) {
    const double nearest = node_gap(theta, i);
    if (std::isfinite(nearest)) sum += quadrature.weight[i] * nearest;
  }
  return sum;
}

void check_all(std::span<const ProbeQuadrature> quadratures) {
  for (const ProbeQuadrature& quadrature : quadratures) {
    if (quadrature.weight.size() != quadrature.ritz.size())
      throw UsageError("density: probe " + std::to_string(quadrature.probe) + " has " +
                       std::to_string(quadrature.ritz.size()) + " nodes but " +
                       std::to_string(quadrature.weight.size()) + " weights");
    for (std::size_t i = 0; i < quadrature.ritz.size(); ++i)
      for (const double value : {quadrature.ritz[i], quadrature.weight[i]})
        if (!std::isfinite(value))
          throw NumericalError(static_cast<std::int64_t>(i), value,
                               "density: node " + std::to_string(i) + " of probe " + std::to_string(quadrature.probe) +
                                   " or its weight is not finite (" + format_number(value) + ")");
  }
}

/// A lattice λ_k = origin + k·spacing, of which only the points near nodes are kept.
class SparseGrid {
 public:
  /// @param has_zero  the grid is to hold zero and its surroundings, too
  SparseGrid(std::span<const ProbeQuadrature> quadratures, double origin, double spacing, double reach, bool has_zero)
      : origin_(origin), spacing_(spacing), reach_(reach) {
    std::vector<std::pair<std::int64_t, std::int64_t>> wanted;
    if (has_zero) wanted.push_back(span_of(0));
    for (const ProbeQuadrature& quadrature : quadratures)
      for (const double theta : quadrature.ritz) wanted.push_back(span_of(theta));
    std::sort(wanted.begin(), wanted.end());
    for (const auto& [first, last] : wanted) {
      if (!runs_.empty() && first <= runs_.back().last + 1) {
        runs_.back().last = std::max(runs_.back().last, last);
      } else {
        const std::size_t at = runs_.empty() ? 0 : runs_.back().at + runs_.back().size();
        runs_.push_back({first, last, at});
      }
    }
  }

  std::size_t size() const { return runs_.empty() ? 0 : runs_.back().at + runs_.back().size(); }
  double point(std::int64_t k) const { return origin_ + static_cast<double>(k) * spacing_; }
  std::pair<std::int64_t, std::int64_t> span_of(double theta) const {
    return {static_cast<std::int64_t>(std::floor((theta - reach_ - origin_) / spacing_)),
            static_cast<std::int64_t>(std::ceil((theta + reach_ - origin_) / spacing_))};
  }
  /// Where lattice point k lies among the kept ones.
  std::size_t index(std::int64_t k) const {
    const auto run = std::prev(std::upper_bound(runs_.begin(), runs_.end(), k,
                                                [](std::int64_t value, const Run& r) { return value < r.first; }));
    return run->at + static_cast<std::size_t>(k - run->first);
  }
  std::vector<double> points() const {
    std::vector<double> all;
    all.reserve(size());
    for (const Run& run : runs_)
      for (std::int64_t k = run.first; k <= run.last; ++k) all.push_back(point(k));
    return all;
  }

 private:
  struct Run {
    std::int64_t first, last;
    std::size_t at;
    std::size_t size() const { return static_cast<std::size_t>(last - first + 1); }
  };
  double origin_, spacing_, reach_;
  std::vector<Run> runs_;
};

/// The density of all dimensions from that of `n`.
void add_zeros(const DensityOptions& options, Density& density) {
  const double n = static_cast<double>(options.n), share = n / (n + static_cast<double>(options.zeros));
  const double peak = 1 / (density.sigma * std::sqrt(2 * std::numbers::pi));
  for (std::size_t i = 0; i < density.lambda.size(); ++i) {
    const double z = density.lambda[i] / density.sigma;
    const double at_zero = std::abs(z) <= options.reach + 1 ? peak * std::exp(-0.5 * z * z) : 0;
    density.density[i] = share * density.density[i] + (1 - share) * at_zero;
    density.density_errors[i] *= share;
  }
}

}  // namespace

double default_sigma(std::span<const ProbeQuadrature> quadratures) {
  const Range range = node_range(quadratures);
  if (!(range.width() > 1e-6 * range.magnitude()))  // one value, to rounding
    return range.magnitude() > kSmallestMagnitude && std::isfinite(range.magnitude()) ? 1e-3 * range.magnitude() : 1e-3;
  double distance = 0;
  std::size_t steps = 1;
  bool exact = true;
  for (const ProbeQuadrature& quadrature : quadratures) {
    distance += mean_node_distance(quadrature) / static_cast<double>(quadratures.size());
    steps = std::max(steps, quadrature.ritz.size());
    exact = exact && quadrature.breakdown;
  }
  const double share = exact ? 0.01 : std::min(0.1, std::numbers::pi / 2 / static_cast<double>(steps));
  const double most = share * range.width();
  return std::clamp(distance, std::min(1e-6 * range.magnitude(), most), most);
}

Density density(std::span<const ProbeQuadrature> quadratures, const DensityOptions& options) {
  Density result;
  if (!(options.sigma >= 0) || !std::isfinite(options.sigma))
    throw UsageError("sigma must be a positive number (or 0 to have it chosen), not " + format_number(options.sigma));
  if (!(options.points_per_sigma >= 1) || !(options.reach >= 4) || !(options.points_per_sigma * options.reach <= 1e6))
    throw UsageError("density: at least 1 point per sigma and a reach of 4 sigma, and at most 1e6 points in a reach");
  check_all(quadratures);
  result.sigma = options.sigma > 0 ? options.sigma : default_sigma(quadratures);
  const Range range = node_range(quadratures);
  if (!(range.hi >= range.lo)) return result;
  if (options.zeros > 0 && options.n <= 0) throw UsageError("density: zeros beside an unknown number of dimensions");
  const double resolvable = 1e3 * std::numeric_limits<double>::epsilon() * range.magnitude();
  if (!(options.sigma > 0)) result.sigma = std::max(result.sigma, 2 * options.points_per_sigma * resolvable);
  if (!std::isfinite(4 * (options.reach * result.sigma + range.magnitude())))
    throw UsageError("sigma = " + format_number(result.sigma) + " with eigenvalues up to " +
                     format_number(range.magnitude()) + " passes what a double holds; take a smaller sigma");
  const double spacing = result.sigma / options.points_per_sigma;
  if (spacing < resolvable || result.sigma < 1e-3 * kSmallestMagnitude)
    throw UsageError("sigma = " + format_number(result.sigma) + " is too small for eigenvalues up to " +
                     format_number(range.magnitude()));

  const SparseGrid grid(quadratures, range.lo, spacing, options.reach * result.sigma, options.zeros > 0);
  result.lambda = grid.points();
  std::vector<double> sum(grid.size(), 0.0), square(grid.size(), 0.0), one(grid.size(), 0.0);
  const double peak = 1 / (result.sigma * std::sqrt(2 * std::numbers::pi));
  std::vector<std::pair<std::size_t, std::size_t>> touched;
  for (const ProbeQuadrature& quadrature : quadratures) {
    touched.clear();
    const std::vector<double> weight = options.n > 0 ? reduced(quadrature, options.n).weight : quadrature.weight;
    for (std::size_t i = 0; i < quadrature.ritz.size(); ++i) {
      const auto [first, last] = grid.span_of(quadrature.ritz[i]);
      const std::size_t at = grid.index(first);  // a node's points are consecutive
      for (std::int64_t k = first; k <= last; ++k) {
        const double z = (grid.point(k) - quadrature.ritz[i]) / result.sigma;
        one[at + static_cast<std::size_t>(k - first)] += weight[i] * peak * std::exp(-0.5 * z * z);
      }
      touched.emplace_back(at, at + static_cast<std::size_t>(last - first));
    }
    for (const auto& [first, last] : touched)
      for (std::size_t i = first; i <= last; ++i) {  // a point touched twice is 0 the second time
        sum[i] += one[i];
        square[i] += one[i] * one[i];
        one[i] = 0;
      }
  }

  const double probes = static_cast<double>(quadratures.size());
  result.density.resize(grid.size());
  result.density_errors.resize(grid.size(), 0.0);
  for (std::size_t i = 0; i < grid.size(); ++i) {
    const double mean = sum[i] / probes;
    result.density[i] = mean;
    if (quadratures.size() > 1)
      result.density_errors[i] = std::sqrt(std::max(0.0, square[i] / probes - mean * mean) / (probes - 1));
  }
  if (options.zeros > 0) add_zeros(options, result);
  return result;
}

}  // namespace hesspect
