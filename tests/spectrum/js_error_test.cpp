// Distances between densities that were sampled: their intervals hold the distance of the whole spectra by the same
// kernel.
#include "hesspect/spectrum/js_error.h"

#include <gtest/gtest.h>

#include <cmath>

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

JsDistances distances(const std::vector<std::vector<ProbeQuadrature>>& all) {
  std::vector<SampledSpectrum> spectra;
  for (const auto& one : all) spectra.push_back({one, kDimensions});
  return js_distances(spectra, kSigma, 0.9);
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
    for (std::uint64_t seed = 0; seed < 100; ++seed) {
      const JsDistances d = distances({sampled(a, 4 * seed, probes), sampled(near, 4 * seed + 1, probes),
                                       sampled(far, 4 * seed + 2, probes), sampled(a, 4 * seed + 3, probes)});
      const auto holds = [](const JsDistance& one, double value) { return one.lower <= value && value <= one.upper; };
      held[0] += holds(d.each[0][1], truth.each[0][1].value);
      held[1] += holds(d.each[0][2], truth.each[0][2].value);
      held[2] += holds(d.each[1][2], truth.each[1][2].value);
      alike += holds(d.each[0][3], 0);
      mean += holds(d.mean, (2 * truth.each[0][1].value + 2 * truth.each[0][2].value + truth.each[1][2].value) / 6);
      width += (d.each[0][2].upper - d.each[0][2].lower) / 100;
    }
    std::printf("%lld probes: near %d, far %d and %d, alike %d, mean %d of 100; width of the far one %.3g of %.3g\n",
                static_cast<long long>(probes), held[0], held[1], held[2], alike, mean, width, truth.each[0][2].value);
    for (const int each : held) EXPECT_GE(each, 88) << probes << " probes";
    EXPECT_GE(alike, 88) << probes << " probes";
    EXPECT_GE(mean, 88) << probes << " probes";
  }
}

}  // namespace
}  // namespace hesspect::js_error_test
