// Basis vectors stored narrower than the vectors: what it costs in accuracy, on spectra that are known.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "hesspect/core/errors.h"
#include "hesspect/krylov/lanczos.h"
#include "hesspect/krylov/tridiagonal_eigen.h"
#include "krylov/test_operators.h"

namespace hesspect::narrow_basis_test {
namespace {

using testing::DiagonalOperator;
using testing::pattern_vector;
using testing::RotatedDiagonalOperator;

constexpr at::ScalarType kSame = at::ScalarType::Undefined;
constexpr at::ScalarType kBfloat16 = at::ScalarType::BFloat16;
constexpr std::int64_t kOutliers = 10;

LocalCommunicator local;

/// Ten outliers and a bulk.
struct Planted {
  const char* name;
  double (*entry)(std::int64_t i);
  double largest() const { return std::max(entry(0), entry(kOutliers - 1)); }
};
double near_bulk(std::int64_t i) {
  return i < kOutliers ? 10.0 + static_cast<double>(i) : std::cos(static_cast<double>(i));
}
// As networks have it: outliers over two orders of magnitude, a bulk 1e5 times narrower than the largest.
double far_bulk(std::int64_t i) {
  return i < kOutliers ? std::pow(1.6, static_cast<double>(i)) : 1e-3 * std::cos(static_cast<double>(i));
}
double power_law(std::int64_t i) { return 1.0 / (1.0 + static_cast<double>(i)); }
constexpr Planted kSpectra[] = {{"near bulk", near_bulk}, {"far bulk", far_bulk}, {"power law", power_law}};

/// The eigenvectors are axes, where rows' rounding hits them hardest, or spread over all entries.
std::unique_ptr<LinearOperator> planted(const Planted& spectrum, std::int64_t n, at::ScalarType dtype, bool rotated) {
  if (rotated) return std::make_unique<RotatedDiagonalOperator>(local, n, dtype, spectrum.entry);
  return std::make_unique<DiagonalOperator>(local, n, dtype, spectrum.entry);
}

LanczosOptions storing(at::ScalarType storage) {
  LanczosOptions options;
  options.basis.storage = storage;
  return options;
}

/// Ritz values within 1e-3 of an outlier, besides the one that belongs there.
int ghosts(const Lanczos& run, const Planted& spectrum) {
  int count = 0;
  for (const RitzPair& pair : run.t().ritz_pairs())
    for (std::int64_t i = 0; i < kOutliers; ++i)
      count += std::abs(pair.value - spectrum.entry(i)) < 1e-3 * spectrum.entry(i);
  return count - static_cast<int>(kOutliers);
}

/// The largest error of the top Ritz values, taken in order, relative to the largest eigenvalue.
double top_error(const Lanczos& run, const Planted& spectrum) {
  std::vector<double> exact;
  for (std::int64_t i = 0; i < kOutliers; ++i) exact.push_back(spectrum.entry(i));
  std::sort(exact.rbegin(), exact.rend());
  const std::vector<RitzPair> pairs = run.t().ritz_pairs();
  double error = 0;
  for (std::size_t i = 0; i < exact.size(); ++i)
    error = std::max(error, std::abs(pairs[pairs.size() - 1 - i].value - exact[i]));
  return error / spectrum.largest();
}

// Measured: 5e-7 at most. Without re-orthogonalisation 20 to 57 ghosts.
TEST(NarrowBasis, Bfloat16FindsTheOutliersAndNoGhosts) {
  for (const Planted& spectrum : kSpectra)
    for (const auto& [n, dtype] : {std::pair(10'007, at::kDouble), {10'007, at::kFloat}, {100'003, at::kFloat}})
      for (const bool rotated : {false, true}) {
        const auto op = planted(spectrum, n, dtype, rotated);
        Lanczos run(*op, pattern_vector(*op), storing(kBfloat16));
        ASSERT_EQ(run.extend(*op, 80), 80);
        EXPECT_LT(top_error(run, spectrum), 2e-6) << spectrum.name << ", " << n << ", " << dtype << ", " << rotated;
        EXPECT_EQ(ghosts(run, spectrum), 0) << spectrum.name << ", " << n << ", " << dtype << ", " << rotated;
        EXPECT_LT(run.orthogonality_loss(), 8e-3);

        LanczosOptions none;
        none.reorthogonalisation = Reorthogonalisation::kNone;
        Lanczos cheap(*op, pattern_vector(*op), none);
        cheap.extend(*op, 80);
        EXPECT_GT(ghosts(cheap, spectrum), 10);
      }
}

// Two projections against bfloat16 rows left some 1e-5 of the outliers in a vector. With a bulk 1e5 times narrower the
// product brought back more of them than they took away: α and β of the full run were left after some 15 steps, and T
// had Ritz values of 1e5 where the largest eigenvalue is 69.
TEST(NarrowBasis, ABulkFarBelowTheOutliersKeepsItsCoefficients) {
  const auto op = planted(kSpectra[1], 10'007, at::kDouble, true);
  Lanczos exact(*op, pattern_vector(*op)), narrow(*op, pattern_vector(*op), storing(kBfloat16));
  exact.extend(*op, 80);
  narrow.extend(*op, 80);
  for (std::size_t i = 0; i < 80; ++i) {
    const double tolerance = i < 12 ? 1e-4 : 2e-7;  // the outliers are through after twelve steps
    EXPECT_NEAR(narrow.t().alpha[i], exact.t().alpha[i], tolerance);
    EXPECT_NEAR(narrow.t().beta[i], exact.t().beta[i], tolerance);
  }
}

TEST(NarrowBasis, Float32RowsOfFloat64VectorsCostNextToNothing) {
  for (const Planted& spectrum : kSpectra)
    for (const bool rotated : {false, true}) {
      const auto op = planted(spectrum, 10'007, at::kDouble, rotated);
      Lanczos exact(*op, pattern_vector(*op)), narrow(*op, pattern_vector(*op), storing(at::kFloat));
      exact.extend(*op, 60);
      narrow.extend(*op, 60);
      EXPECT_LT(top_error(narrow, spectrum), 1e-13) << spectrum.name;
      for (std::size_t i = 0; i < 60; ++i) {
        EXPECT_NEAR(narrow.t().alpha[i], exact.t().alpha[i], 1e-11 * spectrum.largest()) << i;
        EXPECT_NEAR(narrow.t().beta[i], exact.t().beta[i], 1e-11 * spectrum.largest()) << i;
      }
      EXPECT_LT(narrow.orthogonality_loss(), 2e-7);
      EXPECT_GT(narrow.orthogonality_loss(), 1e-12);  // of the stored rows
    }
}

TEST(NarrowBasis, StorageOfTheVectorsOwnTypeIsTheSameRun) {
  const auto op = planted(kSpectra[0], 5003, at::kFloat, true);
  Lanczos plain(*op, pattern_vector(*op)), named(*op, pattern_vector(*op), storing(at::kFloat));
  LanczosOptions host;
  host.basis.on_host = true;  // where vectors are already
  Lanczos hosted(*op, pattern_vector(*op), host);
  for (Lanczos* run : {&plain, &named, &hosted}) run->extend(*op, 30);
  EXPECT_EQ(named.t().alpha, plain.t().alpha);
  EXPECT_EQ(hosted.t().beta, plain.t().beta);
  EXPECT_EQ(named.basis_bytes(), plain.basis_bytes());
  EXPECT_EQ(hosted.basis_bytes(), plain.basis_bytes());
}

TEST(NarrowBasis, BytesAreThoseOfTheRowsAndTwoVectors) {
  const auto op = planted(kSpectra[0], 5003, at::kDouble, false);
  Lanczos run(*op, pattern_vector(*op), storing(kBfloat16));
  run.extend(*op, 39);
  EXPECT_EQ(run.basis_bytes(), 40 * 5003 * 2 + 2 * 5003 * 8);
}

TEST(NarrowBasis, RitzVectorsAreAsGoodAsTheRows) {
  const auto op = planted(kSpectra[0], 100'003, at::kDouble, true);
  for (const auto& [storage, bound] : {std::pair(kBfloat16, 2e-3), {at::kFloat, 3e-8}}) {
    Lanczos run(*op, pattern_vector(*op), storing(storage));
    run.extend(*op, 60);
    const TridiagonalEigen eigen = tridiagonal_eigen(run.t().alpha, run.t().beta, true);
    const at::Tensor y = run.ritz_vector(std::span(eigen.vectors).subspan(59 * 60, 60));
    at::Tensor residual = at::empty_like(y);
    op->apply(y, residual);
    residual.sub_(y, eigen.values.back());
    EXPECT_LT(std::sqrt(norm_sq(residual) / norm_sq(y)), bound * 19);
    EXPECT_NEAR(norm_sq(y), 1, 2 * bound);
  }
}

TEST(NarrowBasis, ClosedSpacesAreSeen) {
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat})
    for (const at::ScalarType storage : {kBfloat16, at::kFloat}) {
      DiagonalOperator op(local, 20'000, dtype, [](std::int64_t i) { return static_cast<double>(i % 5) - 1; });
      Lanczos run(op, pattern_vector(op), storing(storage));
      for (const int blocks : {1, 2, 3}) {
        EXPECT_EQ(run.extend(op, 100), 5);
        ASSERT_TRUE(run.t().breakdown());
        if (blocks < 3) {
          ASSERT_TRUE(run.restart(pattern_vector(op, blocks)));
        }
      }
      const std::vector<RitzPair> pairs = run.t().ritz_pairs();
      for (std::size_t i = 0; i < 15; ++i)
        EXPECT_NEAR(pairs[i].value, static_cast<double>(i / 3) - 1, storage == kBfloat16 ? 1e-5 : 1e-6);
    }
}

// So few entries don't average the rows' rounding: a space may close unseen, and the run go on where rounding sends it.
TEST(NarrowBasis, AllOfASmallSpace) {
  const std::vector<double> values = {5, 5, 5, 1, 1, -2, -2, -2, 0.5, 7, 0, 0, 0, 3, 3, 3, 3, -1};
  std::vector<double> expected = values;
  std::sort(expected.begin(), expected.end());
  for (const at::ScalarType storage : {kBfloat16, at::kFloat}) {
    testing::DenseOperator op(local, testing::matrix_with_spectrum(values, 5));
    Lanczos run(op, pattern_vector(op), storing(storage));
    run.extend(op, 100);
    at::manual_seed(1);
    while (!run.t().complete()) {
      ASSERT_TRUE(run.t().breakdown());
      ASSERT_TRUE(run.restart(at::randn({18}, at::kDouble)));
      run.extend(op, 100);
    }
    EXPECT_EQ(run.steps(), 18);
    const std::vector<RitzPair> pairs = run.t().ritz_pairs();
    for (std::size_t i = 0; i < 18; ++i)
      EXPECT_NEAR(pairs[i].value, expected[i], storage == kBfloat16 ? 1e-4 : 1e-12) << i;
  }
}

TEST(NarrowBasis, NothingIsLeftOfAVectorInTheSpan) {
  DiagonalOperator op(local, 1000, at::kDouble, [](std::int64_t i) { return static_cast<double>(i % 3); });
  for (const at::ScalarType storage : {kSame, at::kFloat, kBfloat16}) {
    Lanczos run(op, pattern_vector(op), storing(storage));
    EXPECT_EQ(run.extend(op, 20), 3);
    EXPECT_FALSE(run.restart(pattern_vector(op)));
    EXPECT_TRUE(run.restart(pattern_vector(op, 2.0)));
  }
}

TEST(NarrowBasis, UnknownAndWiderStorageIsRefused) {
  const auto op = planted(kSpectra[0], 100, at::kFloat, false);
  for (const at::ScalarType storage : {at::kDouble, at::kHalf, at::kInt})
    EXPECT_THROW(Lanczos(*op, pattern_vector(*op), storing(storage)), UsageError);
}

}  // namespace
}  // namespace hesspect::narrow_basis_test
