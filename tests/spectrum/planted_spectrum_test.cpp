// A planted spectrum of 10⁶ dimensions: ten outliers over a narrow bulk at zero, as trained networks have.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "hesspect/spectrum/cumulative.h"
#include "hesspect/spectrum/density.h"
#include "hesspect/spectrum/eigenvalues.h"
#include "hesspect/spectrum/probe.h"
#include "krylov/test_operators.h"
#include "spectrum/planted.h"
#include "spectrum/run_probe.h"

namespace hesspect::planted_spectrum_test {
namespace {

using testing::PlantedSpectrum;

LocalCommunicator local;
constexpr std::int64_t kDimensions = 1'000'000;

void expect_no_ghosts(const PlantedSpectrum& spectrum, const Lanczos& run) {
  for (const double value : spectrum.simple_outliers) {
    int near = 0;
    for (const RitzPair& pair : run.t().ritz_pairs()) near += std::abs(pair.value - value) < 0.4;
    EXPECT_EQ(near, 1) << "outlier " << value;
  }
}

void expect_top(const PlantedSpectrum& spectrum, const EigenResult& result, double tolerance) {
  EXPECT_TRUE(result.converged);
  ASSERT_EQ(result.top.size(), 10U);
  for (std::size_t i = 0; i < 10; ++i)
    EXPECT_NEAR(result.top[i].value, spectrum.values[spectrum.values.size() - 1 - i], tolerance);
}

TEST(PlantedSpectrum, Float64) {
  const PlantedSpectrum spectrum = testing::outliers_and_bulk(kDimensions);
  testing::DiagonalOperator op(local, kDimensions, at::kDouble, spectrum.entry());
  ProbeRun probe = run_probe(op, 0, {.seed = 1, .steps = 20});
  const EigenResult top = eigenvalues(op, *probe.lanczos, {.top = 10});
  EXPECT_LE(top.steps, 30);
  expect_top(spectrum, top, 1e-9);

  probe.lanczos->extend(op, 80 - probe.lanczos->steps());
  expect_no_ghosts(spectrum, *probe.lanczos);
  EXPECT_LT(probe.lanczos->orthogonality_loss(), 1e-13);

  const ProbeQuadrature q = quadrature_of(probe.lanczos->t(), 0);
  const CumulativeDensity d = cumulative_density(std::span(&q, 1), kDimensions);
  const double w1 = testing::wasserstein(spectrum.values, d.lambda, d.cumulative);
  EXPECT_LT(w1, 2e-3);  // a hundredth of the width of the bulk, 1e-4 of the range
  EXPECT_LT(w1, d.w1);
  EXPECT_LT(d.w1, 6e-3);
  EXPECT_EQ(d.exact_points, 10);
  EXPECT_LT(density(std::span(&q, 1)).sigma, 0.01);
}

// Float32 vectors, everything else in double. Stated bound: 1e-6 of the largest eigenvalue.
TEST(PlantedSpectrum, Float32Rotated) {
  const PlantedSpectrum spectrum = testing::outliers_and_bulk(kDimensions);
  testing::RotatedDiagonalOperator op(local, kDimensions, at::kFloat, spectrum.entry());
  Lanczos run(op, probe_vector(op, ProbeDistribution::kRademacher, 1, 0));
  expect_top(spectrum, eigenvalues(op, run, {.top = 10}), 1e-6 * spectrum.scale());
  run.extend(op, 40 - run.steps());
  expect_no_ghosts(spectrum, run);
  EXPECT_LT(run.orthogonality_loss(), 1e-6);

  const ProbeQuadrature q = quadrature_of(run.t(), 0);
  const CumulativeDensity d = cumulative_density(std::span(&q, 1), kDimensions);
  EXPECT_EQ(d.exact_points, 10);
  EXPECT_LT(testing::wasserstein(spectrum.values, d.lambda, d.cumulative), d.w1);
}

TEST(PlantedSpectrum, BulkExactlyAtZero) {  // eleven distinct values: the space closes after eleven products
  const PlantedSpectrum spectrum = testing::low_rank(100'000);
  testing::RotatedDiagonalOperator op(local, 100'000, at::kDouble, spectrum.entry());
  const ProbeRun probe = run_probe(op, 0, {.steps = 80});
  EXPECT_TRUE(probe.quadrature.breakdown);
  EXPECT_EQ(probe.quadrature.alpha.size(), 11U);
  for (std::size_t i = 0; i < 10; ++i) EXPECT_NEAR(probe.quadrature.ritz[i + 1], spectrum.simple_outliers[i], 1e-9);

  // One more, with a fresh vector, shows that what is left over is zero, every copy of it.
  EXPECT_FALSE(all_found(probe.lanczos->t()));
  ASSERT_TRUE(restart_afresh(op, *probe.lanczos, 0));
  probe.lanczos->extend(op, 1);
  ASSERT_TRUE(all_found(probe.lanczos->t()));
  const ProbeQuadrature all = quadrature_of(probe.lanczos->t(), 0);
  EXPECT_EQ(all.alpha.size(), 12U);
  const CumulativeDensity d = cumulative_density(std::span(&all, 1), 100'000);
  EXPECT_EQ(d.band, "exact");
  EXPECT_EQ(d.w1, 0);
  EXPECT_LT(testing::wasserstein(spectrum.values, d.lambda, d.cumulative), 1e-13 * spectrum.scale());
}

TEST(PlantedSpectrum, WhatAClosedSpaceLeavesOverMayBeMore) {  // each of three values a third of the time
  testing::DiagonalOperator op(local, 99, at::kDouble, [](std::int64_t i) { return static_cast<double>(i % 3); });
  const ProbeRun probe = run_probe(op, 0, {.steps = 80});
  Lanczos& run = *probe.lanczos;
  EXPECT_EQ(run.steps(), 3);
  ASSERT_TRUE(restart_afresh(op, run, 0));
  run.extend(op, 1);
  EXPECT_FALSE(all_found(run.t()));
  EXPECT_EQ(quadrature_of(run.t(), 0).alpha.size(), 3U);
  while (!all_found(run.t())) {
    if (run.t().breakdown()) {
      ASSERT_TRUE(restart_afresh(op, run, 0));
    }
    run.extend(op, 99);
  }
  const ProbeQuadrature all = quadrature_of(run.t(), 0);
  const CumulativeDensity d = cumulative_density(std::span(&all, 1), 99);
  EXPECT_EQ(d.band, "exact");
  for (const auto& [lambda, cdf] : {std::pair{0.5, 1.0 / 3}, {1.5, 2.0 / 3}}) {
    const auto k = std::upper_bound(d.lambda.begin(), d.lambda.end(), lambda) - d.lambda.begin();
    EXPECT_NEAR(d.cumulative[static_cast<std::size_t>(k) - 1], cdf, 1e-12);
  }
}

}  // namespace
}  // namespace hesspect::planted_spectrum_test
