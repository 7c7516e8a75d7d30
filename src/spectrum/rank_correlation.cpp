#include "hesspect/spectrum/rank_correlation.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "hesspect/spectrum/trace.h"

namespace hesspect {
namespace {

std::vector<double> ranks_of(const std::vector<double>& values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return values[i]; });
  std::vector<double> ranks(values.size());
  for (std::size_t first = 0; first < order.size();) {
    std::size_t last = first;
    while (last < order.size() && values[order[last]] == values[order[first]]) ++last;
    for (std::size_t i = first; i < last; ++i) ranks[order[i]] = static_cast<double>(first + last - 1) / 2;
    first = last;
  }
  return ranks;
}

/// NaN where one of both has no spread.
double correlation(const std::vector<double>& x, const std::vector<double>& y) {
  const auto n = static_cast<double>(x.size());
  const double mx = std::accumulate(x.begin(), x.end(), 0.0) / n, my = std::accumulate(y.begin(), y.end(), 0.0) / n;
  double xy = 0, xx = 0, yy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - mx) * (y[i] - my);
    xx += (x[i] - mx) * (x[i] - mx);
    yy += (y[i] - my) * (y[i] - my);
  }
  return xx > 0 && yy > 0 ? std::clamp(xy / std::sqrt(xx * yy), -1.0, 1.0) : RankCorrelation::kUnknown;
}

/// @param lost  degrees of freedom beside the usual three
RankCorrelation with_interval(double value, std::int64_t count, std::int64_t lost, double confidence) {
  RankCorrelation r;
  r.count = count;
  if (count < kLeastPairs || !std::isfinite(value)) return r;
  r.value = value;
  const double variance = (1 + value * value / 2) / static_cast<double>(count - 3 - lost);
  const double half = normal_quantile(confidence) * std::sqrt(variance);
  // A perfect order says no more than one half a step below it, a step being two neighbours that change places.
  const auto n = static_cast<double>(count);
  const double most = 1 - 6 / (n * (n * n - 1));
  const double z = std::atanh(std::clamp(value, -most, most));
  r.lower = std::min(value, std::tanh(z - half));
  r.upper = std::max(value, std::tanh(z + half));
  return r;
}

}  // namespace

RankCorrelation spearman(const std::vector<double>& x, const std::vector<double>& y, double confidence) {
  return with_interval(correlation(ranks_of(x), ranks_of(y)), std::ssize(x), 0, confidence);
}

RankCorrelation partial_spearman(const std::vector<double>& x, const std::vector<double>& y,
                                 const std::vector<double>& z, double confidence) {
  const std::vector<double> rx = ranks_of(x), ry = ranks_of(y), rz = ranks_of(z);
  const double xy = correlation(rx, ry), xz = correlation(rx, rz), yz = correlation(ry, rz);
  const double left = (1 - xz * xz) * (1 - yz * yz);
  const double value =
      left > 1e-12 ? std::clamp((xy - xz * yz) / std::sqrt(left), -1.0, 1.0) : RankCorrelation::kUnknown;
  return with_interval(value, std::ssize(x), 1, confidence);
}

}  // namespace hesspect
