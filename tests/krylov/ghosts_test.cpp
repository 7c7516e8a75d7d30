#include "hesspect/krylov/ghosts.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "hesspect/krylov/lanczos.h"
#include "krylov/test_operators.h"

namespace hesspect::ghosts_test {
namespace {

using testing::pattern_vector;
using testing::RotatedDiagonalOperator;

LocalCommunicator local;

Lanczos plain_run(LinearOperator& op, std::int64_t steps) {
  LanczosOptions none;
  none.reorthogonalisation = Reorthogonalisation::kNone;
  Lanczos run(op, pattern_vector(op), none);
  run.extend(op, steps);
  return run;
}

/// Twenty outliers above a bulk in [−0.3, 0.3], two below it.
double planted(std::int64_t i) {
  if (i < 20) return 10 + 1.2 * static_cast<double>(i);
  if (i < 22) return i == 20 ? -5 : -3;
  return 0.3 * std::sin(static_cast<double>(i) * static_cast<double>(i));
}

/// Values listed outside the bulk, each of which must be the only one near its own eigenvalue.
void expect_each_once(const std::vector<RitzPair>& pairs, double tolerance) {
  int found = 0;
  for (std::int64_t i = 0; i < 22; ++i) {
    int near = 0;
    for (const RitzPair& pair : pairs) near += std::abs(pair.value - planted(i)) < 0.5;
    EXPECT_EQ(near, 1) << planted(i);
    for (const RitzPair& pair : pairs)
      if (std::abs(pair.value - planted(i)) < 0.5) {
        EXPECT_NEAR(pair.value, planted(i), tolerance);
        ++found;
      }
  }
  int outside = 0;
  for (const RitzPair& pair : pairs) outside += std::abs(pair.value) > 1;
  EXPECT_EQ(outside, found);  // none anywhere else
}

// At every length the run passes through, ghosts on their way to an eigenvalue included.
TEST(Ghosts, EachPlantedEigenvalueOnceAtEveryLength) {
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    RotatedDiagonalOperator op(local, 20'000, dtype, planted);
    const Lanczos run = plain_run(op, 300);
    const double tolerance = dtype == at::kDouble ? 1e-10 : 3e-5;
    int most = 0;
    for (std::size_t m = 50; m <= 300; m += 3) {
      const auto alpha = std::span(run.t().alpha).first(m), beta = std::span(run.t().beta).first(m);
      SCOPED_TRACE(m);
      const std::vector<RitzPair> pairs = genuine_ritz_pairs(alpha, beta, run.rounding());
      expect_each_once(pairs, tolerance);
      for (std::size_t i = 1; i < pairs.size(); ++i) EXPECT_LT(pairs[i - 1].value, pairs[i].value);
      most = std::max(most, static_cast<int>(m) - static_cast<int>(pairs.size()));
    }
    int outside = 0;
    for (const RitzPair& pair : run.t().ritz_pairs()) outside += std::abs(pair.value) > 1;
    EXPECT_GT(outside, 22 + 36);  // plain T has dozens of copies
    EXPECT_GT(most, 36);
  }
}

TEST(Ghosts, NoneWhereThereAreNone) {  // short and full runs: all Ritz values are genuine, their bounds as they are
  testing::DenseOperator op(local, testing::gaussian_matrix(200, 3));
  Lanczos run(op, pattern_vector(op));
  for (const std::int64_t steps : {1, 2, 37}) {
    run.extend(op, steps);
    const std::vector<RitzPair> all = run.t().ritz_pairs(), genuine = genuine_ritz_pairs(run.t().alpha, run.t().beta);
    ASSERT_EQ(genuine.size(), all.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
      EXPECT_NEAR(genuine[i].value, all[i].value, 1e-13);
      EXPECT_NEAR(genuine[i].residual, all[i].residual, 1e-12);
      EXPECT_NEAR(genuine[i].first, std::abs(all[i].first), 1e-12);
    }
  }
  EXPECT_TRUE(genuine_ritz_pairs({}, {}).empty());
}

// Copies share the weight of their eigenvalue: together they have the quadrature weight of the start vector on it.
TEST(Ghosts, CopiesShareTheWeight) {
  RotatedDiagonalOperator op(local, 2'000, at::kDouble, planted);
  Lanczos exact(op, pattern_vector(op));
  exact.extend(op, 80);
  const Lanczos run = plain_run(op, 300);
  const RitzPair top = genuine_ritz_pairs(run.t().alpha, run.t().beta).back();
  EXPECT_NEAR(top.first, std::abs(exact.t().ritz_pairs().back().first), 1e-9);
  EXPECT_LT(top.residual, 1e-8);
}

}  // namespace
}  // namespace hesspect::ghosts_test
