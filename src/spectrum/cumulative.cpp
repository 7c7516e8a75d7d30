#include "hesspect/spectrum/cumulative.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "hesspect/core/errors.h"
#include "hesspect/spectrum/trace.h"
#include "reduced_probes.h"

namespace hesspect {
namespace {

/// Rules that are averaged for each probe: more change nothing that can be seen.
constexpr std::int64_t kMostRules = 16;

/// F and what is known of it on one interval between neighbouring points of all probes, means over probes.
struct Step {
  double f = 0;                          // of the averaged quadratures
  double rest = 0;                       // of it, what is no exact point
  double lower = 0, upper = 0;           // of the probes' own measures: by their quadratures
  double spread = 0;                     // standard error over probes
  double points = 0, points_weight = 0;  // exact points so far: as they count, and by the probes' own weights
};

/// A probe's cumulative weights, read from left to right.
struct Cursor {
  Cursor(const ReducedProbe& p, const AveragedQuadrature& a) : probe(p), average(a), bounds(*p.quadrature, p.reduced) {}
  void advance_to(double x) {
    const ReducedQuadrature& q = probe.reduced;
    for (; next_average < average.node.size() && average.node[next_average] <= x; ++next_average)
      f_average += average.weight[next_average];
    for (; next < q.node.size() && q.node[next] <= x; ++next) {
      f += q.weight[next];
      if (q.exact[next] == 0)
        rest += q.weight[next];
      else
        points += q.weight[next], points_weight += probe.quadrature->weight[next];
    }
  }
  std::ptrdiff_t last() const { return static_cast<std::ptrdiff_t>(next) - 1; }

  const ReducedProbe& probe;
  const AveragedQuadrature& average;
  MeasureBounds bounds;
  std::size_t next = 0, next_average = 0;
  double f_average = 0, f = 0, rest = 0, points = 0, points_weight = 0;
};

/// As many rules for each probe as keep F within so many points; without any Gauss's own.
std::vector<AveragedQuadrature> averages_of(const ReducedProbes& probes, std::int64_t most_points) {
  std::int64_t nodes = 1;
  for (const ReducedProbe& probe : probes.all()) nodes += static_cast<std::int64_t>(probe.reduced.node.size());
  const int rules = static_cast<int>(std::min(kMostRules, most_points / nodes));
  std::vector<AveragedQuadrature> averages;
  for (const ReducedProbe& probe : probes.all()) averages.push_back(averaged(*probe.quadrature, probe.reduced, rules));
  return averages;
}

std::vector<double> all_nodes(const ReducedProbes& probes, const std::vector<AveragedQuadrature>& averages) {
  std::vector<double> nodes;
  for (const ReducedProbe& probe : probes.all())
    nodes.insert(nodes.end(), probe.reduced.node.begin(), probe.reduced.node.end());
  for (const AveragedQuadrature& average : averages)
    nodes.insert(nodes.end(), average.node.begin(), average.node.end());
  std::sort(nodes.begin(), nodes.end());
  nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
  return nodes;
}

std::vector<Step> steps_of(const ReducedProbes& probes, const std::vector<AveragedQuadrature>& averages,
                           const std::vector<double>& lambda) {
  std::vector<Cursor> cursors;
  for (std::size_t p = 0; p < averages.size(); ++p) cursors.emplace_back(probes.all()[p], averages[p]);
  const double count = static_cast<double>(cursors.size());
  std::vector<Step> steps(lambda.size());
  std::vector<double> values(cursors.size());
  for (std::size_t i = 0; i < lambda.size(); ++i) {
    const double end = i + 1 < lambda.size() ? lambda[i + 1] : lambda[i];
    for (std::size_t p = 0; p < cursors.size(); ++p) {
      Cursor& cursor = cursors[p];
      cursor.advance_to(lambda[i]);
      values[p] = cursor.f;
      steps[i].f += cursor.f_average / count;
      steps[i].rest += cursor.rest / count;
      steps[i].points += cursor.points / count;
      steps[i].points_weight += cursor.points_weight / count;
      steps[i].lower += (cursor.f - cursor.bounds.below(lambda[i], cursor.last())) / count;
      steps[i].upper += (cursor.f + cursor.bounds.above(end, cursor.last())) / count;
    }
    if (probes.jackknife()) steps[i].spread = probes.spread(values);
  }
  return steps;
}

struct Copies {
  double left = 0, right = 0;
};

/// The same of the points left and right of each interval, as shares of the spectrum. What is missing on one side is
/// too much on the other.
std::vector<Copies> copies_of(const ReducedProbes& probes, const std::vector<Step>& steps, double confidence) {
  std::vector<Copies> copies(steps.size());
  const double count = static_cast<double>(probes.count()), n = probes.dimensions();
  const double quantile = normal_quantile(confidence);
  if (probes.exact()) return copies;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const double points = n * steps[i].points, weight = n * steps[i].points_weight;
    copies[i].left = further_copies(points, weight, count, quantile) / n;
    copies[i].right =
        further_copies(n * steps.back().points - points, n * steps.back().points_weight - weight, count, quantile) / n;
  }
  return copies;
}

/// Half width of the pointwise band on each interval, quadrature and further copies aside.
std::vector<double> sampling_widths(const ReducedProbes& probes, const std::vector<Step>& steps, double confidence) {
  std::vector<double> widths(steps.size(), 0.0);
  if (probes.exact()) return widths;
  // Chen, Trogdon & Ubaru 2021, theorem 1: P[|Φ_z(x) − Φ(x)| > t] ≤ 2 exp(−P (n + 2) t²)
  const double a_priori = probes.mean_rest() * std::sqrt(std::log(2 / (1 - confidence)) / probes.probe_dimensions());
  const double student = probes.jackknife() ? student_quantile(confidence, probes.count() - 1) : 0;
  const double rounding = 1e-14 * probes.mean_rest();
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const bool among_rest = steps[i].rest > rounding && steps[i].rest < probes.mean_rest() - rounding;
    widths[i] = probes.jackknife() ? student * steps[i].spread : among_rest ? a_priori : 0;
  }
  return widths;
}

double sampling_w1(const ReducedProbes& probes, const std::vector<double>& lambda, const std::vector<Step>& steps,
                   const std::vector<Copies>& copies, double confidence) {
  if (probes.exact()) return 0;
  double errors = 0, missing = 0;
  for (std::size_t i = 0; i + 1 < lambda.size(); ++i) {
    const double share = std::clamp(steps[i].rest / probes.mean_rest(), 0.0, 1.0), width = lambda[i + 1] - lambda[i];
    errors += width * (probes.jackknife()
                           ? steps[i].spread
                           : probes.mean_rest() * std::sqrt(2 * share * (1 - share) / probes.probe_dimensions()));
    // Copies take their mass from the rest, and it moves from there.
    missing += width * (share < 0.5 ? copies[i].left : copies[i].right);
  }
  const double quantile =
      probes.jackknife() ? student_quantile(confidence, probes.count() - 1) : normal_quantile(confidence);
  return quantile * errors + missing;
}

/// F is monotone: what bounds it from below at one place does so further right, too. Between one probe's copy of a node
/// and another's, which differ by rounding, the spread says nothing, and the band is that of the neighbours.
void put_band(CumulativeDensity& density, const std::vector<Step>& steps, const std::vector<double>& widths,
              const std::vector<Copies>& copies) {
  const std::size_t count = steps.size();
  for (std::size_t i = 0; i < count; ++i) {
    density.lower.push_back(std::clamp(steps[i].lower - widths[i] - copies[i].right, 0.0, density.cumulative[i]));
    density.upper.push_back(std::clamp(steps[i].upper + widths[i] + copies[i].left, density.cumulative[i], 1.0));
  }
  for (std::size_t i = 1; i < count; ++i) {
    density.lower[i] = std::max(density.lower[i], density.lower[i - 1]);
    density.upper[count - 1 - i] = std::min(density.upper[count - 1 - i], density.upper[count - i]);
  }
}

}  // namespace

double further_copies(double points, double weight, double probes, double quantile) {
  if (!(points > 1e-9)) return 0;
  const double root = std::sqrt(2 * probes * std::max(0.0, weight)) + quantile;
  return std::max(0.0, (root * root + 1) / (2 * probes) - points);
}

CumulativeDensity cumulative_density(std::span<const ProbeQuadrature> quadratures, std::int64_t n,
                                     const CumulativeOptions& options) {
  if (!(options.confidence > 0 && options.confidence < 1))
    throw UsageError("the confidence of the cumulative density must lie between 0 and 1, not " +
                     std::to_string(options.confidence));
  const ReducedProbes probes(quadratures, n);
  CumulativeDensity density;
  density.confidence = options.confidence;
  density.probes = probes.count();
  density.w1 = density.w1_sampling = density.w1_quadrature = std::numeric_limits<double>::infinity();
  if (probes.count() == 0) return density;
  density.band = probes.exact() ? "exact" : probes.jackknife() ? "jackknife" : "a priori";
  density.exact_points = probes.mean_points();

  const std::vector<AveragedQuadrature> averages = averages_of(probes, options.most_points);
  density.lambda = all_nodes(probes, averages);
  const std::vector<Step> steps = steps_of(probes, averages, density.lambda);
  for (const Step& step : steps) density.cumulative.push_back(std::min(step.f, 1.0));
  density.cumulative.back() = 1;
  const std::vector<Copies> copies = copies_of(probes, steps, options.confidence);
  put_band(density, steps, sampling_widths(probes, steps, options.confidence), copies);

  density.range_lo = std::numeric_limits<double>::infinity();
  density.range_hi = -density.range_lo;
  density.w1_quadrature = 0;
  double largest = 0;
  for (const ReducedProbe& probe : probes.all()) {
    const ReducedQuadrature& q = probe.reduced;
    density.range_lo = std::min(density.range_lo, q.node.front() - q.residual.front());
    density.range_hi = std::max(density.range_hi, q.node.back() + q.residual.back());
    largest = std::max({largest, std::abs(q.node.front()), std::abs(q.node.back())});
    density.w1_quadrature += MeasureBounds(*probe.quadrature, q).w1() / static_cast<double>(probes.count());
  }
  density.w1_sampling = sampling_w1(probes, density.lambda, steps, copies, options.confidence);
  density.w1_precision = options.moved;
  density.w1 = density.w1_sampling + density.w1_quadrature + density.w1_precision;
  density.zero_width = kZeroWidth * largest;
  estimate_figures(probes, density);
  return density;
}

}  // namespace hesspect
