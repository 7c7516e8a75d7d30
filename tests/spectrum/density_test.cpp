#include "hesspect/spectrum/density.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "hesspect/core/errors.h"
#include "hesspect/spectrum/probe.h"
#include "krylov/test_operators.h"
#include "spectrum/run_probe.h"

namespace hesspect::density_test {
namespace {

using testing::DenseOperator;
using testing::DiagonalOperator;

LocalCommunicator local;

double integral(const Density& d) {
  double sum = 0;
  for (std::size_t i = 1; i < d.lambda.size(); ++i)
    sum += (d.lambda[i] - d.lambda[i - 1]) * (d.density[i] + d.density[i - 1]) / 2;
  return sum;
}

double sum_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum;
}

std::vector<ProbeQuadrature> probes_of(LinearOperator& op, std::int64_t probes, std::int64_t steps) {
  ProbeOptions options;
  options.steps = steps;
  options.seed = 11;
  std::vector<ProbeQuadrature> all;
  for (std::int64_t p = 0; p < probes; ++p) all.push_back(run_probe(op, p, options).quadrature);
  return all;
}

TEST(Density, IntegratesToOneAtEveryWidth) {
  // A bulk at zero, outliers a thousand times as far as it is wide.
  DiagonalOperator op(local, 20000, at::kDouble, [](std::int64_t i) {
    return i < 5 ? 50.0 * static_cast<double>(i + 1) : 0.1 * std::sin(static_cast<double>(i));
  });
  const std::vector<ProbeQuadrature> probes = probes_of(op, 3, 40);
  for (const ProbeQuadrature& probe : probes) EXPECT_NEAR(sum_of(probe.weight), 1, 1e-12);
  for (const double sigma : {0.0, 1e-5, 1e-3, 0.1, 10.0, 1e4}) {
    const Density d = density(probes, {.sigma = sigma});
    EXPECT_NEAR(integral(d), 1, 1e-6) << sigma;
    EXPECT_LT(d.lambda.size(), 20000U);
    EXPECT_LT(d.lambda.front(), probes[0].ritz.front() - 4 * d.sigma);
    EXPECT_GT(d.lambda.back(), probes[0].ritz.back() + 4 * d.sigma);
    for (std::size_t i = 0; i < d.lambda.size(); ++i) {
      EXPECT_GE(d.density[i], 0);
      EXPECT_GE(d.density_errors[i], 0);
      if (i > 0) {
        EXPECT_LT(d.lambda[i - 1], d.lambda[i]);
      }
    }
  }
  // The width chosen resolves the bulk, not the range.
  const double sigma = default_sigma(probes);
  EXPECT_LT(sigma, 0.02);
  EXPECT_GT(sigma, 0.0005);
}

TEST(Density, OneNodeAndNone) {
  DiagonalOperator zero(local, 100, at::kDouble, [](std::int64_t) { return 0.0; });
  const Density d = density(probes_of(zero, 2, 10));
  EXPECT_NEAR(integral(d), 1, 1e-6);
  EXPECT_TRUE(density({}).lambda.empty());
}

TEST(Density, TwoFarPeaksKeepTheirPlaces) {  // an exact two-point spectrum: mass where it belongs
  DiagonalOperator op(local, 1000, at::kDouble, [](std::int64_t i) { return i < 100 ? 5.0 : 0.0; });
  const Density d = density(probes_of(op, 1, 10));
  EXPECT_LE(d.sigma, 0.05 + 1e-12);
  double above = 0;
  for (std::size_t i = 1; i < d.lambda.size(); ++i)
    if (d.lambda[i] > 2.5 && d.lambda[i - 1] > 2.5)
      above += (d.lambda[i] - d.lambda[i - 1]) * (d.density[i] + d.density[i - 1]) / 2;
  EXPECT_NEAR(above, 0.1, 1e-6);
}

TEST(Density, SmoothedAgainFromAlphaAndBetaIsTheSame) {
  DenseOperator op(local, testing::gaussian_matrix(300, 5));
  const std::vector<ProbeQuadrature> probes = probes_of(op, 2, 30);
  std::vector<ProbeQuadrature> again;
  for (const ProbeQuadrature& probe : probes) again.push_back(quadrature_from(probe.alpha, probe.beta));
  for (const double sigma : {0.0, 0.03}) {
    const Density a = density(probes, {.sigma = sigma}), b = density(again, {.sigma = sigma});
    EXPECT_EQ(a.lambda, b.lambda);
    EXPECT_EQ(a.density, b.density);
    EXPECT_EQ(a.density_errors, b.density_errors);
    EXPECT_EQ(a.sigma, b.sigma);
  }
}

TEST(Density, Semicircle) {
  // Wigner: ρ(λ) = √(4 − λ²) / 2π on [−2, 2], here convolved with the kernel by quadrature.
  DenseOperator op(local, testing::gaussian_matrix(800, 6));
  const std::vector<ProbeQuadrature> probes = probes_of(op, 16, 40);
  const Density d = density(probes, {.sigma = 0.1});
  double worst = 0;
  for (std::size_t i = 0; i < d.lambda.size(); ++i) {
    double expected = 0;
    const int cells = 2000;
    for (int c = 0; c < cells; ++c) {
      const double x = -2 + 4 * (c + 0.5) / cells;
      const double z = (d.lambda[i] - x) / d.sigma;
      expected += std::sqrt(4 - x * x) / (2 * std::numbers::pi) * std::exp(-0.5 * z * z) /
                  (d.sigma * std::sqrt(2 * std::numbers::pi)) * 4 / cells;
    }
    worst = std::max(worst, std::abs(d.density[i] - expected));
  }
  EXPECT_LT(worst, 0.05);  // of a peak of 0.32; sampling alone makes 0.012 (one sigma, at each place)
  // With the default width it is smooth: no comb of nodes around the middle.
  const Density smooth = density(probes);
  EXPECT_NEAR(smooth.sigma, std::numbers::pi / 40, 0.05);
  for (std::size_t i = 0; i < smooth.lambda.size(); ++i)
    if (std::abs(smooth.lambda[i]) < 0.5) {
      EXPECT_NEAR(smooth.density[i], 1 / std::numbers::pi, 0.05);
    }
}

TEST(Density, MomentsOfAFullRunAreTraces) {
  // Σ w θᵏ = zᵀ Aᵏ z / zᵀz, exactly, for each probe.
  const at::Tensor matrix = testing::gaussian_matrix(40, 9);
  DenseOperator op(local, matrix);
  const ProbeQuadrature probe = probes_of(op, 1, 100)[0];
  EXPECT_TRUE(probe.breakdown);
  EXPECT_EQ(probe.norm_sq, 40);
  const at::Tensor z = probe_vector(op, ProbeDistribution::kRademacher, 11, 0);
  at::Tensor power = z.clone();
  for (int k = 1; k <= 6; ++k) {
    power = at::mv(matrix, power);
    double moment = 0;
    for (std::size_t i = 0; i < probe.ritz.size(); ++i) moment += probe.weight[i] * std::pow(probe.ritz[i], k);
    EXPECT_NEAR(moment, at::dot(z, power).item<double>() / 40, 1e-12) << k;
  }
  // The density's own moments, kernel taken off: mean Σwθ, variance + σ².
  const Density d = density(std::span(&probe, 1), {.sigma = 0.2});
  double mean = 0, square = 0;
  for (std::size_t i = 1; i < d.lambda.size(); ++i) {
    const double h = d.lambda[i] - d.lambda[i - 1];
    mean += h * (d.lambda[i] * d.density[i] + d.lambda[i - 1] * d.density[i - 1]) / 2;
    square += h * (std::pow(d.lambda[i], 2) * d.density[i] + std::pow(d.lambda[i - 1], 2) * d.density[i - 1]) / 2;
  }
  double first = 0, second = 0;
  for (std::size_t i = 0; i < probe.ritz.size(); ++i) {
    first += probe.weight[i] * probe.ritz[i];
    second += probe.weight[i] * probe.ritz[i] * probe.ritz[i];
  }
  EXPECT_NEAR(mean, first, 1e-9);
  EXPECT_NEAR(square, second + 0.04, 1e-9);
}

TEST(Density, MomentsOverManyProbesTendToTrHk) {  // tr Hᵏ / n within the standard error of the probes
  const at::Tensor matrix = testing::gaussian_matrix(200, 10);
  DenseOperator op(local, matrix);
  const std::vector<ProbeQuadrature> probes = probes_of(op, 100, 8);
  at::Tensor power = at::eye(200, at::kDouble);
  for (int k = 1; k <= 6; ++k) {
    power = at::mm(power, matrix);
    double sum = 0, square = 0;
    for (const ProbeQuadrature& probe : probes) {
      double moment = 0;
      for (std::size_t i = 0; i < probe.ritz.size(); ++i) moment += probe.weight[i] * std::pow(probe.ritz[i], k);
      sum += moment;
      square += moment * moment;
    }
    const double mean = sum / 100, error = std::sqrt((square / 100 - mean * mean) / 99);
    EXPECT_NEAR(mean, at::trace(power).item<double>() / 200, 4 * error) << k;
  }
}

TEST(Density, BadWidths) {
  DenseOperator op(local, testing::gaussian_matrix(20, 5));
  const std::vector<ProbeQuadrature> probes = probes_of(op, 1, 10);
  EXPECT_THROW(density(probes, {.sigma = -1}), UsageError);
  EXPECT_THROW(density(probes, {.sigma = std::nan("")}), UsageError);
  EXPECT_THROW(density(probes, {.sigma = 1e-30}), UsageError);
}

// The nodes of H = c·I differ by rounding: a hundredth of that range was a default width that density() refused.
TEST(Density, OneValueToRounding) {
  std::vector<ProbeQuadrature> probes(2);
  probes[0].ritz = {2.0};
  probes[1].ritz = {2.0 * (1 + 4e-16)};
  for (ProbeQuadrature& probe : probes) {
    probe.weight = {1.0};
    probe.breakdown = true;
  }
  EXPECT_DOUBLE_EQ(default_sigma(probes), 2e-3);
  EXPECT_NEAR(integral(density(probes)), 1, 1e-6);
  probes[1].ritz = {2.0 * (1 + 1.1e-6)};  // just apart, and a grid of many points
  EXPECT_NEAR(integral(density(probes, {.points_per_sigma = 1e5})), 1, 1e-6);
}

TEST(Density, NonFiniteIsAnError) {
  ProbeQuadrature probe;
  probe.ritz = {-1.0, 1.0};
  probe.weight = {0.5, 0.5};
  const auto smooth = [](const ProbeQuadrature& q, double sigma) { density(std::span(&q, 1), {.sigma = sigma}); };
  EXPECT_NO_THROW(smooth(probe, 0.1));
  EXPECT_THROW(smooth(probe, 1e308), UsageError);
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double bad : {std::nan(""), infinity, -infinity}) {
    ProbeQuadrature node = probe, weight = probe;
    node.ritz[1] = bad;
    weight.weight[0] = bad;
    for (const double sigma : {0.0, 0.1}) {
      EXPECT_THROW(smooth(node, sigma), NumericalError);
      EXPECT_THROW(smooth(weight, sigma), NumericalError);
    }
  }
  ProbeQuadrature huge = probe;
  huge.ritz = {-1e308, 1e308};
  EXPECT_THROW(smooth(huge, 0), UsageError);
  probe.weight.pop_back();
  EXPECT_THROW(smooth(probe, 0.1), UsageError);
}

// A simple outlier's own weight is χ² of one degree over n, so peaks of one height came out as high as they came.
TEST(Density, OutliersWeighOneNthWhereTheDimensionIsGiven) {
  const std::int64_t n = 2000;
  testing::RotatedDiagonalOperator op(local, n, at::kDouble, [](std::int64_t i) {
    return i < 5 ? 10.0 * static_cast<double>(i + 1) : 0.1 * std::sin(static_cast<double>(i));
  });
  ProbeOptions options;
  options.steps = 40;
  options.distribution = ProbeDistribution::kGaussian;
  const ProbeQuadrature probe = run_probe(op, 0, options).quadrature;
  const auto masses = [&](std::int64_t dimensions) {
    const Density d = density(std::span(&probe, 1), {.sigma = 0.01, .n = dimensions});
    EXPECT_NEAR(integral(d), 1, 1e-6);
    std::vector<double> mass(6, 0.0);  // within 5 of 0, 10, … 50
    for (std::size_t i = 1; i < d.lambda.size(); ++i)
      mass[static_cast<std::size_t>(std::lround(d.lambda[i] / 10))] +=
          (d.lambda[i] - d.lambda[i - 1]) * (d.density[i] + d.density[i - 1]) / 2;
    return mass;
  };
  const std::vector<double> raw = masses(0), reduced = masses(n);
  double worst = 0;
  for (std::size_t k = 1; k <= 5; ++k) {
    EXPECT_NEAR(reduced[k], 1.0 / n, 1e-8);
    worst = std::max(worst, std::abs(raw[k] - 1.0 / n));
  }
  EXPECT_GT(worst, 0.3 / n);
}

}  // namespace
}  // namespace hesspect::density_test
