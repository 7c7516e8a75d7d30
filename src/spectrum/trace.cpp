#include "hesspect/spectrum/trace.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "hesspect/core/errors.h"
#include "hesspect/spectrum/cumulative.h"

namespace hesspect {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
/// Below it a spread over samples is too uncertain to stop by; and where the bound is not far above the spread, the
/// bound is the better known of the two.
constexpr std::int64_t kSpreadFrom = 10;
constexpr double kWellBelow = 0.7;
/// Both widths are made so much wider: a rule that looks at every count stops where the spread happens to be small, and
/// samples are not quite normal. At a nominal 90 % some 91 % of intervals held with a tenth; with a quarter 95 %.
constexpr double kOptionalStopping = 1.25;

/// Of Σ|λ|. Of 26 test models at their random start 24 have traces of 2.8 % and more, which keep their accuracy.
constexpr double kCancelled = 0.01;

/// What the half width is to be, at most.
double half_width_asked(double value, const TraceRule& rule) {
  return rule.rtol * std::max(std::abs(value), rule.floor);
}

/// Sums over the samples so far.
struct Sums {
  std::int64_t count = 0;
  double mean = 0, square = 0;  // of quadratic forms: mean, and Σ (x − mean)² (Welford)
  double product_norm_sq = 0;

  void add(const DeflatedSample& sample) {
    ++count;
    const double off = sample.quadratic_form - mean;
    mean += off / static_cast<double>(count);
    square += off * (sample.quadratic_form - mean);
    product_norm_sq += sample.product_norm_sq;
  }
};

TraceEstimate estimate_of(double captured, const Sums& sums, const TraceRule& rule) {
  TraceEstimate trace;
  trace.captured = captured;
  trace.confidence = rule.confidence;
  trace.samples = sums.count;
  if (sums.count == 0) {
    trace.value = captured;
    trace.standard_error = trace.half_width = kNaN;
    trace.converged = rule.rtol <= 0;
    return trace;
  }
  const double count = static_cast<double>(sums.count);
  trace.value = captured + sums.mean;
  trace.standard_error = std::sqrt(2 * (sums.product_norm_sq / count) / count);
  trace.half_width = normal_quantile(rule.confidence) * trace.standard_error;
  if (sums.count >= kSpreadFrom) {
    const double spread = std::sqrt(sums.square / (count - 1) / count);
    const double width = student_quantile(rule.confidence, sums.count - 1) * spread;
    if (width < kWellBelow * trace.half_width) {
      trace.standard_error = spread;
      trace.half_width = width;
    }
  }
  trace.half_width *= kOptionalStopping;
  trace.converged =
      rule.rtol <= 0 || (sums.count >= rule.min_samples && trace.half_width <= half_width_asked(trace.value, rule));
  return trace;
}

}  // namespace

double trace_floor(const ProbeQuadrature& quadrature, std::int64_t n) {
  const ReducedQuadrature measure = reduced(quadrature, n);
  double sum = 0;
  for (std::size_t k = 0; k < measure.node.size(); ++k) sum += measure.weight[k] * std::abs(measure.node[k]);
  return kCancelled * static_cast<double>(n) * sum;
}

double trace_quantile(double confidence) { return kOptionalStopping * normal_quantile(confidence); }

TraceEstimate trace_estimate(double captured, std::span<const DeflatedSample> samples, const TraceRule& rule) {
  Sums sums;
  for (const DeflatedSample& sample : samples) sums.add(sample);
  return estimate_of(captured, sums, rule);
}

std::int64_t samples_needed(double captured, std::span<const DeflatedSample> samples, const TraceRule& rule) {
  Sums sums;
  const double quantile = trace_quantile(rule.confidence);
  for (const DeflatedSample& sample : samples) {
    sums.add(sample);
    if (sums.count < rule.min_samples) continue;
    // Student's quantile costs far more than the rest, and is never below the normal one.
    const double count = static_cast<double>(sums.count);
    const double least_sq =
        std::min(2 * sums.product_norm_sq / count, sums.count >= kSpreadFrom ? sums.square / (count - 1) : HUGE_VAL) /
        count;
    if (quantile * std::sqrt(least_sq) > half_width_asked(captured + sums.mean, rule)) continue;
    if (estimate_of(captured, sums, rule).converged) return sums.count;
  }
  return 0;
}

std::int64_t samples_forecast(double captured, std::span<const DeflatedSample> samples, const TraceRule& rule) {
  const auto count = static_cast<std::int64_t>(samples.size());
  if (count == 0) return std::max<std::int64_t>(1, rule.min_samples);
  const TraceEstimate now = trace_estimate(captured, samples, rule);
  const double ratio = now.half_width / half_width_asked(now.value, rule);
  constexpr double kMost = 1e15;
  const double needed = std::min(kMost, static_cast<double>(count) * ratio * ratio);  // NaN and ∞: the most
  const auto forecast = static_cast<std::int64_t>(std::ceil(std::isfinite(needed) ? needed : kMost));
  return std::max({forecast, count + 1, rule.min_samples});
}

std::vector<LayerEstimate> layer_estimates(const std::vector<std::string>& names, std::span<const std::int64_t> sizes,
                                           std::span<const double> captured, std::span<const DeflatedSample> samples) {
  std::vector<LayerEstimate> layers;
  for (std::size_t l = 0; l < names.size(); ++l) {
    Sums sums;
    for (const DeflatedSample& sample : samples) sums.add({sample.probe, sample.layers.at(l), 0, {}});
    const double count = static_cast<double>(sums.count);
    LayerEstimate layer;
    layer.name = names[l];
    layer.size = sizes[l];
    layer.trace.value = (captured.empty() ? 0 : captured[l]) + sums.mean;
    layer.trace.standard_error = sums.count > 1 ? std::sqrt(sums.square / (count - 1) / count) : kNaN;
    layers.push_back(std::move(layer));
  }
  return layers;
}

std::vector<DeflatedSample> undeflated(std::span<const TraceSample> samples) {
  std::vector<DeflatedSample> same;
  for (const TraceSample& s : samples) same.push_back({s.probe, s.quadratic_form, s.product_norm_sq, s.layers});
  return same;
}

}  // namespace hesspect
