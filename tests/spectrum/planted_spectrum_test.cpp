// A planted spectrum of 10⁶ dimensions: ten outliers over a narrow bulk at zero, as trained networks have.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "hesspect/spectrum/density.h"
#include "hesspect/spectrum/eigenvalues.h"
#include "hesspect/spectrum/probe.h"
#include "krylov/test_operators.h"

namespace hesspect {
namespace {

LocalCommunicator local;
constexpr std::int64_t kDimensions = 1'000'000;

/// 10, 11.2, …, 20.8 at scattered places; a bulk of |λ| ≤ 0.1 elsewhere.
double planted(std::int64_t i) {
  if (i % 99'991 == 7 && i / 99'991 < 10) return 10 + 1.2 * static_cast<double>(i / 99'991);
  const double t = std::fmod(static_cast<double>(i) * 0.6180339887498949, 1.0);
  return 0.1 * (2 * t - 1) * (2 * t - 1) * (2 * t - 1);
}

void expect_no_ghosts(const Lanczos& run) {
  for (int k = 0; k < 10; ++k) {
    int near = 0;
    for (const RitzPair& pair : run.ritz_pairs()) near += std::abs(pair.value - (10 + 1.2 * k)) < 0.5;
    EXPECT_EQ(near, 1) << "outlier " << k;
  }
}

TEST(PlantedSpectrum, Float64) {
  testing::DiagonalOperator op(local, kDimensions, at::kDouble, planted);
  ProbeRun probe = run_probe(op, 0, {.seed = 1, .steps = 20});
  const EigenResult top = eigenvalues(op, *probe.lanczos, {.top = 10});
  EXPECT_TRUE(top.converged);
  EXPECT_LE(top.steps, 30);
  ASSERT_EQ(top.top.size(), 10U);
  for (std::size_t i = 0; i < 10; ++i) EXPECT_NEAR(top.top[i].value, 20.8 - 1.2 * static_cast<double>(i), 1e-9);

  probe.lanczos->extend(op, 80 - probe.lanczos->steps());
  expect_no_ghosts(*probe.lanczos);
  EXPECT_LT(probe.lanczos->orthogonality_loss(), 1e-13);

  // Wasserstein-1 distance between quadrature and spectrum: ∫ |F_quadrature − F| dλ over the sorted eigenvalues.
  const ProbeQuadrature q = quadrature_of(*probe.lanczos, 0);
  std::vector<double> all(kDimensions);
  for (std::int64_t i = 0; i < kDimensions; ++i) all[static_cast<std::size_t>(i)] = planted(i);
  std::sort(all.begin(), all.end());
  double w1 = 0, mass = 0, cdf = 0, previous = std::min(all[0], q.ritz[0]);
  std::size_t node = 0, value = 0;
  while (node < q.ritz.size() || value < all.size()) {
    const bool take_node = value == all.size() || (node < q.ritz.size() && q.ritz[node] <= all[value]);
    const double at = take_node ? q.ritz[node] : all[value];
    w1 += (at - previous) * std::abs(mass - cdf);
    previous = at;
    if (take_node)
      mass += q.weight[node++];
    else
      cdf = static_cast<double>(++value) / static_cast<double>(kDimensions);
  }
  EXPECT_LT(w1, 2e-3);  // a hundredth of the width of the bulk, 1e-4 of the range

  const Density d = density(std::span(&q, 1));
  EXPECT_LT(d.sigma, 0.01);
}

// Float32 vectors, everything else in double. Stated bound: 1e-6 of the largest eigenvalue.
TEST(PlantedSpectrum, Float32Rotated) {
  testing::RotatedDiagonalOperator op(local, kDimensions, at::kFloat, planted);
  Lanczos run(op, probe_vector(op, ProbeDistribution::kRademacher, 1, 0));
  const EigenResult top = eigenvalues(op, run, {.top = 10});
  EXPECT_TRUE(top.converged);
  ASSERT_EQ(top.top.size(), 10U);
  for (std::size_t i = 0; i < 10; ++i) EXPECT_NEAR(top.top[i].value, 20.8 - 1.2 * static_cast<double>(i), 1e-6 * 20.8);
  run.extend(op, 40 - run.steps());
  expect_no_ghosts(run);
  EXPECT_LT(run.orthogonality_loss(), 1e-6);
}

TEST(PlantedSpectrum, BulkExactlyAtZero) {  // eleven distinct values: the space closes after eleven products
  testing::RotatedDiagonalOperator op(local, 100'000, at::kDouble,
                                      [](std::int64_t i) { return i < 10 ? 1.0 + static_cast<double>(i) : 0.0; });
  const ProbeRun probe = run_probe(op, 0, {.steps = 80});
  EXPECT_TRUE(probe.quadrature.breakdown);
  EXPECT_EQ(probe.quadrature.alpha.size(), 11U);
  for (std::size_t i = 0; i < 10; ++i) EXPECT_NEAR(probe.quadrature.ritz[i + 1], 1.0 + static_cast<double>(i), 1e-9);
}

}  // namespace
}  // namespace hesspect
