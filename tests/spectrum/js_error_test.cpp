// Distances between densities that were sampled: their intervals hold the distance of the whole spectra by the same
// kernel.
#include "hesspect/spectrum/js_error.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "hesspect/spectrum/analysis_figures.h"
#include "hesspect/spectrum/density.h"
#include "krylov/test_operators.h"
#include "spectrum/planted.h"
#include "spectrum/run_probe.h"

namespace hesspect::js_error_test {
namespace {

using testing::PlantedSpectrum;

constexpr std::int64_t kDimensions = 600;
constexpr double kSigma = 0.15;

PlantedSpectrum semicircle(double center, double radius) {
  return {"semicircle",
          testing::quantiles(
              kDimensions, center - radius, center + radius,
              [=](double x) { return std::sqrt(std::max(0.0, radius * radius - (x - center) * (x - center))); }),
          {}};
}

std::vector<ProbeQuadrature> sampled(const PlantedSpectrum& spectrum, std::uint64_t seed, std::int64_t probes) {
  LocalCommunicator local;
  testing::RotatedDiagonalOperator op(local, kDimensions, at::kDouble, spectrum.entry());
  std::vector<ProbeQuadrature> all;
  for (std::int64_t p = 0; p < probes; ++p)
    all.push_back(
        run_probe(op, p, {.seed = seed, .distribution = ProbeDistribution::kGaussian, .steps = 40}).quadrature);
  return all;
}

/// As a run that has found all eigenvalues has them.
std::vector<ProbeQuadrature> whole(const PlantedSpectrum& spectrum) {
  ProbeQuadrature q;
  q.alpha = q.ritz = spectrum.values;
  q.beta.assign(spectrum.values.size() - 1, 0.0);
  q.weight.assign(spectrum.values.size(), 1.0 / static_cast<double>(spectrum.values.size()));
  q.breakdown = true;
  return {q};
}

JsDistances distances(const std::vector<std::vector<ProbeQuadrature>>& all, double sigma = kSigma) {
  std::vector<SampledSpectrum> spectra;
  for (const auto& one : all) spectra.push_back({one, kDimensions});
  return js_distances(spectra, sigma, 0.9);
}

/// Seeds for each count: with HESSPECT_LONG=1 four times as many.
int seeds() {
  const char* value = std::getenv("HESSPECT_LONG");
  return value != nullptr && std::strcmp(value, "1") == 0 ? 400 : 100;
}

/// As trained networks have: most eigenvalues within a tenth of zero, a few far out, and some exactly zero.
PlantedSpectrum of_network(double scale, std::vector<double> outliers, std::int64_t zeros) {
  PlantedSpectrum s = testing::bulk_and("network", kDimensions - zeros, outliers);
  s.values.insert(s.values.end(), static_cast<std::size_t>(zeros), 0.0);
  for (double& value : s.values) value *= scale;
  std::ranges::sort(s.values);
  return s;
}

TEST(JsDistances, OfWholeSpectraAreExact) {
  const PlantedSpectrum a = semicircle(0, 1), b = semicircle(0.5, 1.5);
  const JsDistances d = distances({whole(a), whole(b), whole(a)});
  const auto dense = [](const PlantedSpectrum& s) { return density(whole(s), {.sigma = kSigma, .n = kDimensions}); };
  EXPECT_NEAR(d.each[0][1].value, js_distance(dense(a), dense(b)), 1e-12);
  EXPECT_EQ(d.each[0][1].standard_error, 0);
  EXPECT_EQ(d.each[0][1].lower, d.each[0][1].upper);
  EXPECT_NEAR(d.each[0][2].upper, 0, 1e-6);
  EXPECT_NEAR(d.mean.value, 2 * d.each[0][1].value / 3, 1e-12);
  EXPECT_NEAR(d.mean.upper - d.mean.lower, 0, 1e-12);
}

/// At a nominal 90 % in at least 88 of 100 seeds: spectra that are alike, near, and far.
TEST(JsDistances, IntervalsHold) {
  const PlantedSpectrum a = semicircle(0, 1), near = semicircle(0.05, 1.05), far = semicircle(0.7, 0.8);
  const JsDistances truth = distances({whole(a), whole(near), whole(far)});
  for (const std::int64_t probes : {1, 3}) {
    int held[3] = {}, alike = 0, mean = 0;
    double width = 0;
    const int count = seeds();
    for (std::uint64_t seed = 0; seed < static_cast<std::uint64_t>(count); ++seed) {
      const JsDistances d = distances({sampled(a, 4 * seed, probes), sampled(near, 4 * seed + 1, probes),
                                       sampled(far, 4 * seed + 2, probes), sampled(a, 4 * seed + 3, probes)});
      const auto holds = [](const JsDistance& one, double value) { return one.lower <= value && value <= one.upper; };
      held[0] += holds(d.each[0][1], truth.each[0][1].value);
      held[1] += holds(d.each[0][2], truth.each[0][2].value);
      held[2] += holds(d.each[1][2], truth.each[1][2].value);
      alike += holds(d.each[0][3], 0);
      mean += holds(d.mean, (2 * truth.each[0][1].value + 2 * truth.each[0][2].value + truth.each[1][2].value) / 6);
      width += (d.each[0][2].upper - d.each[0][2].lower) / count;
    }
    std::printf("%lld probes: near %d, far %d and %d, alike %d, mean %d of %d; width of the far one %.3g of %.3g\n",
                static_cast<long long>(probes), held[0], held[1], held[2], alike, mean, count, width,
                truth.each[0][2].value);
    for (const int each : held) EXPECT_GE(each, 0.88 * count) << probes << " probes";
    EXPECT_GE(alike, 0.88 * count) << probes << " probes";
    EXPECT_GE(mean, 0.88 * count) << probes << " probes";
  }
}

/// The same of spectra as networks have them, with zeros and outliers, by a kernel as narrow as the bulk.
TEST(JsDistances, IntervalsHoldOfNetworksSpectra) {
  constexpr double kNarrow = 0.03;
  const PlantedSpectrum a = of_network(1, {2, 3, 5}, 60), near = of_network(1.3, {2, 3}, 60),
                        far = of_network(4, {1, 6}, 300);
  const JsDistances truth = distances({whole(a), whole(near), whole(far)}, kNarrow);
  for (const std::int64_t probes : {1, 2, 3}) {
    int held[3] = {}, mean = 0;
    const int count = seeds();
    for (std::uint64_t seed = 0; seed < static_cast<std::uint64_t>(count); ++seed) {
      const JsDistances d = distances(
          {sampled(a, 3 * seed, probes), sampled(near, 3 * seed + 1, probes), sampled(far, 3 * seed + 2, probes)},
          kNarrow);
      const auto holds = [](const JsDistance& one, double value) { return one.lower <= value && value <= one.upper; };
      held[0] += holds(d.each[0][1], truth.each[0][1].value);
      held[1] += holds(d.each[0][2], truth.each[0][2].value);
      held[2] += holds(d.each[1][2], truth.each[1][2].value);
      mean += holds(d.mean, truth.mean.value);
    }
    std::printf("networks, %lld probes: near %d, far %d and %d, mean %d of %d; distances %.3g, %.3g, %.3g\n",
                static_cast<long long>(probes), held[0], held[1], held[2], mean, count, truth.each[0][1].value,
                truth.each[0][2].value, truth.each[1][2].value);
    for (const int each : held) EXPECT_GE(each, 0.88 * count) << probes << " probes";
    EXPECT_GE(mean, 0.88 * count) << probes << " probes";
  }
}

}  // namespace
}  // namespace hesspect::js_error_test
