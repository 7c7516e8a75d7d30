#include "hesspect/spectrum/loss_changes.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "hesspect/krylov/tridiagonal_eigen.h"
#include "hesspect/spectrum/trace.h"

namespace hesspect {
namespace {

constexpr double kNotKnown = std::numeric_limits<double>::quiet_NaN();

struct Spread {
  double mean = 0, deviation = kNotKnown;
  double skewness = kNotKnown;  // of the largest that so many numbers can have
};

Spread spread_of(const std::vector<double>& values) {
  Spread s;
  const auto count = static_cast<double>(values.size());
  for (const double value : values) s.mean += value / count;
  if (values.size() < 2) return s;
  double square = 0, cube = 0;
  for (const double value : values) {
    const double off = value - s.mean;
    square += off * off;
    cube += off * off * off;
  }
  s.deviation = std::sqrt(square / (count - 1));
  // All but one of them equal: (count − 2)/√(count − 1).
  const double most = (count - 2) / std::sqrt(count - 1);
  if (values.size() > 2) s.skewness = square > 0 ? cube / count / std::pow(square / count, 1.5) / most : 0;
  return s;
}

/// What is left of the changes once something whose mean is known was taken out.
struct Left {
  Spread spread;
  double known = 0, error = 0;  // mean of what was taken out, and the half width of that
  bool quadratic = false, along = false;
  double score(const SkewedReach& reach) const {
    if (std::isnan(reach.student)) return spread.deviation;
    return reach.student * spread.deviation / std::sqrt(static_cast<double>(reach.draws)) + error;
  }
};

}  // namespace

ComponentRule component_rule(std::int64_t n, std::size_t nodes) {
  // Jacobi's recurrence on [0, 1] for x^b (1 − x)^a, put so that nothing cancels where n is large.
  const double b = -0.5, a = (static_cast<double>(n) - 3) / 2, s = a + b;
  std::vector<double> diagonal, off;
  for (std::size_t i = 0; i < nodes; ++i) {
    const auto k = static_cast<double>(i);
    diagonal.push_back(i == 0 ? (b + 1) / (s + 2)
                              : (2 * k * (k + s + 1) + s * (b + 1)) / ((2 * k + s) * (2 * k + s + 2)));
    const double j = k + 1;  // to the next
    const double square =
        i == 0 ? 4 * (1 + a) * (1 + b) / (std::pow(s + 2, 2) * (s + 3))
               : 4 * j * (j + a) * (j + b) * (j + s) / (std::pow(2 * j + s, 2) * (2 * j + s + 1) * (2 * j + s - 1));
    off.push_back(std::sqrt(square) / 2);
  }
  const TridiagonalEigen eigen = tridiagonal_eigen(diagonal, off);
  ComponentRule rule;
  for (std::size_t i = 0; i < nodes; ++i) {
    rule.node.push_back(std::sqrt(std::clamp(eigen.values[i], 0.0, 1.0)));
    rule.weight.push_back(eigen.first[i] * eigen.first[i]);
    rule.last.push_back(eigen.last[i] / eigen.first[i]);
  }
  return rule;
}

ComponentRule::Mean ComponentRule::mean(const std::vector<double>& values) const {
  Mean m;
  double coefficient = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    m.value += weight[i] * values[i];
    coefficient += weight[i] * last[i] * values[i];
  }
  m.error = std::abs(coefficient);
  return m;
}

SkewedReach::SkewedReach(std::int64_t draws_made, double confidence_asked)
    : draws(draws_made), confidence(confidence_asked) {
  constexpr std::int64_t kNumbers = 400'000, kMostTrials = 40'000, kFewestTrials = 400;
  if (draws < kLeastDraws) return;
  student = reach = student_quantile(confidence, draws - 1);
  const std::int64_t trials = std::min(kMostTrials, kNumbers / draws);
  if (trials < kFewestTrials) return;  // so many draws are as good as normal ones
  std::mt19937_64 random(20'100'907);
  std::normal_distribution<double> normal;
  std::vector<double> studentised, values(static_cast<std::size_t>(draws));
  for (std::int64_t i = 0; i < trials; ++i) {
    for (double& value : values) {
      const double square = std::pow(normal(random), 2);
      value = square * square;
    }
    const Spread s = spread_of(values);
    studentised.push_back((3 - s.mean) / s.deviation * std::sqrt(static_cast<double>(draws)));
  }
  const auto place = studentised.begin() + std::lround((1 + confidence) / 2 * static_cast<double>(trials - 1));
  std::ranges::nth_element(studentised, place);
  reach = std::max(student, *place);
}

double SkewedReach::towards_tail(double skewness) const {
  // From which on draws count as those of z⁴, whose median of eight is 0.76; those of a normal law are below 0.45.
  constexpr double kFull = 0.7;
  return student + (reach - student) * std::min(1.0, std::abs(skewness) / kFull);
}

ChangeEstimate change_estimate(const LossChanges& changes, std::size_t at, std::int64_t n, double trace,
                               double trace_half_width, const SkewedReach& reach, double rounding) {
  const RelativeChange& measured = changes.at.at(at);
  const double half_square = std::pow(measured.rho * changes.norm, 2) / 2,
               mean_of = half_square / static_cast<double>(n);
  ChangeEstimate e;
  e.predicted = mean_of * trace;
  e.predicted_half_width = mean_of * trace_half_width;
  const std::size_t count = measured.change.size();
  // In one dimension all directions are one, and its pair is the mean itself.
  if (n == 1) {
    e.value = spread_of(measured.change).mean;
    e.lower = e.value - 2 * rounding;
    e.upper = e.value + 2 * rounding;
    return e;
  }
  const bool has_trace = std::isfinite(e.predicted) && std::isfinite(e.predicted_half_width);
  const bool has_along = measured.nodes.size() == kAlongNodes && measured.part.size() == count;
  const ComponentRule rule = has_along ? component_rule(n, kAlongNodes) : ComponentRule{};
  const ComponentRule::Mean along = rule.mean(has_along ? measured.nodes : std::vector<double>{});
  const double bend = changes.largest_curvature;  // v's own part of the quadratic form is taken out once
  Left best;
  for (const bool quadratic : {false, true})
    for (const bool apart : {false, true}) {
      if ((quadratic && !has_trace) || (apart && !has_along)) continue;
      std::vector<double> left = measured.change;
      for (std::size_t i = 0; i < count; ++i) {
        if (quadratic) left[i] -= half_square * changes.curvature.at(i);
        if (apart) left[i] -= measured.part[i];
        if (quadratic && apart) left[i] += half_square * std::pow(changes.component.at(i), 2) * bend;
      }
      Left one{.spread = spread_of(left), .quadratic = quadratic, .along = apart};
      if (quadratic) one.known += e.predicted;
      if (quadratic) one.error += std::abs(e.predicted_half_width);
      if (apart) one.known += along.value;
      if (apart) one.error += along.error;
      if (quadratic && apart) one.known -= mean_of * bend;
      const bool is_first = !quadratic && !apart;
      if (is_first || one.score(reach) < best.score(reach)) best = one;
    }
  e.controlled = best.quadratic;
  e.along_apart = best.along;
  e.value = best.known + best.spread.mean;
  e.skewness = best.spread.skewness;
  const double error = best.spread.deviation / std::sqrt(static_cast<double>(count));
  const double tail = reach.towards_tail(e.skewness) * error, other = reach.student * error;
  const double apart_from_draws = best.error + 2 * rounding;
  e.lower = e.value - (e.skewness < 0 ? tail : other) - apart_from_draws;
  e.upper = e.value + (e.skewness > 0 ? tail : other) + apart_from_draws;
  return e;
}

}  // namespace hesspect
