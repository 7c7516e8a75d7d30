#include "hesspect/spectrum/landscape.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace hesspect {
namespace {

constexpr int kSteps = 20;         // of the outward look for the radius of validity, each √2 times the one before
constexpr double kRoundings = 20;  // a change of so many roundings of the loss can be told from none

struct Radius {
  double valid = 0, fails = std::numeric_limits<double>::infinity();
};

/// Outwards, until the model fails.
/// @param end  the coordinate of the farthest step; 0: none
Radius radius(const Landscape& l, std::size_t direction, double end,
              const std::function<double(double a, double b)>& loss_at) {
  Radius found;
  if (end == 0) return found;
  for (int i = kSteps; i >= 0; --i) {
    const double t = end * std::pow(2.0, -0.5 * i), a = direction == 0 ? t : 0, b = direction == 0 ? 0 : t;
    const double change = quadratic_model(l, a, b) - l.loss_at_start, off = loss_at(a, b) - l.loss_at_start - change;
    if (!(std::abs(off) <= l.tolerance * std::abs(change) + kRoundings * l.rounding)) {
      found.fails = std::abs(t);
      return found;
    }
    found.valid = std::abs(t);
  }
  return found;
}

}  // namespace

double quadratic_model(const Landscape& l, double a, double b) {
  const LandscapeDirection& first = l.directions[0];
  double q = l.loss_at_start + a * first.slope + 0.5 * a * a * first.bend;
  if (l.directions.size() > 1) {
    const LandscapeDirection& second = l.directions[1];
    q += b * second.slope + 0.5 * b * b * second.bend + a * b * l.cross;
  }
  return q;
}

std::vector<double> coordinates(double low, double high, std::int64_t points) {
  std::vector<double> at(static_cast<std::size_t>(points));
  for (std::size_t i = 0; i < at.size(); ++i)
    at[i] = low + (high - low) * static_cast<double>(i) / static_cast<double>(points - 1);
  at.back() = high;
  const auto nearest = std::ranges::min_element(at, {}, [](double t) { return std::abs(t); });
  if (low <= 0 && high >= 0) *nearest = 0;
  return at;
}

double doubling_width(double loss, double slope, double bend) {
  // ½ |bend| t² + |slope| t = |loss|, in the form that does not cancel.
  const double b = std::abs(slope), a = std::abs(bend), c = std::abs(loss);
  const double root = b + std::sqrt(b * b + 2 * a * c);
  const double width = root > 0 ? 2 * c / root : 0;
  return width > 0 && std::isfinite(width) ? width : 1;
}

std::int64_t most_losses(std::int64_t points, std::size_t directions) {
  return (directions > 1 ? points * points : points) + 2 * (kSteps + 1) * static_cast<std::int64_t>(directions);
}

void explore(Landscape& l, std::int64_t points, const std::function<double(double a, double b)>& loss_at) {
  const bool is_plane = l.directions.size() > 1;
  l.alpha = coordinates(l.directions[0].low, l.directions[0].high, points);
  l.beta = is_plane ? coordinates(l.directions[1].low, l.directions[1].high, points) : std::vector<double>{0};
  l.loss.assign(l.alpha.size(), {});
  l.quadratic.assign(l.alpha.size(), {});
  for (std::size_t i = 0; i < l.alpha.size(); ++i)
    for (const double b : l.beta) {
      const double a = l.alpha[i];
      l.loss[i].push_back(a == 0 && b == 0 ? l.loss_at_start : loss_at(a, b));
      l.quadratic[i].push_back(quadratic_model(l, a, b));
    }
  for (std::size_t d = 0; d < l.directions.size(); ++d) {
    LandscapeDirection& direction = l.directions[d];
    const Radius below = radius(l, d, std::min(direction.low, 0.0), loss_at);
    const Radius above = radius(l, d, std::max(direction.high, 0.0), loss_at);
    direction.valid_below = below.valid;
    direction.valid_below_fails = below.fails;
    direction.valid_above = above.valid;
    direction.valid_above_fails = above.fails;
  }
}

}  // namespace hesspect
