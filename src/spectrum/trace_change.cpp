#include "hesspect/spectrum/trace_change.h"

#include <algorithm>
#include <cmath>

#include "hesspect/spectrum/trace.h"

namespace hesspect {
namespace {

/// Two samples are often close to each other by chance: an interval by these, where it is the narrower one, holds too
/// seldom.
constexpr std::int64_t kPairsFrom = 3;

}  // namespace

TraceChange trace_change(const SampledTrace& before, const SampledTrace& now) {
  const double confidence = now.trace.confidence;
  TraceChange change;
  change.value = now.trace.value - before.trace.value;
  change.standard_error = std::hypot(now.trace.standard_error, before.trace.standard_error);
  change.half_width = std::hypot(now.trace.half_width, before.trace.half_width);

  double mean = 0, square = 0, norms = 0;  // of differences: mean, and Σ (x − mean)² (Welford)
  std::int64_t count = 0;
  for (const DeflatedSample& sample : now.samples) {
    const auto same = std::ranges::find(before.samples, sample.probe, &DeflatedSample::probe);
    if (same == before.samples.end()) continue;
    ++count;
    const double off = sample.quadratic_form - same->quadratic_form - mean;
    mean += off / static_cast<double>(count);
    square += off * (sample.quadratic_form - same->quadratic_form - mean);
    norms += sample.product_norm_sq + same->product_norm_sq;
  }
  if (count < 2) return change;
  const auto samples = static_cast<double>(count);
  const double spread = std::sqrt(square / (samples - 1) / samples), by_norms = std::sqrt(2 * norms) / samples;
  const double width = count < kPairsFrom ? HUGE_VAL : sampled_quantile(confidence, count) * spread;
  const double width_by_norms = trace_quantile(confidence) * by_norms;
  const double half_width = std::min(width, width_by_norms);
  if (half_width > change.half_width) return change;
  return {now.trace.captured - before.trace.captured + mean, width < width_by_norms ? spread : by_norms, half_width,
          count};
}

}  // namespace hesspect
