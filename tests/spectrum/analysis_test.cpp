// The analysis of one operator against dense matrices whose spectrum is known, and the figures that compare blocks
// against closed forms and a plain numerical integral.
#include "hesspect/spectrum/analysis.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "hesspect/comm/mpi_communicator.h"
#include "krylov/test_operators.h"

namespace hesspect::analysis_test {
namespace {

/// Outliers of both signs over a bulk.
std::vector<double> spectrum(std::int64_t n) {
  std::vector<double> values;
  for (std::int64_t i = 0; i < n; ++i)
    values.push_back(i < 6 ? 20.0 - 7 * static_cast<double>(i) : std::cos(static_cast<double>(i)) * 0.5);
  return values;
}

AnalysisOptions options(std::int64_t products) {
  AnalysisOptions o;
  o.eigen.top = 3;
  o.eigen.bottom = 2;
  o.eigen.rtol = 1e-8;
  o.steps = 40;
  o.rule.rtol = 0.02;
  o.max_products = products;
  o.seed = 7;
  return o;
}

double sum(const std::vector<double>& values, int power) {
  double all = 0;
  for (const double value : values) all += std::pow(value, power);
  return all;
}

TEST(Analysis, OfAMatrixThatIsTooLargeToBeFoundWhole) {
  auto world = MpiCommunicator::world();
  std::vector<double> values = spectrum(300);
  testing::DenseOperator op(*world, testing::matrix_with_spectrum(values, 3));
  std::int64_t calls = 0;
  const Analysis a = analyse(op, options(120), [&] { ++calls; });
  EXPECT_FALSE(a.all_found);
  EXPECT_EQ(a.products, calls);
  EXPECT_LE(a.products, 120);
  std::sort(values.rbegin(), values.rend());
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(a.eigenvalues->top[i].value, values[i], 1e-7);
  EXPECT_NEAR(a.eigenvalues->bottom[1].value, values.back(), 1e-7);
  EXPECT_TRUE(a.eigenvalues->converged);
  EXPECT_LT(a.eigenvalues->top[0].true_residual, 1e-6);
  EXPECT_GE(a.samples.size(), static_cast<std::size_t>(kNormSamples));
  const TraceEstimate trace = trace_of(a, 300, options(120).rule, 0);
  EXPECT_NEAR(trace.value, sum(values, 1), 2 * trace.half_width);
  EXPECT_LT(trace.half_width, 0.2 * std::abs(trace.value));
  const Estimate norm = norm_sq_of(a, 300);
  EXPECT_NEAR(norm.value, sum(values, 2), 5 * norm.standard_error);
  EXPECT_LT(norm.standard_error, 0.02 * norm.value);  // outliers are known, not sampled
  EXPECT_GT(norm.standard_error, 0);
}

TEST(Analysis, OfASmallMatrixIsExact) {
  auto world = MpiCommunicator::world();
  std::vector<double> values = spectrum(50);
  for (std::size_t i = 30; i < 50; ++i) values[i] = 0;  // a null space, which a single vector sees once
  testing::DenseOperator op(*world, testing::matrix_with_spectrum(values, 3));
  const Analysis a = analyse(op, options(120));
  EXPECT_TRUE(a.all_found);
  EXPECT_TRUE(a.samples.empty());
  EXPECT_NEAR(trace_of(a, 50, {}, 0).value, sum(values, 1), 1e-10);
  EXPECT_EQ(trace_of(a, 50, {}, 0).standard_error, 0);
  EXPECT_NEAR(norm_sq_of(a, 50).value, sum(values, 2), 1e-9);
  EXPECT_EQ(norm_sq_of(a, 50).standard_error, 0);
}

TEST(Analysis, OfAMatrixThatIsZero) {
  auto world = MpiCommunicator::world();
  testing::DenseOperator op(*world, at::zeros({40, 40}, at::kDouble));
  const Analysis a = analyse(op, options(100));
  EXPECT_TRUE(a.all_found);
  EXPECT_EQ(trace_of(a, 40, {}, 0).value, 0);
  EXPECT_EQ(norm_sq_of(a, 40).value, 0);
  EXPECT_EQ(a.eigenvalues->top.at(0).value, 0);
}

// The interval's coverage over seeds: nominal 90 %.
TEST(Analysis, NormsAreWithinTheirErrors) {
  auto world = MpiCommunicator::world();
  const std::vector<double> values = spectrum(200);
  testing::DenseOperator op(*world, testing::matrix_with_spectrum(values, 3));
  AnalysisOptions o = options(30);
  o.eigenvalues = false;
  o.steps = 20;
  o.rule.rtol = 0;
  o.rule.min_samples = 10;
  int inside = 0;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    o.seed = seed;
    const Estimate norm = norm_sq_of(analyse(op, o), 200);
    inside += std::abs(norm.value - sum(values, 2)) <= student_quantile(0.9, 9) * norm.standard_error;
  }
  EXPECT_GE(inside, 83);  // 2.3 standard deviations of a share of 90 in 100
}

TEST(OffBlockShare, IsWhatBlocksLeave) {
  const Estimate share = off_block_share({10, 0.5}, {{4, 0.3}, {2, 0.4}});
  EXPECT_DOUBLE_EQ(share.value, 0.4);
  EXPECT_DOUBLE_EQ(share.standard_error, std::sqrt(0.25 + 0.36 * 0.25) / 10);
  EXPECT_EQ(off_block_share({6, 0}, {{4, 0}, {2, 0}}).value, 0);
}

Density gaussian(double mean, double sigma) {
  Density d;
  for (double x = mean - 8 * sigma; x <= mean + 8 * sigma; x += sigma / 16) {
    d.lambda.push_back(x);
    d.density.push_back(std::exp(-0.5 * std::pow((x - mean) / sigma, 2)) / (sigma * std::sqrt(2 * std::numbers::pi)));
  }
  return d;
}

/// By the midpoint rule on the functions themselves.
double distance_of_gaussians(double mean_a, double sigma_a, double mean_b, double sigma_b) {
  const auto p = [](double x, double mean, double sigma) {
    return std::exp(-0.5 * std::pow((x - mean) / sigma, 2)) / (sigma * std::sqrt(2 * std::numbers::pi));
  };
  double divergence = 0;
  const double step = std::min(sigma_a, sigma_b) / 500;
  for (double x = -12; x < 12; x += step) {
    const double a = p(x, mean_a, sigma_a), b = p(x, mean_b, sigma_b);
    if (a > 0) divergence += step * a * std::log2(2 * a / (a + b)) / 2;
    if (b > 0) divergence += step * b * std::log2(2 * b / (a + b)) / 2;
  }
  return std::sqrt(divergence);
}

TEST(JensenShannonDistance, OfGaussians) {
  EXPECT_NEAR(js_distance(gaussian(0, 1), gaussian(0, 1)), 0, 1e-6);
  EXPECT_NEAR(js_distance(gaussian(0, 0.1), gaussian(5, 0.1)), 1, 1e-3);
  for (const auto& [mean, sigma] : {std::pair(1.0, 1.0), {0.0, 0.2}, {2.0, 0.5}}) {
    const double expected = distance_of_gaussians(0, 1, mean, sigma);
    EXPECT_NEAR(js_distance(gaussian(0, 1), gaussian(mean, sigma)), expected, 2e-3) << mean << " " << sigma;
    EXPECT_NEAR(js_distance(gaussian(mean, sigma), gaussian(0, 1)), expected, 2e-3) << mean << " " << sigma;
  }
}

}  // namespace
}  // namespace hesspect::analysis_test
