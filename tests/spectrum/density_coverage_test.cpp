// Whether the bars of the cumulative density hold: at a nominal 90 % in at least 44 of 50 seeds, on planted spectra.
//
// Gaussian start vectors on a rotated diagonal: the components on the eigenvectors are those of a vector that knows
// nothing of them. (Rademacher ones would be ±1/√n on each, nearly, and the sampling error nearly nothing.)
// HESSPECT_LONG=1 takes 100 seeds, and at 10⁶ dimensions too instead of 1 for some.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <ostream>

#include "hesspect/spectrum/cumulative.h"
#include "hesspect/spectrum/probe.h"
#include "krylov/test_operators.h"
#include "spectrum/planted.h"
#include "spectrum/run_probe.h"

namespace hesspect::density_coverage_test {
namespace {

using testing::PlantedSpectrum;

LocalCommunicator local;

bool long_run() {
  const char* value = std::getenv("HESSPECT_LONG");
  return value != nullptr && std::strcmp(value, "1") == 0;
}

const int kSeeds = long_run() ? 100 : 50;
/// Of them at least. Bars that held in 80 % would pass with one in ten spectra of 50 seeds (one in 170 of 100), and so
/// with all ten never.
const int kHeld = long_run() ? 90 : 44;
/// Student's band is no wider than it must be: nine tenths on average, where quadrature adds nothing.
const int kStudentHeld = long_run() ? 88 : 43;

struct Case {
  const char* name;
  PlantedSpectrum (*make)(std::int64_t n);
};
std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

/// How often the bars held, and how wide they were.
struct Tally {
  int runs = 0, w1_held = 0;
  double w1 = 0, bar = 0, sampling = 0, points = 0;  // sums
  std::vector<int> band_held = std::vector<int>(5, 0);
};

void expect_no_ghosts(const PlantedSpectrum& spectrum, const ProbeQuadrature& quadrature) {
  for (const double value : spectrum.simple_outliers) {
    int near = 0;
    for (const double theta : quadrature.ritz) near += std::abs(theta - value) < 1e-3;
    EXPECT_EQ(near, 1) << value;
  }
}

/// The band is looked at a little right of the first, third, … ninth decile: beside clusters and multiple eigenvalues.
void add(Tally& tally, const PlantedSpectrum& spectrum, const CumulativeDensity& density) {
  const double w1 = testing::wasserstein(spectrum.values, density.lambda, density.cumulative);
  // What rounding makes of values that are found exactly.
  tally.w1_held += w1 <= density.w1 + 1e-13 * spectrum.scale();
  tally.w1 += w1;
  tally.bar += density.w1;
  tally.sampling += density.w1_sampling;
  tally.points += density.exact_points;
  ++tally.runs;
  for (std::size_t j = 0; j < tally.band_held.size(); ++j) {
    const std::size_t i = (2 * j + 1) * spectrum.values.size() / 10;
    const double x = spectrum.values[i] + 1e-3 * spectrum.scale();
    const auto k = std::upper_bound(density.lambda.begin(), density.lambda.end(), x) - density.lambda.begin() - 1;
    const double truth = testing::share_up_to(spectrum.values, x);
    const double lower = k < 0 ? 0 : density.lower[static_cast<std::size_t>(k)];
    const double upper = k < 0 ? density.upper[0] : density.upper[static_cast<std::size_t>(k)];
    tally.band_held[j] += truth >= lower - 1e-12 && truth <= upper + 1e-12;
  }
}

Tally tally_of(const PlantedSpectrum& spectrum, int seeds, std::int64_t probes, std::int64_t steps) {
  const auto n = static_cast<std::int64_t>(spectrum.values.size());
  testing::RotatedDiagonalOperator op(local, n, at::kDouble, spectrum.entry());
  Tally tally;
  for (int seed = 0; seed < seeds; ++seed) {
    std::vector<ProbeQuadrature> quadratures;
    for (std::int64_t p = 0; p < probes; ++p) {
      ProbeOptions options;
      options.seed = static_cast<std::uint64_t>(seed);
      options.distribution = ProbeDistribution::kGaussian;
      options.steps = steps;
      quadratures.push_back(run_probe(op, p, options).quadrature);
      expect_no_ghosts(spectrum, quadratures.back());
    }
    add(tally, spectrum, cumulative_density(quadratures, n));
  }
  const double runs = tally.runs;
  std::printf("%s, n = %lld, %lld probes: W1 held in %d of %d, mean %.2e, bar %.2e (sampling %.2e), %.1f points; band",
              spectrum.name.c_str(), static_cast<long long>(n), static_cast<long long>(probes), tally.w1_held,
              tally.runs, tally.w1 / runs, tally.bar / runs, tally.sampling / runs, tally.points / runs);
  for (const int held : tally.band_held) std::printf(" %d", held);
  std::printf("\n");
  return tally;
}

class Coverage : public ::testing::TestWithParam<Case> {};

TEST_P(Coverage, OneProbe) {
  const Tally tally = tally_of(GetParam().make(20'000), kSeeds, 1, 40);
  EXPECT_GE(tally.w1_held, kHeld);
  for (const int held : tally.band_held) EXPECT_GE(held, kHeld);
}

TEST_P(Coverage, ThreeProbes) {
  const Tally tally = tally_of(GetParam().make(4'000), kSeeds, 3, 40);
  EXPECT_GE(tally.w1_held, kHeld);
  for (const int held : tally.band_held) EXPECT_GE(held, kStudentHeld);
}

TEST_P(Coverage, AMillionDimensions) {
  if (!long_run() && GetParam().make != testing::negative_outliers && GetParam().make != testing::multiplicities)
    GTEST_SKIP() << "with HESSPECT_LONG=1";
  const int seeds = long_run() ? kSeeds : 1;
  const Tally tally = tally_of(GetParam().make(1'000'000), seeds, 1, 24);
  EXPECT_GE(tally.w1_held, (seeds * 9 + 9) / 10);
}

INSTANTIATE_TEST_SUITE_P(Planted, Coverage,
                         ::testing::Values(Case{"OutliersAndBulk", testing::outliers_and_bulk},
                                           Case{"NegativeOutliers", testing::negative_outliers},
                                           Case{"LowRank", testing::low_rank}, Case{"PowerLaw", testing::power_law},
                                           Case{"MarchenkoPastur",
                                                [](std::int64_t n) { return testing::marchenko_pastur(n); }},
                                           Case{"Semicircle", testing::semicircle}, Case{"Clusters", testing::clusters},
                                           Case{"Multiplicities", testing::multiplicities},
                                           Case{"Pairs", testing::pairs}, Case{"AllZeros", testing::all_zeros}),
                         [](const ::testing::TestParamInfo<Case>& c) { return std::string(c.param.name); });

}  // namespace
}  // namespace hesspect::density_coverage_test
