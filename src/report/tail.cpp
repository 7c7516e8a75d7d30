#include "tail.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "hesspect/core/text.h"

namespace hesspect {
namespace {

constexpr int kPoints = 60;          // of the fit, equally apart in log λ
constexpr double kLeastReach = 8;    // of the fit: upper over lower end; below it a slope means nothing
constexpr double kLeastRanks = 4;    // of the fit: rank at its lower over that at its upper end
constexpr double kDown = 1000;       // from the edge
constexpr double kAboveNoise = 100;  // noise floors

/// Least squares of y on x, as weights: the slope is Σ weight · y.
std::vector<double> slope_weights(const std::vector<double>& x) {
  double mean = 0, square = 0;
  for (const double one : x) mean += one / static_cast<double>(x.size());
  for (const double one : x) square += (one - mean) * (one - mean);
  std::vector<double> weights;
  for (const double one : x) weights.push_back((one - mean) / square);
  return weights;
}

}  // namespace

BandedShare share_up_to(const CumulativeDensity& c, double x) {
  const auto next = std::upper_bound(c.lambda.begin(), c.lambda.end(), x);
  if (next == c.lambda.begin()) return {0, 0, c.upper.empty() ? 1 : std::min(1.0, c.upper.front())};
  const auto i = static_cast<std::size_t>(next - c.lambda.begin()) - 1;
  const bool band = i < c.lower.size() && i < c.upper.size();
  return {c.cumulative[i], band ? c.lower[i] : 0, band ? c.upper[i] : 1};
}

double wasserstein_distance(const CumulativeDensity& a, const CumulativeDensity& b, double scale_a, double scale_b) {
  std::size_t i = 0, j = 0;
  double sum = 0, f_a = 0, f_b = 0, last = 0;
  while (i < a.lambda.size() || j < b.lambda.size()) {
    const bool first = j >= b.lambda.size() || (i < a.lambda.size() && a.lambda[i] / scale_a <= b.lambda[j] / scale_b);
    const double x = first ? a.lambda[i] / scale_a : b.lambda[j] / scale_b;
    if (i + j > 0) sum += (x - last) * std::abs(f_a - f_b);
    last = x;
    (first ? f_a : f_b) = first ? a.cumulative[i++] : b.cumulative[j++];
  }
  return sum;
}

Figure bulk_exponent(const CumulativeDensity& c, std::int64_t n, double edge, double floor) {
  Figure figure;
  figure.key = "bulk_exponent";
  const double low = std::max(edge / kDown, kAboveNoise * floor);
  if (!(edge > 0) || !(edge >= kLeastReach * low)) {
    figure.missing = "the bulk reaches over less than a factor of 8 above the noise";
    return figure;
  }
  std::vector<double> x, y, least, most;
  bool bounded = true;
  for (int i = 0; i < kPoints; ++i) {
    const double log_lambda = std::log(low) + (std::log(edge) - std::log(low)) * (i + 0.5) / kPoints;
    const BandedShare share = share_up_to(c, std::exp(log_lambda));
    const auto rank = [n](double up_to) { return std::log(static_cast<double>(n) * (1 - up_to)); };
    if (!(share.value < 1)) continue;
    x.push_back(log_lambda);
    y.push_back(rank(share.value));
    least.push_back(rank(share.upper));
    most.push_back(rank(share.lower));
    bounded = bounded && share.upper < 1;
  }
  if (x.size() < kPoints / 2) {
    figure.missing = "too little of the bulk was resolved: --steps";
    return figure;
  }
  const std::vector<double> weights = slope_weights(x);
  double slope = 0, steepest = 0, flattest = 0, mean_x = 0, mean_y = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    slope += weights[i] * y[i];
    steepest += weights[i] * (weights[i] > 0 ? least[i] : most[i]);
    flattest += weights[i] * (weights[i] > 0 ? most[i] : least[i]);
    mean_x += x[i] / static_cast<double>(x.size());
    mean_y += y[i] / static_cast<double>(x.size());
  }
  if (!(slope < 0) || !(y.front() - y.back() > std::log(kLeastRanks))) {
    figure.missing = "there are too few eigenvalues between the noise and the bulk's edge";
    return figure;
  }
  double misfit = 0;
  for (std::size_t i = 0; i < x.size(); ++i)
    misfit = std::max(misfit, std::abs(y[i] - mean_y - slope * (x[i] - mean_x)) / std::log(10.0));
  figure.value = -1 / slope;
  if (bounded) {  // s falls as the slope steepens; a band that allows a flat line allows any s
    figure.lower = -1 / steepest;
    figure.upper = flattest < 0 ? -1 / flattest : HUGE_VAL;
    figure.interval = "all curves within the density's band";
  }
  figure.note = "from " + format_number(low) + " to " + format_number(edge) + ", misfit up to " +
                format_number(misfit) + " decades";
  return figure;
}

}  // namespace hesspect
