#include "hesspect/spectrum/trace.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "hesspect/spectrum/probe.h"
#include "krylov/test_operators.h"
#include "spectrum/samples_needed.h"

namespace hesspect::trace_test {
namespace {

std::int64_t samples_forecast(double captured, const std::vector<DeflatedSample>& samples, const TraceRule& rule) {
  TraceSums sums;
  for (const DeflatedSample& sample : samples) sums.add(sample);
  return sums.forecast(captured, rule);
}

/// Samples of a normal distribution; norm_sq is what the bound 2‖B‖² of the variance makes of it.
std::vector<DeflatedSample> normal_samples(std::int64_t count, double mean, double sigma, double bound,
                                           std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal(mean, sigma);
  std::vector<DeflatedSample> samples;
  for (std::int64_t i = 0; i < count; ++i) samples.push_back({i, normal(random), bound * bound / 2, {}});
  return samples;
}

TEST(Quantiles, OfTables) {  // Abramowitz & Stegun, tables 26.1 and 26.10
  EXPECT_NEAR(normal_quantile(0.9), 1.6448536, 1e-6);
  EXPECT_NEAR(normal_quantile(0.95), 1.9599640, 1e-6);
  EXPECT_NEAR(student_quantile(0.9, 1), 6.3137515, 1e-6);
  EXPECT_NEAR(student_quantile(0.95, 9), 2.2621572, 1e-6);
}

TEST(TraceEstimate, MeanAndWidth) {
  const std::vector<DeflatedSample> two{{0, 3, 8, {}}, {1, 5, 8, {}}};
  const TraceEstimate trace = trace_estimate(100, two, {0.1, 0.9, 2});
  EXPECT_DOUBLE_EQ(trace.value, 104);
  EXPECT_DOUBLE_EQ(trace.standard_error, std::sqrt(8.0));  // √(2 · 8 / 2)
  EXPECT_NEAR(trace.half_width, 1.25 * 1.6448536 * std::sqrt(8.0), 1e-5);
  EXPECT_TRUE(trace.converged);
  EXPECT_FALSE(trace_estimate(100, two, {0.01, 0.9, 2}).converged);
  EXPECT_TRUE(trace_estimate(100, two, {0, 0.9, 2}).converged);  // nothing is asked
  EXPECT_TRUE(std::isnan(trace_estimate(100, {}, {0.1}).half_width));
}

TEST(TraceEstimate, TheSamplesOwnSpreadWhereItIsSmaller) {
  const auto samples = normal_samples(400, 0, 1, 10, 5);
  const TraceEstimate trace = trace_estimate(0, samples, {});
  EXPECT_NEAR(trace.standard_error, 1 / 20.0, 0.01);
  EXPECT_NEAR(trace_estimate(0, std::span(samples).first(5), {}).standard_error, 10 / std::sqrt(5.0), 1e-12);
}

/// Stopping when the interval is narrow enough leaves it as true as it says, whether or not the variance's bound is
/// sharp.
TEST(TraceRule, IntervalsHoldAtTheStop) {
  for (const double bound : {1.0, 1.3, 4.0})
    for (const double rtol : {0.2, 0.05}) {
      const double mean = 4;
      int held = 0;
      constexpr int kTrials = 1000;
      for (int trial = 0; trial < kTrials; ++trial) {
        const auto samples = normal_samples(1200, mean, 1, bound, 77 + static_cast<std::uint64_t>(trial));
        const std::int64_t count = testing::samples_needed(0, samples, {rtol, 0.9, 2});
        ASSERT_GT(count, 0);
        const TraceEstimate trace = trace_estimate(0, std::span(samples).first(static_cast<std::size_t>(count)), {});
        EXPECT_LE(trace.half_width, rtol * std::abs(trace.value));
        held += std::abs(trace.value - mean) <= trace.half_width;
      }
      EXPECT_GE(held, 0.9 * kTrials) << bound << ' ' << rtol;
      EXPECT_LE(held, 0.995 * kTrials) << bound << ' ' << rtol;  // nor much wider than it need be
    }
}

TEST(TraceRule, ForecastOfSamples) {
  const auto samples = normal_samples(50, 4, 1, 1, 9);
  const TraceRule rule{0.01, 0.9, 2};
  EXPECT_EQ(testing::samples_needed(0, samples, rule), 0);
  const double needed = std::pow(1.25 * 1.645 / (0.01 * 4), 2);
  EXPECT_NEAR(static_cast<double>(samples_forecast(0, samples, rule)), needed, 0.4 * needed);
  EXPECT_EQ(samples_forecast(0, std::vector<DeflatedSample>{}, rule), 2);
  EXPECT_GT(samples_forecast(-4, samples, rule), 100000);  // a trace of about zero has no relative width
}

/// Of a spectrum whose sum is zero no relative accuracy is ever reached: there the rule is relative to the floor.
TEST(TraceRule, EndsAtATraceOfZero) {
  constexpr int kTrials = 500;
  int held = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    const auto samples = normal_samples(1200, 0, 1, 1.3, 5000 + static_cast<std::uint64_t>(trial));
    EXPECT_EQ(testing::samples_needed(0, samples, {0.02, 0.9, 2}), 0);
    const TraceRule rule{.rtol = 0.02, .confidence = 0.9, .min_samples = 2, .floor = 5};
    const std::int64_t count = testing::samples_needed(0, samples, rule);
    ASSERT_GT(count, 0);
    const TraceEstimate trace = trace_estimate(0, std::span(samples).first(static_cast<std::size_t>(count)), rule);
    EXPECT_TRUE(trace.converged);
    EXPECT_LE(trace.half_width, 0.02 * 5);
    held += std::abs(trace.value) <= trace.half_width;
  }
  EXPECT_GE(held, 0.9 * kTrials);
  EXPECT_LE(held, 0.995 * kTrials);
  // The forecast knows of it too; and where the trace is larger, nothing changes.
  const auto samples = normal_samples(50, 0, 1, 1, 9);
  EXPECT_LT(samples_forecast(0, samples, {.rtol = 0.02, .floor = 5}), 2 * 1.25 * 1.25 * 1.645 * 1.645 / 0.01);
  const auto ordinary = normal_samples(400, 10, 1, 1.3, 11);
  EXPECT_EQ(testing::samples_needed(0, ordinary, {.rtol = 0.02, .floor = 5}),
            testing::samples_needed(0, ordinary, {.rtol = 0.02}));
}

TEST(TraceFloor, IsAHundredthOfTheMagnitudesSum) {
  LocalCommunicator local;
  // ±3 and ±0.5, in equal parts: the trace is zero.
  constexpr std::int64_t n = 4000;
  const auto pairs = [](std::int64_t i) { return (i % 2 == 0 ? 1 : -1) * (i % 4 < 2 ? 3 : 0.5); };
  testing::RotatedDiagonalOperator op(local, n, at::kDouble, pairs);
  Lanczos run(op, probe_vector(op, ProbeDistribution::kGaussian, 1, 0));
  run.extend(op, 20);
  EXPECT_NEAR(trace_floor(quadrature_of(run.t(), 0), n), 0.01 * n * 1.75, 0.01 * n * 1.75 * 0.1);

  testing::RotatedDiagonalOperator zero(local, n, at::kDouble, [](std::int64_t) { return 0.0; });
  Lanczos none(zero, probe_vector(zero, ProbeDistribution::kGaussian, 1, 0));
  none.extend(zero, 20);
  EXPECT_EQ(trace_floor(quadrature_of(none.t(), 0), n), 0);
  EXPECT_GT(testing::samples_needed(0, std::vector<DeflatedSample>{{0, 0, 0, {}}, {1, 0, 0, {}}}, {.rtol = 0.02}), 0);
}

TEST(LayerEstimates, MeansAndErrors) {
  std::vector<DeflatedSample> samples;
  for (const double x : {1.0, 2.0, 6.0}) samples.push_back({0, 0, 0, {x, 10 * x}});
  const std::vector<std::int64_t> sizes{4, 5};
  const std::vector<double> captured{100, 200};
  const auto layers = layer_estimates({"a", "b"}, sizes, captured, samples);
  ASSERT_EQ(layers.size(), 2U);
  EXPECT_EQ(layers[1].name, "b");
  EXPECT_DOUBLE_EQ(layers[0].trace.value, 103);
  EXPECT_DOUBLE_EQ(layers[1].trace.value, 230);
  EXPECT_DOUBLE_EQ(layers[0].trace.standard_error, std::sqrt(7.0 / 3));  // sample variance 7
  EXPECT_DOUBLE_EQ(layers[0].mean().value, 103.0 / 4);
  EXPECT_TRUE(
      std::isnan(layer_estimates({"a", "b"}, sizes, captured, std::span(samples).first(1))[0].trace.standard_error));
}

}  // namespace
}  // namespace hesspect::trace_test
