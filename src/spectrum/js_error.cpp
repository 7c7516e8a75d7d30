#include "hesspect/spectrum/js_error.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numbers>

#include "hesspect/spectrum/analysis_figures.h"
#include "hesspect/spectrum/density.h"
#include "hesspect/spectrum/trace.h"
#include "reduced_probes.h"

namespace hesspect {
namespace {

/// Of a kernel, in standard deviations, and points to a standard deviation: what functions are smoothed by.
constexpr double kKernelReach = 5;
constexpr int kKernelPoints = 4;

/// A priori, the error is that of a function that was itself made of the noisy density: without it 84 to 87 of 100
/// held.
constexpr double kOwnNoise = 1.25;

double at_place(const Density& d, double x) {
  const auto next = std::ranges::upper_bound(d.lambda, x);
  if (next == d.lambda.begin() || next == d.lambda.end()) return 0;
  const auto right = static_cast<std::size_t>(next - d.lambda.begin());
  const double t = (x - d.lambda[right - 1]) / (d.lambda[right] - d.lambda[right - 1]);
  return d.density[right - 1] + t * (d.density[right] - d.density[right - 1]);
}

/// A density, its probes, and its variance where it is known.
class Smoothed {
 public:
  Smoothed(const SampledSpectrum& spectrum, double sigma)
      : density(hesspect::density(spectrum.quadratures, {.sigma = sigma, .n = spectrum.n, .zeros = spectrum.zeros})),
        probes(spectrum.quadratures, spectrum.n),
        sigma_(sigma),
        share_(static_cast<double>(spectrum.n) / static_cast<double>(spectrum.n + spectrum.zeros)) {}

  Density density;
  ReducedProbes probes;

  /// Var p(x) over probes.
  double variance(double x) const {
    if (probes.exact()) return 0;
    if (probes.jackknife()) return std::pow(share_ * spread_at(x), 2);
    double mean = 0, square = 0, rest_sq = 0;
    for (const ReducedProbe& probe : probes.all()) {
      rest_sq += probe.rest * probe.rest / static_cast<double>(probes.count());
      for_each_near(probe, x, [&](double weight, double kernel) {
        const double share = weight / std::max(probe.rest, 1e-300) / static_cast<double>(probes.count());
        mean += share * kernel;
        square += share * kernel * kernel;
      });
    }
    return share_ * share_ * 2 * rest_sq * std::max(0.0, square - mean * mean) / probes.probe_dimensions();
  }

  /// The standard error of f's mean over all dimensions: what the zeros add to it is known.
  double mean_error(const std::function<double(double)>& f) const { return share_ * probes.mean_of(f).standard_error; }

  /// f smoothed by the kernel.
  double smoothed(const std::function<double(double)>& f, double x) const {
    double sum = 0, weights = 0;
    for (int i = -static_cast<int>(kKernelReach * kKernelPoints); i <= kKernelReach * kKernelPoints; ++i) {
      const double u = static_cast<double>(i) / kKernelPoints, weight = std::exp(-u * u / 2);
      sum += weight * f(x + u * sigma_);
      weights += weight;
    }
    return sum / weights;
  }

 private:
  template <class Use>
  void for_each_near(const ReducedProbe& probe, double x, Use&& use, bool exact_too = false) const {
    const auto& node = probe.reduced.node;
    const double reach = 8 * sigma_;
    for (auto k = static_cast<std::size_t>(std::ranges::lower_bound(node, x - reach) - node.begin());
         k < node.size() && node[k] <= x + reach; ++k) {
      if (probe.reduced.exact[k] != 0 && !exact_too) continue;
      const double u = (x - node[k]) / sigma_;
      use(probe.reduced.weight[k], std::exp(-u * u / 2) / (sigma_ * std::sqrt(2 * std::numbers::pi)));
    }
  }
  double spread_at(double x) const {
    std::vector<double> values;
    for (const ReducedProbe& probe : probes.all()) {
      values.push_back(0);
      for_each_near(
          probe, x, [&](double weight, double kernel) { values.back() += weight * kernel; }, true);
    }
    return probes.spread(values);
  }

  double sigma_, share_;
};

/// ½ log₂(2p/(p + q)), whose mean over p's spectrum is what D changes by with p.
double influence(const Density& p, const Density& q, double x) {
  const double here = at_place(p, x), other = at_place(q, x);
  return here > 0 ? std::log2(2 * here / (here + other)) / 2 : 0;
}

/// What the noise of p adds to D, q beside it.
double bias_by(const Smoothed& p, const Density& q) {
  if (p.probes.exact()) return 0;
  const Density& d = p.density;
  double sum = 0;
  for (std::size_t i = 0; i + 1 < d.lambda.size(); ++i) {
    const double here = d.density[i], m = (here + at_place(q, d.lambda[i])) / 2;
    if (!(here > 0)) continue;
    sum += (d.lambda[i + 1] - d.lambda[i]) * p.variance(d.lambda[i]) * (2 / here - 1 / m);
  }
  return sum / (8 * std::numbers::ln2);
}

double quantile_of(const Smoothed& s, double confidence) {
  if (s.probes.exact()) return 0;
  return s.probes.jackknife() ? student_quantile(confidence, s.probes.count() - 1)
                              : kOwnNoise * normal_quantile(confidence);
}

}  // namespace

JsDistances js_distances(std::span<const SampledSpectrum> spectra, double sigma, double confidence) {
  std::vector<std::unique_ptr<Smoothed>> all;
  for (const SampledSpectrum& spectrum : spectra) all.push_back(std::make_unique<Smoothed>(spectrum, sigma));
  const std::size_t count = all.size();
  JsDistances result;
  result.each.assign(count, std::vector<JsDistance>(count));
  double largest_quantile = 0, bias_of_mean = 0;
  std::vector<std::vector<double>> slope(count, std::vector<double>(count, 0.0));  // of the distance in D
  for (std::size_t i = 0; i < count; ++i) {
    result.each[i][i].upper = 0;
    largest_quantile = std::max(largest_quantile, quantile_of(*all[i], confidence));
    for (std::size_t j = 0; j < i; ++j) {
      const Smoothed &a = *all[i], &b = *all[j];
      JsDistance& d = result.each[i][j];
      d.value = js_distance(a.density, b.density);
      double variance = 0;
      for (const auto& [p, q] : {std::pair(&a, &b), std::pair(&b, &a)})
        variance += std::pow(p->mean_error([&, p = p, q = q](double x) {
          return p->smoothed([&](double y) { return influence(p->density, q->density, y); }, x);
        }),
                             2);
      const double divergence = d.value * d.value, bias = bias_by(a, b.density) + bias_by(b, a.density);
      const double quantile = std::max(quantile_of(a, confidence), quantile_of(b, confidence));
      const double width = quantile * std::sqrt(variance);
      // Where the noise makes most of the divergence its own square is no small thing: it is added to the width.
      d.lower = std::sqrt(std::max(0.0, divergence - bias - width));
      d.upper = std::sqrt(std::min(1.0, divergence + width + bias));
      d.standard_error = divergence > 0 ? std::min(std::sqrt(variance) / (2 * d.value), (d.upper - d.lower) / 2) : 0;
      slope[i][j] = slope[j][i] = divergence > bias ? 1 / (2 * d.value) : 0;
      bias_of_mean += d.value - std::sqrt(std::max(0.0, divergence - bias));
      result.mean.value += d.value;
      result.each[j][i] = d;
    }
  }
  if (count < 2) {
    result.mean.upper = 0;
    return result;
  }
  // Pairs share spectra: of each, the sum of its pairs' influences counts.
  const double pairs = static_cast<double>(count * (count - 1) / 2);
  double variance = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const Smoothed& p = *all[i];
    const auto influences = [&](double x) {
      double sum = 0;
      for (std::size_t j = 0; j < count; ++j)
        if (j != i && slope[i][j] > 0) sum += slope[i][j] * influence(p.density, all[j]->density, x);
      return sum / pairs;
    };
    variance += std::pow(p.mean_error([&](double x) { return p.smoothed(influences, x); }), 2);
  }
  result.mean.value /= pairs;
  result.mean.standard_error = std::sqrt(variance);
  const double width = largest_quantile * result.mean.standard_error;
  result.mean.lower = std::max(0.0, result.mean.value - width - bias_of_mean / pairs);
  result.mean.upper = std::min(1.0, result.mean.value + width + bias_of_mean / pairs);
  return result;
}

}  // namespace hesspect
