// The trace and the layers' traces from samples, with intervals, and when they are good enough.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "hesspect/spectrum/estimates.h"

namespace hesspect {

struct TraceRule {
  double rtol = 0;  // asked for: half width over |value|, or over the floor where that is more; 0: nothing
  double confidence = 0.9;
  std::int64_t min_samples = 2;
  double floor = 0;  // trace_floor
};

/// Quantile of the standard normal and of Student's t distribution: q with P[|X| ≤ q] = confidence.
double normal_quantile(double confidence);
double student_quantile(double confidence, std::int64_t degrees);

/// Half width of the interval of a normal estimate over its standard error, with what is added for optional stopping.
double trace_quantile(double confidence);
/// The same of an estimate by its samples' own spread: Student's quantile, with what is added for optional stopping.
/// @param samples  two at least
double sampled_quantile(double confidence, std::int64_t samples);

/// What |tr H| counts as at least where an accuracy is relative to it: a hundredth of Σ|λ|. Where positive and negative
/// eigenvalues cancel, there is no accuracy relative to what they leave.
/// @param quadrature  of one Lanczos run, whose reduced measure gives Σ|λ|
double trace_floor(const ProbeQuadrature& quadrature, std::int64_t n);

/// captured + the mean of the samples' quadratic forms, and its confidence interval.
///
/// Two widths are known: from the samples' own spread (Student's t), and from 2‖B‖_F²/P, B the matrix that is sampled,
/// with ‖B‖_F² ≈ mean ‖Bz‖², which bounds the variance of Rademacher probes and is that of Gaussian ones, and is known
/// well from one product already (Persson, Cortinovis & Kressner 2022, §3). With fewer than ten samples the second is
/// taken, then the first where it is well below. A quarter is added for the rule's looking at every count.
/// @param captured  of the deflated space; 0 without one
TraceEstimate trace_estimate(double captured, std::span<const DeflatedSample> samples, const TraceRule& rule);

/// The sums over samples that an estimate is made of, kept as they come.
class TraceSums {
 public:
  void add(const DeflatedSample& sample);
  std::int64_t count() const { return count_; }
  double mean() const { return mean_; }
  /// Standard error of the mean by the samples' own spread; NaN for fewer than two.
  double spread() const;
  /// As trace_estimate.
  TraceEstimate estimate(double captured, const TraceRule& rule) const;
  /// Whether the estimate from these samples is what the rule asks for. Optional stopping: the rule looks at every
  /// count from min_samples on, and the first that is enough is the answer; samples beyond are left unused, so that the
  /// answer does not depend on how many were under way.
  bool enough(double captured, const TraceRule& rule) const;
  /// How many samples in all the rule may be expected to need: at least one more than there are.
  std::int64_t forecast(double captured, const TraceRule& rule) const;

 private:
  std::int64_t count_ = 0;
  double mean_ = 0, square_ = 0;  // of quadratic forms: mean, and Σ (x − mean)² (Welford)
  double product_norm_sq_ = 0;
};

/// Layers' traces: captured[l] + mean over samples, with standard errors over samples (NaN for fewer than two).
std::vector<LayerEstimate> layer_estimates(const std::vector<std::string>& names, std::span<const std::int64_t> sizes,
                                           std::span<const double> captured, std::span<const DeflatedSample> samples);

}  // namespace hesspect
