#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <utility>

#include "hesspect/spectrum/loss_around.h"

namespace hesspect {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

double norm_of(const LossAround& around, const at::Tensor& v) { return std::sqrt(around.dot(v, v)); }

/// What a step of so many lengths of v does to the loss.
double change(const LossAround& around, const at::Tensor& v, double length) {
  return around.loss(v * length) - around.at_start;
}

/// The largest t of (0, most] up to which `holds`, to a relative width: by doubling from `first`, then halving.
/// @return the last that holds and the first that does not; {0, first} where already that does not, and infinite where
///         all do
std::pair<double, double> edge(double first, double most, double width, const std::function<bool(double)>& holds) {
  double good = 0, bad = first;
  while (holds(bad)) {
    good = bad;
    if (bad >= most) return {good, kInfinity};
    bad = std::min(2 * bad, most);
  }
  while (good > 0 && bad > (1 + width) * good) {
    const double middle = std::sqrt(good * bad);
    (holds(middle) ? good : bad) = middle;
  }
  return {good, bad};
}

}  // namespace

double Ascent::worst() const { return std::isnan(eigenvector) ? gradient : std::max(gradient, eigenvector); }

std::vector<Ascent> ascents(const LossAround& around, const std::vector<double>& rho,
                            const std::vector<at::Tensor>& eigenvectors) {
  const double norm = norm_of(around, around.gradient_at_start);
  std::vector<Ascent> all;
  for (const double r : rho) {
    Ascent a;
    a.rho = r;
    a.first_order = r * norm;
    if (norm > 0) a.gradient = change(around, around.gradient_at_start, r / norm);
    a.eigenvector = eigenvectors.empty() ? kUnknown : -kInfinity;
    for (const at::Tensor& v : eigenvectors)
      for (const double sign : {1.0, -1.0}) a.eigenvector = std::max(a.eigenvector, change(around, v, sign * r));
    all.push_back(a);
  }
  return all;
}

std::vector<Ascent> adaptive_ascents(const LossAround& around, const std::vector<double>& rho,
                                     const at::Tensor& theta) {
  const at::Tensor scaled = theta.abs() * around.gradient_at_start;  // |θ| g
  const double norm = norm_of(around, scaled);
  const at::Tensor direction = theta.abs() * scaled;
  std::vector<Ascent> all;
  for (const double r : rho) {
    Ascent a;
    a.rho = r;
    a.adaptive = true;
    a.first_order = r * norm;
    if (norm > 0) a.gradient = change(around, direction, r / norm);
    a.eigenvector = kUnknown;
    all.push_back(a);
  }
  return all;
}

namespace {

/// Of the recurrence p' = (1 + β − ηλ) p − β p₋: the larger root's size.
double expected_growth(double beta, double step_lambda) {
  const double b = 1 + beta - step_lambda, discriminant = b * b - 4 * beta;
  return discriminant < 0 ? std::sqrt(beta) : (std::abs(b) + std::sqrt(discriminant)) / 2;
}

/// Growth a step of p, δ = p v, over some steps of heavy ball along v alone: in other directions a loss that is not at
/// its minimum moves by itself, the more so where it bends down.
double growth(const LossAround& around, const at::Tensor& v, double start, double step, double beta) {
  // Complex roots turn round as they shrink: more steps tell their size, and the larger of two neighbours.
  const int steps = beta > 0 ? 30 : 10;
  at::Tensor gradient = at::empty_like(v);
  const double slope = around.dot(around.gradient_at_start, v);
  double p = start, before = start;
  std::vector<double> parts{start};
  for (int i = 0; i < steps; ++i) {
    around.gradient(v * p, gradient);
    const double next = p - step * (around.dot(gradient, v) - slope) + beta * (p - before);
    before = std::exchange(p, next);
    parts.push_back(std::abs(p));
    if (!std::isfinite(p)) return kInfinity;
    if (parts.back() > 30 * start) break;  // it grows, and leaves where the loss is near its quadratic model
  }
  const std::size_t n = parts.size() - 1;
  if (beta == 0) return std::pow(parts[n] / parts[0], 1.0 / static_cast<double>(n));
  const std::size_t half = n / 2;
  const auto level = [&](std::size_t i) { return std::max(parts[i], parts[i - 1]); };
  return std::pow(level(n) / level(half), 1.0 / static_cast<double>(n - half));
}

}  // namespace

std::vector<StepCheck> check_steps(const LossAround& around, double lambda_1, const at::Tensor& eigenvector,
                                   const std::vector<double>& momenta) {
  if (!(lambda_1 > 0)) return {};
  // So far that the quadratic term stands out of the rounding, and no farther than a millionth of the loss where that
  // suffices.
  const double size = std::max(std::abs(around.at_start), 1e-8);
  const double start = std::sqrt(2 * std::max(1e-6 * size, 1e3 * around.rounding) / lambda_1);
  std::vector<StepCheck> checks;
  for (const double beta : momenta) {
    StepCheck check;
    char name[32];
    std::snprintf(name, sizeof name, "momentum %.4g", beta);
    check.optimizer = beta > 0 ? name : "gradient descent";
    check.largest_step = 2 * (1 + beta) / lambda_1;
    const double low = (1 - kStepMargin) * check.largest_step, high = (1 + kStepMargin) * check.largest_step;
    check.below = growth(around, eigenvector, start, low, beta);
    check.above = growth(around, eigenvector, start, high, beta);
    check.expected_below = expected_growth(beta, low * lambda_1);
    check.expected_above = expected_growth(beta, high * lambda_1);
    checks.push_back(std::move(check));
  }
  return checks;
}

CriticalStep critical_step(const LossAround& around, double bend) {
  constexpr double kRoundings = 4, kWidth = 0.02, kMostDoublings = 40;
  CriticalStep found{kUnknown, kUnknown, kUnknown};
  const at::Tensor& g = around.gradient_at_start;
  const double square = around.dot(g, g);
  if (!(square > 0)) return found;
  found.directional = bend / square;
  // Half way to the minimum of the quadratic model, or where that has none, to where the slope alone would take the
  // whole loss.
  const double first = found.directional > 0 ? 0.5 / found.directional : std::abs(around.at_start) / square;
  if (!(first > 0) || !std::isfinite(first)) return found;
  // A step whose gain is lost in rounding tells nothing.
  if (first * square < kRoundings * around.rounding) return found;
  const auto lowers = [&](double step) { return change(around, g, -step) <= 0; };
  auto [good, bad] = edge(first, first * std::pow(2.0, kMostDoublings), kWidth, lowers);
  if (good == 0) {  // the loss bends up before the model says so: look nearer
    const auto raises = [&](double divisor) { return !lowers(first / divisor); };
    const double gain = first * square;
    const auto [raised, lowered] = edge(1, std::max(1.0, gain / (kRoundings * around.rounding)), kWidth, raises);
    if (!std::isfinite(lowered)) return found;
    good = first / lowered;
    bad = first / std::max(raised, 1.0);
  }
  if (!std::isfinite(bad)) return found;
  found.step = std::sqrt(good * bad);
  found.sharpness = 2 / found.step;
  return found;
}

Basin basin(const LossAround& around, double tolerance, std::int64_t directions,
            const std::function<at::Tensor(std::int64_t i)>& direction, double norm) {
  constexpr double kNearest = 1e-4, kFarthest = 10, kWidth = 0.02;
  Basin found;
  found.tolerance = tolerance;
  for (std::int64_t i = 0; i < directions; ++i) {
    at::Tensor d = direction(i);
    d = d * (norm / norm_of(around, d));
    const auto stays = [&](double t) { return change(around, d, t) <= tolerance; };
    auto [good, bad] = edge(kNearest, kFarthest, kWidth, stays);
    found.radius.push_back(!std::isfinite(bad) ? kInfinity : good > 0 ? std::sqrt(good * bad) : 0);
  }
  return found;
}

}  // namespace hesspect
