// Power iteration against spectra that are known, on 1 to 3 ranks.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/core/errors.h"
#include "hesspect/spectrum/eigenvalues.h"
#include "krylov/test_operators.h"

namespace hesspect::power_iteration_test {
namespace {

using testing::RotatedDiagonalOperator;

class PowerIterationTest : public ::testing::Test {
 protected:
  double dot(const at::Tensor& a, const at::Tensor& b) {
    double sum[1] = {dot_product(a, b)};
    world_->all_reduce_sum(std::span<double>(sum));
    return sum[0];
  }
  std::unique_ptr<MpiCommunicator> world_ = MpiCommunicator::world();
};

double entry(std::int64_t i) {
  constexpr double kOutliers[] = {-9, 6, 4, -2.5};
  return i < 4 ? kOutliers[i] : 0.5 * std::cos(static_cast<double>(i));
}

TEST_F(PowerIterationTest, FindsLargestMagnitudesWithTheirVectors) {
  RotatedDiagonalOperator op(*world_, 1003, at::kDouble, entry);
  VectorSource vectors;
  std::int64_t steps = 0;
  const EigenResult result = power_iteration(op, {.count = 4, .rtol = 1e-10, .seed = 3}, &vectors, [&] { ++steps; });
  EXPECT_EQ(result.method, "power");
  EXPECT_TRUE(result.converged);
  EXPECT_EQ(result.steps, op.products);
  EXPECT_EQ(result.steps, steps);
  EXPECT_TRUE(result.top.empty() && result.bottom.empty());
  ASSERT_EQ(result.magnitude.size(), 4U);
  for (std::size_t i = 0; i < 4; ++i) {
    const EigenEstimate& one = result.magnitude[i];
    EXPECT_TRUE(one.converged);
    EXPECT_NEAR(one.value, entry(static_cast<std::int64_t>(i)), 1e-7);
    EXPECT_LE(std::abs(one.value - entry(static_cast<std::int64_t>(i))), one.error + 1e-13);
    const at::Tensor v = vectors(i);
    at::Tensor product = at::empty_like(v);
    op.apply(v, product);
    const at::Tensor off = product - one.value * v;
    EXPECT_NEAR(std::sqrt(dot(off, off)), one.residual, 1e-12);
    EXPECT_EQ(one.residual, one.true_residual);
    for (std::size_t j = 0; j <= i; ++j) EXPECT_NEAR(dot(v, vectors(j)), i == j ? 1 : 0, 1e-12);
  }
}

// The rule compares two iterations, no more: between close eigenvalues it stops early, which is PyHessian's error too.
TEST_F(PowerIterationTest, StopsByTheRulesOwnMeasure) {
  RotatedDiagonalOperator op(*world_, 500, at::kDouble, [](std::int64_t i) {
    return i == 0 ? 1.0 : i == 1 ? 0.999 : 0.1;
  });
  const EigenResult loose = power_iteration(op, {.count = 1, .rtol = 1e-3, .seed = 1});
  EXPECT_TRUE(loose.converged);
  EXPECT_LT(loose.steps, 15);
  EXPECT_NEAR(loose.magnitude[0].value, 1, loose.magnitude[0].error);
  EXPECT_GT(loose.magnitude[0].residual, 1e-5);
}

TEST_F(PowerIterationTest, SpentProductsLeaveTheLastValueUnconverged) {
  RotatedDiagonalOperator op(*world_, 300, at::kDouble, entry);
  const EigenResult result = power_iteration(op, {.count = 4, .rtol = 1e-12, .max_products = 75});
  EXPECT_FALSE(result.converged);
  EXPECT_EQ(result.steps, 75);
  EXPECT_EQ(op.products, 75);
  ASSERT_FALSE(result.magnitude.empty());
  EXPECT_TRUE(result.magnitude.front().converged);
  EXPECT_FALSE(result.magnitude.back().converged);
}

TEST_F(PowerIterationTest, ZeroMatricesAndSmallOnes) {
  RotatedDiagonalOperator zero(*world_, 40, at::kFloat, [](std::int64_t) { return 0.0; });
  const EigenResult nothing = power_iteration(zero, {.count = 2});
  EXPECT_TRUE(nothing.converged);
  ASSERT_EQ(nothing.magnitude.size(), 2U);
  EXPECT_EQ(nothing.magnitude[0].value, 0);
  EXPECT_EQ(nothing.steps, 2);

  RotatedDiagonalOperator small(*world_, 3, at::kDouble,
                                [](std::int64_t i) { return 3.0 - 2.0 * static_cast<double>(i); });
  const EigenResult all = power_iteration(small, {.count = 7, .rtol = 1e-12});
  EXPECT_TRUE(all.exhausted);
  ASSERT_EQ(all.magnitude.size(), 3U);
  EXPECT_NEAR(all.magnitude[0].value, 3, 1e-9);
  EXPECT_NEAR(all.magnitude[0].value + all.magnitude[1].value + all.magnitude[2].value, 3, 1e-9);
}

TEST_F(PowerIterationTest, ProductsThatAreNotFiniteAreTold) {
  RotatedDiagonalOperator op(*world_, 40, at::kDouble,
                             [](std::int64_t i) { return i == 39 ? std::numeric_limits<double>::quiet_NaN() : 1.0; });
  EXPECT_THROW(power_iteration(op, {.count = 1}), NumericalError);
}

}  // namespace
}  // namespace hesspect::power_iteration_test
