// What finite steps do to losses that are known in closed form.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "hesspect/spectrum/loss_around.h"

namespace hesspect::sharpness_test {
namespace {

/// L(s) = base + b·s + ½ Σ h s² + c Σ s⁴.
struct Quartic {
  double base;
  at::Tensor b, h;
  double c = 0;

  LossAround around() const {
    LossAround a;
    a.loss = [this](const at::Tensor& s) {
      return base + (b * s + 0.5 * h * s * s + c * s.pow(4)).sum().item<double>();
    };
    a.gradient = [this](const at::Tensor& s, at::Tensor& g) { g.copy_(b + h * s + 4 * c * s.pow(3)); };
    a.dot = [](const at::Tensor& x, const at::Tensor& y) { return at::dot(x, y).item<double>(); };
    a.at_start = base;
    a.gradient_at_start = b;
    a.rounding = 1e-16 * std::abs(base);
    return a;
  }
};

at::Tensor vector(std::initializer_list<double> entries) {
  return at::tensor(std::vector<double>(entries), at::kDouble);
}

TEST(Ascents, OfAQuadratic) {
  const Quartic f{2, vector({3, 4}), vector({10, -1})};
  const std::vector<Ascent> found = ascents(f.around(), {0.1, 1}, {vector({1, 0}), vector({0, 1})});
  ASSERT_EQ(found.size(), 2u);
  // Along g = (3, 4) / 5: 5 ρ + ½ ρ² (0.36 · 10 − 0.64); along e₁: 3 ρ + 5 ρ²; along e₂: 4 ρ − ½ ρ².
  EXPECT_NEAR(found[0].gradient, 0.5 + 0.005 * 2.96, 1e-12);
  EXPECT_NEAR(found[0].eigenvector, 0.4 - 0.005, 1e-12);
  EXPECT_NEAR(found[1].gradient, 5 + 0.5 * 2.96, 1e-12);
  EXPECT_NEAR(found[1].eigenvector, 8, 1e-12);
  EXPECT_NEAR(found[1].worst(), 8, 1e-12);
  EXPECT_NEAR(found[1].first_order, 5, 1e-12);
}

TEST(Ascents, OfAStationaryPoint) {
  const Quartic f{2, vector({0, 0}), vector({10, -1})};
  const Ascent found = ascents(f.around(), {0.2}, {vector({1, 0})})[0];
  EXPECT_EQ(found.gradient, 0);
  EXPECT_NEAR(found.eigenvector, 0.2, 1e-12);
}

// A model whose parameters are scaled by s, and its loss not changed: L'(θ') = L(θ'/s).
TEST(AdaptiveAscents, DoNotChangeWithTheParametersScale) {
  const at::Tensor theta = vector({1, -2, 0.5}), b = vector({3, 4, 1}), h = vector({10, -1, 2});
  const Quartic f{2, b, h};
  const Ascent one = adaptive_ascents(f.around(), {0.3}, theta)[0];
  const at::Tensor scale = vector({2, 0.1, 7});
  const Quartic scaled{2, b / scale, h / (scale * scale)};
  const Ascent other = adaptive_ascents(scaled.around(), {0.3}, theta * scale)[0];
  EXPECT_NEAR(one.gradient, other.gradient, 1e-12);
  EXPECT_NEAR(one.first_order, other.first_order, 1e-12);
  // ε = ρ θ² g / ‖θ g‖
  const at::Tensor step = 0.3 * theta * theta * b / (theta * b).norm();
  EXPECT_NEAR(one.gradient, (b * step + 0.5 * h * step * step).sum().item<double>(), 1e-12);
  EXPECT_NEAR((step / theta).norm().item<double>(), 0.3, 1e-12);
}

TEST(CheckSteps, OfAQuadraticGrowAsExpected) {
  const Quartic f{2, vector({1, 1}), vector({8, 3})};
  const std::vector<StepCheck> checks = check_steps(f.around(), 8, vector({1, 0}), {0, 0.9});
  ASSERT_EQ(checks.size(), 2u);
  EXPECT_NEAR(checks[0].largest_step, 0.25, 1e-12);
  EXPECT_NEAR(checks[1].largest_step, 2 * 1.9 / 8, 1e-12);
  EXPECT_NEAR(checks[0].below, 0.9, 1e-6);
  EXPECT_NEAR(checks[0].above, 1.1, 1e-6);
  EXPECT_NEAR(checks[0].expected_below, 0.9, 1e-12);
  EXPECT_NEAR(checks[0].expected_above, 1.1, 1e-12);
  EXPECT_NEAR(checks[1].below, checks[1].expected_below, 0.03);  // complex roots turn
  EXPECT_NEAR(checks[1].above, checks[1].expected_above, 0.03);
  EXPECT_NEAR(checks[1].expected_below, std::sqrt(0.9), 1e-12);
  for (const StepCheck& check : checks) EXPECT_TRUE(check.confirmed()) << check.optimizer;
  EXPECT_TRUE(check_steps(f.around(), -1, vector({1, 0}), {0}).empty());
}

// A wrong λ₁ shows: twice the true one makes both steps stable.
TEST(CheckSteps, DoNotConfirmAWrongEigenvalue) {
  const Quartic f{2, vector({1, 1}), vector({8, 3})};
  for (const double wrong : {16.0, 4.0})
    for (const StepCheck& check : check_steps(f.around(), wrong, vector({1, 0}), {0, 0.9}))
      EXPECT_FALSE(check.confirmed()) << check.optimizer << " at " << wrong;
}

TEST(CriticalStep, OfAQuadraticIsTwiceOverItsCurvatureAlongTheGradient) {
  const Quartic f{2, vector({3, 4}), vector({10, 1})};
  const double bend = 9 * 10 + 16 * 1;
  const CriticalStep found = critical_step(f.around(), bend);
  EXPECT_NEAR(found.directional, bend / 25, 1e-12);
  EXPECT_NEAR(found.sharpness, bend / 25, 0.02 * bend / 25);
  EXPECT_NEAR(found.step * found.sharpness, 2, 1e-12);
}

// b s + c s⁴ along s: it comes back to its start at −(b/c)^⅓, though it has no curvature at all.
TEST(CriticalStep, WhereNoCurvatureForetellsIt) {
  const Quartic f{1, vector({2}), vector({0}), 16};
  const CriticalStep found = critical_step(f.around(), 0);
  EXPECT_NEAR(found.step, 0.5 / 2, 0.02 * 0.25);
  const Quartic steep{1000, vector({2}), vector({0}), 16};  // the first step tried is far beyond
  EXPECT_NEAR(critical_step(steep.around(), 0).step, 0.25, 0.02 * 0.25);
  EXPECT_TRUE(std::isnan(critical_step(Quartic{1, vector({0}), vector({1})}.around(), 0).step));
  EXPECT_TRUE(std::isnan(critical_step(Quartic{1, vector({1}), vector({0})}.around(), 0).step)) << "it falls for ever";
}

TEST(Basin, RadiusOfAQuadratic) {
  const Quartic f{2, vector({0, 0}), vector({8, 2})};
  const Basin found = basin(
      f.around(), 0.5, 2,
      [](std::int64_t i) {
        return i == 0 ? vector({3, 0}) : vector({0, -5});
      },
      10);
  ASSERT_EQ(found.radius.size(), 2u);
  EXPECT_NEAR(found.radius[0], std::sqrt(0.5 / 4) / 10, 0.02 * found.radius[0]);
  EXPECT_NEAR(found.radius[1], std::sqrt(0.5) / 10, 0.02 * found.radius[1]);
  const Quartic flat{2, vector({0}), vector({0})};
  EXPECT_TRUE(std::isinf(basin(
                             flat.around(), 0.5, 1, [](std::int64_t) { return vector({1}); }, 1)
                             .radius[0]));
  const Quartic steep{2, vector({1e9}), vector({0})};
  EXPECT_EQ(basin(
                steep.around(), 0.5, 1, [](std::int64_t) { return vector({1}); }, 1)
                .radius[0],
            0);
}

}  // namespace
}  // namespace hesspect::sharpness_test
