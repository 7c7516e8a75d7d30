// The mean change of the loss over random directions, on losses whose mean is known: whether the intervals hold at a
// nominal 90 %, also where one eigenvalue is all of the trace and draws are skewed.
#include "hesspect/spectrum/loss_changes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>

namespace hesspect::loss_changes_test {
namespace {

using Loss = std::function<double(const std::vector<double>& s)>;  // L(θ + s) − L(θ), the quadratic part's λ below
using Numbers = std::vector<double>;

std::vector<double> direction(std::size_t n, std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  std::vector<double> u(n);
  double square = 0;
  for (double& one : u) {
    one = normal(random);
    square += one * one;
  }
  for (double& one : u) one /= std::sqrt(square);
  return u;
}

LossChanges measured(const Numbers& lambda, const Loss& loss, double rho, double norm, int draws,
                     std::mt19937_64& random) {
  LossChanges c;
  c.norm = norm;
  c.at = {{rho, {}, 0}};
  for (int i = 0; i < draws; ++i) {
    std::vector<double> s = direction(lambda.size(), random), t = s;
    double bend = 0;
    for (std::size_t k = 0; k < s.size(); ++k) {
      bend += lambda[k] * s[k] * s[k];
      s[k] *= rho * norm;
      t[k] = -s[k];
    }
    c.curvature.push_back(bend);
    c.at[0].change.push_back((loss(s) + loss(t)) / 2);
  }
  return c;
}

Numbers spectrum(std::size_t n, double first, double others) {
  Numbers lambda(n, others);
  lambda[0] = first;
  return lambda;
}

double sum(const Numbers& values) {
  double all = 0;
  for (const double value : values) all += value;
  return all;
}

/// ½ s'Λs + c'Σ s³ + κ Σ λ s⁴, whose mean over the sphere is δ² tr/2n + 3 κ δ⁴ tr/(n(n + 2)).
TEST(LossChanges, IntervalsHoldBesideAQuarticTerm) {
  std::mt19937_64 random(3);
  for (const Numbers& lambda : {spectrum(20, 100, 0), spectrum(20, 1, 1), spectrum(300, 50, 0.1), spectrum(2, 3, -1)})
    for (const double kappa : {0.0, 0.3}) {
      const auto n = static_cast<double>(lambda.size());
      const Loss loss = [&](const Numbers& s) {
        double all = 0;
        for (std::size_t k = 0; k < s.size(); ++k)
          all +=
              lambda[k] * s[k] * s[k] / 2 + 2 * s[k] * s[k] * s[k] + 5 * s[k] + kappa * lambda[k] * std::pow(s[k], 4);
        return all;
      };
      const double delta = 0.4 * 2, tr = sum(lambda);
      const double truth = delta * delta * tr / (2 * n) + 3 * kappa * std::pow(delta, 4) * tr / (n * (n + 2));
      int held = 0;
      for (int seed = 0; seed < 200; ++seed) {
        const LossChanges c = measured(lambda, loss, 0.4, 2, 8, random);
        const ChangeEstimate e = change_estimate(c, 0, std::ssize(lambda), tr, 0, 0.9, 1e-14);
        EXPECT_NEAR(e.predicted, delta * delta * tr / (2 * n), 1e-12 * std::abs(tr));
        held += std::abs(e.value - truth) <= e.half_width;
      }
      // What is beyond the quadratic, and in one direction of many, few draws see: the interval is then too narrow. So
      // docs/features.md says; some 66 to 70 of 100 were held when this was written.
      const bool is_rare = kappa > 0 && lambda[0] > 10 * lambda[1];
      EXPECT_GE(held, is_rare ? 115 : 176) << lambda.size() << ", " << lambda[0] << ", " << kappa;
    }
}

/// The trace's interval is part of it.
TEST(LossChanges, IntervalsHoldWithATraceOfSamples) {
  std::mt19937_64 random(5);
  std::normal_distribution<double> normal;
  const Numbers lambda = spectrum(60, 30, 1);
  const double tr = sum(lambda);
  const Loss loss = [&](const Numbers& s) {
    double all = 0;
    for (std::size_t k = 0; k < s.size(); ++k) all += lambda[k] * s[k] * s[k] / 2;
    return all;
  };
  int held = 0;
  for (int seed = 0; seed < 200; ++seed) {
    const double error = 0.05 * tr;
    const LossChanges c = measured(lambda, loss, 0.1, 1, 8, random);
    const ChangeEstimate e = change_estimate(c, 0, 60, tr + error * normal(random), 1.645 * error, 0.9, 0);
    EXPECT_TRUE(e.controlled);
    held += std::abs(e.value - 0.005 * tr / 60) <= e.half_width;
  }
  EXPECT_GE(held, 176);
  EXPECT_LE(held, 195);
}

/// Far from quadratic the model takes out nothing, and is left alone.
TEST(LossChanges, TheModelIsLeftAloneWhereItIsWrong) {
  std::mt19937_64 random(11);
  const Numbers lambda = spectrum(30, 10, 10);
  const Loss loss = [&](const Numbers& s) { return std::abs(s[0]) + std::abs(s[1]); };
  double truth = 0;
  constexpr int kMany = 40000;
  for (int i = 0; i < kMany; ++i) {
    const Numbers u = direction(30, random);
    truth += 3 * (std::abs(u[0]) + std::abs(u[1])) / kMany;
  }
  int held = 0;
  for (int seed = 0; seed < 200; ++seed) {
    const LossChanges c = measured(lambda, loss, 1, 3, 8, random);
    const ChangeEstimate e = change_estimate(c, 0, 30, sum(lambda), 0, 0.9, 0);
    held += std::abs(e.value - truth) <= e.half_width;
  }
  EXPECT_GE(held, 172);
}

TEST(LossChanges, OneDimensionHasOneDirection) {
  std::mt19937_64 random(1);
  const LossChanges c = measured(
      {4}, [](const Numbers& s) { return 2 * s[0] * s[0] + s[0]; }, 0.5, 2, 1, random);
  const ChangeEstimate e = change_estimate(c, 0, 1, 4, 0, 0.9, 0);
  EXPECT_NEAR(e.value, 2, 1e-15);
  EXPECT_EQ(e.half_width, 0);
  EXPECT_NEAR(e.predicted, 2, 1e-15);
}

}  // namespace
}  // namespace hesspect::loss_changes_test
