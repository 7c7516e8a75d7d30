// Eigenvalues of planted spectra from many start vectors: right, each once, and as good as they say.
//
// Gaussian start vectors on a rotated diagonal. Stated bounds, of the largest |λ|: 1e-9 in float64, 1e-6 in float32.
// HESSPECT_LONG=1 takes 100 seeds at 10⁶ dimensions too, instead of 1 for some.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <ostream>

#include "hesspect/spectrum/eigenvalues.h"
#include "hesspect/spectrum/probe.h"
#include "krylov/test_operators.h"
#include "spectrum/planted.h"

namespace hesspect::eigen_coverage_test {
namespace {

using testing::PlantedSpectrum;
using testing::RotatedDiagonalOperator;

LocalCommunicator local;
constexpr std::int64_t kSmall = 20'000, kMillion = 1'000'000;

bool long_run() {
  const char* value = std::getenv("HESSPECT_LONG");
  return value != nullptr && std::strcmp(value, "1") == 0;
}

double stated_bound(at::ScalarType dtype) { return dtype == at::kFloat ? 1e-6 : 1e-9; }

/// From the nearest eigenvalue.
double distance(const PlantedSpectrum& spectrum, double value) {
  const auto above = std::lower_bound(spectrum.values.begin(), spectrum.values.end(), value);
  double least = std::numeric_limits<double>::infinity();
  if (above != spectrum.values.end()) least = *above - value;
  if (above != spectrum.values.begin()) least = std::min(least, value - *std::prev(above));
  return least;
}

/// Every value, converged or not, is within its error of an eigenvalue. In float64 the planted operator itself is
/// rounded by some ε of its largest eigenvalue; in float32 errors include the rounding of products.
void expect_errors_hold(const PlantedSpectrum& spectrum, const EigenResult& result) {
  for (const auto* list : {&result.top, &result.bottom, &result.magnitude})
    for (const EigenEstimate& found : *list)
      EXPECT_LE(distance(spectrum, found.value), found.error + 1e-14 * spectrum.scale()) << found.value;
}

/// The largest and smallest, in order and each as often as it is there.
void expect_extremes(const PlantedSpectrum& spectrum, const EigenResult& result, std::size_t top, std::size_t bottom,
                     double tolerance) {
  EXPECT_TRUE(result.converged);
  ASSERT_EQ(result.top.size(), top);
  ASSERT_EQ(result.bottom.size(), bottom);
  for (std::size_t i = 0; i < top; ++i)
    EXPECT_NEAR(result.top[i].value, spectrum.values[spectrum.values.size() - 1 - i], tolerance) << "top " << i;
  for (std::size_t i = 0; i < bottom; ++i)
    EXPECT_NEAR(result.bottom[i].value, spectrum.values[bottom - 1 - i], tolerance) << "bottom " << i;
}

/// Of all Ritz values one and no other is near each simple outlier.
void expect_no_ghosts(const PlantedSpectrum& spectrum, const EigenResult& everything) {
  for (const double value : spectrum.simple_outliers) {
    int near = 0;
    for (const EigenEstimate& found : everything.top) near += std::abs(found.value - value) < 0.4;
    EXPECT_EQ(near, 1) << "outlier " << value;
  }
}

Lanczos start(LinearOperator& op, int seed, Reorthogonalisation reorthogonalisation = Reorthogonalisation::kFull) {
  LanczosOptions options;
  options.reorthogonalisation = reorthogonalisation;
  return Lanczos(op, probe_vector(op, ProbeDistribution::kGaussian, static_cast<std::uint64_t>(seed), 0), options);
}

struct Case {
  const char* name;
  PlantedSpectrum (*make)(std::int64_t n);
  std::size_t bottom = 0;  // asked for beside the ten largest
};
std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

void expect_right(const Case& c, std::int64_t n, at::ScalarType dtype, int first_seed, int seeds) {
  const PlantedSpectrum spectrum = c.make(n);
  RotatedDiagonalOperator op(local, n, dtype, spectrum.entry());
  const double tolerance = stated_bound(dtype) * spectrum.scale();
  for (int seed = first_seed; seed < first_seed + seeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    EigenOptions options;
    options.bottom = static_cast<std::int64_t>(c.bottom);
    options.seed = static_cast<std::uint64_t>(seed);
    Lanczos run = start(op, seed);
    const EigenResult result = eigenvalues(op, run, options);
    expect_extremes(spectrum, result, 10, c.bottom, tolerance);
    expect_errors_hold(spectrum, result);
    options.top = run.t().rows();
    options.bottom = 0;
    const EigenResult everything = eigenvalues_so_far(run, options);
    expect_errors_hold(spectrum, everything);
    expect_no_ghosts(spectrum, everything);
  }
}

/// Spectra whose ends a run of some tens of steps resolves, or whose Krylov spaces close.
class Resolved : public ::testing::TestWithParam<Case> {};

TEST_P(Resolved, Float64) { expect_right(GetParam(), kSmall, at::kDouble, 0, 10); }
TEST_P(Resolved, Float32) { expect_right(GetParam(), kSmall, at::kFloat, 50, 10); }

TEST_P(Resolved, AMillionDimensions) {
  if (!long_run() && GetParam().make != testing::negative_outliers && GetParam().make != testing::multiplicities)
    GTEST_SKIP() << "with HESSPECT_LONG=1";
  expect_right(GetParam(), kMillion, at::kDouble, 100, long_run() ? 100 : 1);
}

INSTANTIATE_TEST_SUITE_P(Planted, Resolved,
                         ::testing::Values(Case{"OutliersAndBulk", testing::outliers_and_bulk},
                                           Case{"NegativeOutliers", testing::negative_outliers, 5},
                                           Case{"LowRank", testing::low_rank}, Case{"PowerLaw", testing::power_law},
                                           Case{"Multiplicities", testing::multiplicities, 2},
                                           Case{"Pairs", testing::pairs}, Case{"AllZeros", testing::all_zeros, 3}),
                         [](const ::testing::TestParamInfo<Case>& c) { return std::string(c.param.name); });

PlantedSpectrum half_marchenko_pastur(std::int64_t n) { return testing::marchenko_pastur(n); }

/// Ends without gaps. At a dimension where they can be resolved within the steps they are; where they can't, errors say
/// so.
class Dense : public ::testing::TestWithParam<Case> {};

TEST_P(Dense, ResolvedWhereStepsSuffice) {
  const std::int64_t n = 600;
  const PlantedSpectrum spectrum = GetParam().make(n);
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    RotatedDiagonalOperator op(local, n, dtype, spectrum.entry());
    for (int seed = 0; seed < 10; ++seed) {
      SCOPED_TRACE(seed);
      Lanczos run = start(op, seed);
      const EigenResult result = eigenvalues(op, run, {.top = 10, .bottom = 10, .max_steps = 500});
      expect_extremes(spectrum, result, 10, 10, stated_bound(dtype) * spectrum.scale());
      expect_errors_hold(spectrum, result);
    }
  }
}

TEST_P(Dense, ErrorsHoldWhereTheyDoNot) {
  const PlantedSpectrum spectrum = GetParam().make(kSmall);
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    RotatedDiagonalOperator op(local, kSmall, dtype, spectrum.entry());
    for (int seed = 0; seed < 10; ++seed) {
      SCOPED_TRACE(seed);
      Lanczos run = start(op, seed);
      const EigenResult result = eigenvalues(op, run, {.top = 10, .bottom = 3, .max_steps = 60});
      EXPECT_FALSE(result.converged);
      EXPECT_EQ(result.steps, 60);
      expect_errors_hold(spectrum, result);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Planted, Dense,
                         ::testing::Values(Case{"MarchenkoPastur", half_marchenko_pastur},
                                           Case{"Semicircle", testing::semicircle}),
                         [](const ::testing::TestParamInfo<Case>& c) { return std::string(c.param.name); });

// A quarter of all values lies within 1e-4 of each of four: a run sees some of each, and says how well.
TEST(Clusters, ErrorsHold) {
  const PlantedSpectrum spectrum = testing::clusters(kSmall);
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    RotatedDiagonalOperator op(local, kSmall, dtype, spectrum.entry());
    for (int seed = 0; seed < 10; ++seed) {
      SCOPED_TRACE(seed);
      Lanczos run = start(op, seed);
      const EigenResult result = eigenvalues(op, run, {.top = 10, .max_steps = 60});
      expect_errors_hold(spectrum, result);
      EXPECT_NEAR(result.top[0].value, spectrum.values.back(), 1e-6 * spectrum.scale());
    }
  }
}

// The bulk keeps the Krylov space from closing, so that one start vector can't tell how many copies there are.
TEST(Copies, BlocksCountThem) {
  const PlantedSpectrum spectrum = testing::bulk_and("copies", kSmall, {-6, -6, 5, 7, 7, 7, 9, 11, 11, 13});
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    RotatedDiagonalOperator op(local, kSmall, dtype, spectrum.entry());
    for (int seed = 0; seed < 10; ++seed) {
      SCOPED_TRACE(seed);
      EigenOptions options;
      options.top = 8;
      options.bottom = 2;
      options.block = 3;
      options.seed = static_cast<std::uint64_t>(seed);
      const EigenResult result = block_eigenvalues(op, options);
      expect_extremes(spectrum, result, 8, 2, stated_bound(dtype) * spectrum.scale());
      expect_errors_hold(spectrum, result);
    }
  }
}

TEST(Magnitudes, OfBothSigns) {
  const PlantedSpectrum spectrum = testing::negative_outliers(kSmall);
  std::vector<double> expected = spectrum.simple_outliers;
  std::sort(expected.begin(), expected.end(), [](double a, double b) { return std::abs(a) > std::abs(b); });
  RotatedDiagonalOperator op(local, kSmall, at::kDouble, spectrum.entry());
  for (int seed = 0; seed < 10; ++seed) {
    Lanczos run = start(op, seed);
    const EigenResult result = eigenvalues(op, run, {.top = 0, .bottom = 0, .magnitude = 13});
    EXPECT_TRUE(result.converged);
    ASSERT_EQ(result.magnitude.size(), 13U);
    for (std::size_t i = 0; i < 13; ++i) EXPECT_NEAR(result.magnitude[i].value, expected[i], 1e-9 * spectrum.scale());
    expect_errors_hold(spectrum, result);
  }
}

// 150 steps find each outlier several times over, as the vectors are no longer orthogonal.
TEST(Ghosts, AreNotReported) {
  for (const auto make : {testing::outliers_and_bulk, testing::negative_outliers})
    for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
      const PlantedSpectrum spectrum = make(kSmall);
      RotatedDiagonalOperator op(local, kSmall, dtype, spectrum.entry());
      int copies = 0;
      for (int seed = 0; seed < 10; ++seed) {
        SCOPED_TRACE(seed);
        Lanczos run = start(op, seed, Reorthogonalisation::kNone);
        run.extend(op, 150);
        for (const RitzPair& pair : run.t().ritz_pairs()) copies += pair.value > 9 && pair.value < 30;
        EigenOptions options;
        options.top = 150;
        const EigenResult everything = eigenvalues_so_far(run, options);
        expect_no_ghosts(spectrum, everything);
        expect_errors_hold(spectrum, everything);
        const EigenResult result = eigenvalues(op, run, {.top = 10});
        expect_extremes(spectrum, result, 10, 0, stated_bound(dtype) * spectrum.scale());
      }
      EXPECT_GT(copies, 150);  // there were ghosts to be left out
    }
}

/// ‖w‖ over that of the start after `steps` of gradient descent on ½ wᵀHw.
double descend(LinearOperator& op, double rate, int steps) {
  at::Tensor w = probe_vector(op, ProbeDistribution::kGaussian, 9, 9), gradient = at::empty_like(w);
  const double before = w.norm().item<double>();
  for (int step = 0; step < steps; ++step) {
    op.apply(w, gradient);
    w.sub_(gradient, rate);
  }
  return w.norm().item<double>() / before;
}

// All eigenvalues are positive, so that only the largest one limits the rate: the edge of stability lies at 2/λmax.
TEST(GradientDescent, ConvergesBelowTheEdgeAndDivergesAbove) {
  const PlantedSpectrum spectrum = testing::marchenko_pastur(2'000);
  RotatedDiagonalOperator op(local, 2'000, at::kDouble, spectrum.entry());
  Lanczos run = start(op, 1);
  const double largest = eigenvalues(op, run, {.top = 1}).top[0].value;
  EXPECT_LT(descend(op, 1.99 / largest, 2000), 1e-6);
  EXPECT_GT(descend(op, 2.01 / largest, 2000), 1e6);
}

}  // namespace
}  // namespace hesspect::eigen_coverage_test
