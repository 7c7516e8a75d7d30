// Linear regression with a random design: the Hessian's spectrum is known from random matrix theory, not from a solver.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "hesspect/spectrum/cumulative.h"
#include "hesspect/spectrum/probe.h"
#include "krylov/test_operators.h"
#include "spectrum/planted.h"
#include "spectrum/run_probe.h"

namespace hesspect::linear_regression_test {
namespace {

LocalCommunicator local;

/// Hessian of least squares with a Gaussian design X [N, n]: XᵀX / N.
at::Tensor regression_hessian(std::int64_t data, std::int64_t n, std::uint64_t seed) {
  at::manual_seed(seed);
  const at::Tensor x = at::randn({data, n}, at::kDouble);
  return at::mm(x.t(), x) / static_cast<double>(data);
}

std::vector<ProbeQuadrature> probes_of(LinearOperator& op, std::int64_t probes, std::int64_t steps) {
  std::vector<ProbeQuadrature> all;
  for (std::int64_t p = 0; p < probes; ++p) all.push_back(run_probe(op, p, {.seed = 3, .steps = steps}).quadrature);
  return all;
}

// Marchenko & Pastur 1967: edges (1 ± √r)², r = n/N, moments Σ_j N(k, j) r^(j−1), N the Narayana numbers.
TEST(LinearRegression, EdgesAndMomentsOfMarchenkoPastur) {
  const std::int64_t data = 1600, n = 400;
  const double r = static_cast<double>(n) / static_cast<double>(data);
  testing::DenseOperator op(local, regression_hessian(data, n, 1));
  const CumulativeDensity d = cumulative_density(probes_of(op, 6, 60), n);
  // Edges fluctuate as N^(−2/3) (Tracy & Widom).
  EXPECT_NEAR(d.range_lo, std::pow(1 - std::sqrt(r), 2), 0.03);
  EXPECT_NEAR(d.range_hi, std::pow(1 + std::sqrt(r), 2), 0.06);
  const double expected[] = {1, 1 + r, 1 + 3 * r + r * r, 1 + 6 * r + 6 * r * r + r * r * r};
  for (std::size_t k = 0; k < 4; ++k) {
    // The matrix is one of many: its own moments stray from their limits by some k/√(N n).
    const double own = 2 * static_cast<double>(k + 1) * expected[k] / std::sqrt(static_cast<double>(data * n));
    EXPECT_NEAR(d.moments[k].value, expected[k], 4 * d.moments[k].standard_error + own) << "moment " << k + 1;
    EXPECT_LT(d.moments[k].standard_error, 0.1 * expected[k]);
  }
  EXPECT_EQ(d.weight_at_zero.value, 0);
  EXPECT_EQ(d.negative_mass.value, 0);
  EXPECT_LT(testing::wasserstein(testing::marchenko_pastur(n, r).values, d.lambda, d.cumulative), d.w1);
}

TEST(LinearRegression, OverParameterisedHasZerosForTheRest) {
  const std::int64_t data = 200, n = 600;
  testing::DenseOperator op(local, regression_hessian(data, n, 2));
  for (const std::int64_t probes : {1, 6}) {
    const CumulativeDensity d = cumulative_density(probes_of(op, probes, 80), n);
    EXPECT_NEAR(d.weight_at_zero.value, 1 - static_cast<double>(data) / static_cast<double>(n),
                3 * d.weight_at_zero.standard_error);
    EXPECT_LT(d.weight_at_zero.standard_error, probes == 1 ? 0.04 : 0.025);
    EXPECT_NEAR(d.negative_mass.value, 0, 1e-10);
    // Of the others' Marchenko–Pastur law with N and n exchanged, n/N (1 ± √(N/n))², the lower edge stays clear of 0.
    const double gap = 3 * std::pow(1 - std::sqrt(1.0 / 3), 2);
    for (std::size_t i = 0; i < d.lambda.size(); ++i)
      EXPECT_TRUE(std::abs(d.lambda[i]) <= d.zero_width || d.lambda[i] > 0.8 * gap) << d.lambda[i];
  }
}

}  // namespace
}  // namespace hesspect::linear_regression_test
