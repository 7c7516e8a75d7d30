// Means of functions over planted spectra: exact where all eigenvalues are found, and within their bars where not.
#include "hesspect/spectrum/spectral_mean.h"

#include <gtest/gtest.h>

#include <cmath>

#include "hesspect/core/errors.h"
#include "hesspect/spectrum/cumulative.h"
#include "krylov/test_operators.h"
#include "spectrum/planted.h"
#include "spectrum/run_probe.h"

namespace hesspect::spectral_mean_test {
namespace {

using testing::PlantedSpectrum;

LocalCommunicator local;

/// What an effective dimension sums up.
double above(double x, double c) { return x > 0 ? x / (x + c) : 0; }

std::vector<ProbeQuadrature> quadratures_of(const PlantedSpectrum& spectrum, std::uint64_t seed, std::int64_t probes,
                                            std::int64_t steps) {
  testing::RotatedDiagonalOperator op(local, static_cast<std::int64_t>(spectrum.values.size()), at::kDouble,
                                      spectrum.entry());
  std::vector<ProbeQuadrature> all;
  for (std::int64_t p = 0; p < probes; ++p) {
    ProbeOptions options;
    options.seed = seed;
    options.distribution = ProbeDistribution::kGaussian;
    options.steps = steps;
    all.push_back(run_probe(op, p, options).quadrature);
  }
  return all;
}

double truth(const PlantedSpectrum& spectrum, const std::function<double(double)>& f) {
  double sum = 0;
  for (const double value : spectrum.values) sum += f(value);
  return sum / static_cast<double>(spectrum.values.size());
}

TEST(SpectralMean, IsExactWhereAllEigenvaluesAreFound) {
  ProbeQuadrature q;
  q.alpha = q.ritz = {-1, 0.5, 1, 4};
  q.beta = {0, 0, 0};
  q.weight = {0.1, 0.2, 0.3, 0.4};  // not those of the spectrum: it is known by itself
  q.breakdown = true;
  const SpectralMean mean = spectral_mean(std::vector{q}, 4, [](double x) { return above(x, 0.5); });
  EXPECT_NEAR(mean.value, (0.5 / 1 + 1 / 1.5 + 4 / 4.5) / 4, 1e-15);
  EXPECT_EQ(mean.half_width(), 0);
  EXPECT_EQ(mean.products, 4);
}

/// The bound of the quadrature's error for f(λ) = λ is what the cumulative density says of itself.
TEST(SpectralMean, TheBoundOfTheIdentityIsTheWassersteinBound) {
  const PlantedSpectrum spectrum = testing::outliers_and_bulk(2000);
  const auto quadratures = quadratures_of(spectrum, 1, 2, 30);
  const CumulativeDensity density = cumulative_density(quadratures, 2000);
  const SpectralMean mean = spectral_mean(quadratures, 2000, [](double x) { return x; });
  EXPECT_NEAR(mean.quadrature, density.w1_quadrature, 1e-9 * density.w1_quadrature);
  EXPECT_NEAR(mean.value, density.moments[0].value, 1e-14);
}

/// At a nominal 90 % in at least 88 of 100 seeds, for effective dimensions and for the Frobenius norm's halves.
TEST(SpectralMean, TheBarsHold) {
  const std::vector<std::pair<const char*, std::function<double(double)>>> functions = {
      {"c = 0.3", [](double x) { return above(x, 0.3); }},
      {"c = 0.03", [](double x) { return above(x, 0.03); }},
      {"squares above zero", [](double x) { return x > 0 ? x * x : 0; }},
      {"sizes below zero", [](double x) { return x < 0 ? -x : 0; }}};
  for (const auto make : {testing::outliers_and_bulk, testing::negative_outliers, testing::power_law, testing::low_rank,
                          testing::multiplicities, testing::pairs, testing::clusters})
    for (const std::int64_t probes : {1, 3}) {
      const PlantedSpectrum spectrum = make(1000);
      std::vector<int> held(functions.size(), 0);
      std::vector<double> bar(functions.size(), 0), exact;
      for (const auto& [name, f] : functions) exact.push_back(truth(spectrum, f));
      for (std::uint64_t seed = 0; seed < 100; ++seed) {
        const auto quadratures = quadratures_of(spectrum, seed, probes, 24);
        for (std::size_t i = 0; i < functions.size(); ++i) {
          const SpectralMean mean = spectral_mean(quadratures, 1000, functions[i].second);
          held[i] += std::abs(mean.value - exact[i]) <= mean.half_width() + 1e-13;
          bar[i] += mean.half_width() / 100;
        }
      }
      for (std::size_t i = 0; i < functions.size(); ++i) {
        EXPECT_GE(held[i], 88) << spectrum.name << ", " << probes << " probes, " << functions[i].first;
        if (i < 2) {
          EXPECT_LT(bar[i], 0.25) << spectrum.name << ", " << probes << " probes, " << functions[i].first;
        }
      }
    }
}

TEST(SpectralMean, NeedsAProbe) {
  EXPECT_THROW(spectral_mean({}, 10, [](double x) { return x; }), UsageError);
}

}  // namespace
}  // namespace hesspect::spectral_mean_test
