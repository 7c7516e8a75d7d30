#include "hesspect/spectrum/loss_changes.h"

#include <cmath>

#include "hesspect/spectrum/trace.h"

namespace hesspect {
namespace {

struct Spread {
  double mean = 0, deviation = std::numeric_limits<double>::quiet_NaN();
};

Spread spread_of(const std::vector<double>& values) {
  Spread s;
  const auto count = static_cast<double>(values.size());
  for (const double value : values) s.mean += value / count;
  if (values.size() < 2) return s;
  double square = 0;
  for (const double value : values) square += (value - s.mean) * (value - s.mean);
  s.deviation = std::sqrt(square / (count - 1));
  return s;
}

}  // namespace

ChangeEstimate change_estimate(const LossChanges& changes, std::size_t at, std::int64_t n, double trace,
                               double trace_half_width, double confidence, double rounding) {
  const RelativeChange& measured = changes.at.at(at);
  const double half_square = std::pow(measured.rho * changes.norm, 2) / 2,
               mean_of = half_square / static_cast<double>(n);
  ChangeEstimate e;
  e.predicted = mean_of * trace;
  e.predicted_half_width = mean_of * trace_half_width;
  std::vector<double> left;  // by the quadratic model
  for (std::size_t i = 0; i < measured.change.size(); ++i)
    left.push_back(measured.change[i] - half_square * changes.curvature.at(i));
  const Spread plain = spread_of(measured.change), over = spread_of(left);
  const auto count = static_cast<std::int64_t>(measured.change.size());
  // In one dimension all directions are one, and its pair is the mean itself.
  const double quantile = n == 1      ? 0
                          : count < 2 ? std::numeric_limits<double>::quiet_NaN()
                                      : student_quantile(confidence, count - 1);
  const double root = std::sqrt(static_cast<double>(count));
  const auto half = [&](const Spread& s) { return n == 1 ? 0 : quantile * s.deviation / root; };
  e.controlled =
      n > 1 && std::isfinite(e.predicted) && std::isfinite(e.predicted_half_width) && over.deviation < plain.deviation;
  e.value = e.controlled ? e.predicted + over.mean : plain.mean;
  e.half_width = (e.controlled ? half(over) + std::abs(e.predicted_half_width) : half(plain)) + 2 * rounding;
  return e;
}

}  // namespace hesspect
