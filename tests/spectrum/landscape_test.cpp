// Landscapes of losses that are known in closed form.
#include "hesspect/spectrum/landscape.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

namespace hesspect::landscape_test {
namespace {

LandscapeDirection direction(double slope, double bend, double low, double high) {
  LandscapeDirection d;
  d.slope = slope;
  d.bend = bend;
  d.low = low;
  d.high = high;
  return d;
}

TEST(Coordinates, HoldZeroWhereItLiesBetween) {
  EXPECT_EQ(coordinates(-1, 1, 5), (std::vector<double>{-1, -0.5, 0, 0.5, 1}));
  const std::vector<double> uneven = coordinates(-0.5, 1.5, 4);
  EXPECT_EQ(uneven.front(), -0.5);
  EXPECT_EQ(uneven.back(), 1.5);
  EXPECT_EQ(uneven[1], 0);  // instead of 1/6
  EXPECT_EQ(coordinates(1, 2, 3), (std::vector<double>{1, 1.5, 2}));
}

TEST(DoublingWidth, SolvesTheQuadraticModel) {
  for (const auto& [loss, slope, bend] :
       {std::array{2.0, 0.5, 30.0}, {1.0, 0.0, 2.0}, {1e-6, 1e3, 1.0}, {3.0, -2.0, 0.0}, {1.0, 0.1, -4.0}}) {
    const double t = doubling_width(loss, slope, bend);
    EXPECT_NEAR(std::abs(slope) * t + 0.5 * std::abs(bend) * t * t, loss, 1e-12 * loss);
  }
  EXPECT_EQ(doubling_width(1, 0, 0), 1);
  EXPECT_EQ(doubling_width(0, 0, 5), 1);
}

// L(a, b) = 3 + a − 2b + 2a² + ab + ½ b², which the model has exactly.
TEST(Explore, AQuadraticIsItsModelEverywhere) {
  Landscape l;
  l.loss_at_start = 3;
  l.cross = 1;
  l.directions = {direction(1, 4, -1, 1), direction(-2, 1, -2, 2)};
  int calls = 0;
  explore(l, 5, [&](double a, double b) {
    ++calls;
    return 3 + a - 2 * b + 2 * a * a + a * b + 0.5 * b * b;
  });
  ASSERT_EQ(l.loss.size(), 5u);
  for (std::size_t i = 0; i < 5; ++i)
    for (std::size_t j = 0; j < 5; ++j) {
      const double a = l.alpha[i], b = l.beta[j];
      EXPECT_NEAR(l.loss[i][j], 3 + a - 2 * b + 2 * a * a + a * b + 0.5 * b * b, 1e-14);
      EXPECT_NEAR(l.loss[i][j], l.quadratic[i][j], 1e-13);
    }
  EXPECT_EQ(l.directions[0].valid_above, 1);
  EXPECT_EQ(l.directions[1].valid_below, 2);
  EXPECT_TRUE(std::isinf(l.directions[0].valid_above_fails));
  EXPECT_EQ(calls, 24 + 4 * 21);  // the start is known
}

// L(t) = t² + c t⁴: off by c t² of itself, so that the model holds to t = √(0.1 / c); below, t² − t³ up to 0.1.
TEST(Explore, RadiusOfValidityLiesBetweenTwoSteps) {
  Landscape l;
  l.directions = {direction(0, 2, -1, 1)};
  explore(l, 3, [](double t, double) { return t * t + (t > 0 ? 10 * t * t * t * t : t * t * t); });
  const LandscapeDirection& d = l.directions[0];
  EXPECT_LE(d.valid_above, 0.1);
  EXPECT_GT(d.valid_above_fails, 0.1);
  EXPECT_NEAR(d.valid_above_fails / d.valid_above, std::sqrt(2.0), 1e-12);
  EXPECT_LE(d.valid_below, 0.1);
  EXPECT_GT(d.valid_below_fails, 0.1);
}

// A model that is wrong at once, one that overflows, and a change that rounding hides.
TEST(Explore, RadiusOfWhatIsNoQuadratic) {
  Landscape l;
  l.directions = {direction(0, 2, -1, 1)};
  explore(l, 3, [](double t, double) { return t > 0 ? std::sqrt(t) : t < -0.5 ? NAN : t * t; });
  EXPECT_EQ(l.directions[0].valid_above, 0);
  EXPECT_GT(l.directions[0].valid_above_fails, 0);
  EXPECT_LE(l.directions[0].valid_below, 0.5);
  EXPECT_GT(l.directions[0].valid_below_fails, 0.5);
  EXPECT_TRUE(std::isnan(l.loss[0][0]));

  Landscape flat;
  flat.loss_at_start = 1;
  flat.rounding = 1e-7;
  flat.directions = {direction(0, 1e-9, 0, 1)};
  explore(flat, 3, [](double, double) { return 1 + 1e-7; });
  EXPECT_EQ(flat.directions[0].valid_above, 1);
  EXPECT_EQ(flat.directions[0].valid_below, 0);
  EXPECT_TRUE(std::isinf(flat.directions[0].valid_below_fails)) << "nothing was looked at";
}

}  // namespace
}  // namespace hesspect::landscape_test
