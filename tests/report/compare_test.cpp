// Verdicts by hand-made intervals, distances by closed forms, and what is not compared.
#include "hesspect/report/compare.h"

#include <gtest/gtest.h>

#include <cmath>

#include "hesspect/core/errors.h"
#include "report/known_result.h"

namespace hesspect::compare_test {
namespace {

using testing::known_result;
using Kind = Verdict::Kind;

Figure figure(double value, double half_width, const Falling& falling) {
  Figure f;
  f.key = "trace";
  f.value = value;
  f.lower = value - half_width;
  f.upper = value + half_width;
  f.falling = falling;
  return f;
}

TEST(Compare, AVerdictStandsOnlyWhereIntervalsDoNotOverlap) {
  const Falling root{100, 0.5, 0};
  EXPECT_EQ(verdict_of(figure(1, 0.2, root), figure(1.5, 0.2, root)).kind, Kind::kHigher);
  EXPECT_EQ(verdict_of(figure(1.5, 0.2, root), figure(1, 0.2, root)).kind, Kind::kLower);
  EXPECT_EQ(verdict_of(figure(1, 0.2, root), figure(1.3, 0.2, root)).kind, Kind::kUndecided);
  Figure unknown = figure(1, 0.2, root);
  unknown.lower = Figure::kUnknown;
  EXPECT_EQ(verdict_of(unknown, figure(5, 0.2, root)).kind, Kind::kNone);
}

/// With so many more products the intervals part, and with a tenth fewer they do not.
TEST(Compare, SoManyMoreProductsWould) {
  for (const Falling& falling : {Falling{100, 0.5, 0}, Falling{40, 1, 0}, Falling{30, 0, 0.08}}) {
    const Verdict v = verdict_of(figure(1, 0.2, falling), figure(1.15, 0.25, falling));
    ASSERT_EQ(v.kind, Kind::kUndecided);
    const auto after = [&](double more) {  // half of them each
      const double share = falling.rate > 0
                               ? std::exp(-falling.rate * more / 2)
                               : std::pow((falling.products + more / 2) / falling.products, -falling.power);
      return verdict_of(figure(1, 0.2 * share, falling), figure(1.15, 0.25 * share, falling)).kind;
    };
    EXPECT_EQ(after(v.products + 1), Kind::kHigher) << v.products;
    EXPECT_EQ(after(0.9 * v.products), Kind::kUndecided) << v.products;
  }
  EXPECT_EQ(verdict_text(verdict_of(figure(1, 0.2, {100, 0.5, 0}), figure(1.2, 0.2, {100, 0.5, 0}))),
            "can't be told: about 600 more products would");
}

TEST(Compare, RoundingIsNotPartedByProducts) {
  const Verdict both = verdict_of(figure(1, 0.2, {}), figure(1.1, 0.2, {}));
  EXPECT_TRUE(std::isinf(both.products));
  EXPECT_EQ(verdict_text(both), "can't be told, and not by more products");
  // One that falls parts from one that doesn't, where this one alone does not reach over.
  const Verdict one = verdict_of(figure(1, 0.05, {}), figure(1.1, 0.2, {100, 0.5, 0}));
  EXPECT_EQ(one.products, 1500);  // 0.2 has to become 0.05: 16 times as many
  EXPECT_TRUE(std::isinf(verdict_of(figure(1, 0, {100, 0.5, 0}), figure(1, 0.1, {100, 0.5, 0})).products));
}

TEST(Compare, KnownSpectra) {
  const std::vector<double> values = {10, 8, 6, 4, 2, 0.5, 0.1, 0, 0, -1};
  std::vector<double> doubled(values), moved(values);
  for (double& x : doubled) x *= 2;
  for (double& x : moved) x += 0.5;
  const NamedResult a{"a.h5", known_result(values)}, b{"b.h5", known_result(doubled)}, c{"c.h5", known_result(moved)};
  const Comparison comparison = compare({a, b, c}, {});
  ASSERT_EQ(comparison.densities.size(), 3U);
  EXPECT_NEAR(comparison.densities[0].value, 0, 1e-15);
  double sum = 0;
  for (const double x : values) sum += std::abs(x) / 10;
  EXPECT_NEAR(comparison.densities[1].value, sum, 1e-12);  // W₁ of x and 2x
  EXPECT_NEAR(comparison.densities[1].shape, 0, 1e-12);    // the same but for the scale
  EXPECT_NEAR(comparison.densities[2].value, 0.5, 1e-12);  // of x and x + ½
  EXPECT_EQ(comparison.densities[2].verdict.kind, Kind::kHigher);
  for (const ComparedFigure& row : comparison.figures) {
    const std::string key = row.figures.front().key;
    if (key == "lambda_1" || key == "frobenius") {
      EXPECT_EQ(row.verdicts[1].kind, Kind::kHigher) << key;
    }
    if (key == "step_gd" || key == "lambda_min") {
      EXPECT_EQ(row.verdicts[1].kind, Kind::kLower) << key;
    }
    if (key == "negative_share") {
      EXPECT_EQ(row.verdicts[1].kind, Kind::kEqual);
    }
    if (key == "outliers") {
      EXPECT_EQ(row.verdicts[1].kind, Kind::kNone);
    }
    if (key == "effective_dimension") {  // of the first one's constants
      const double constant = std::stod(row.figures[0].of.substr(4));
      double dimension = 0;
      for (const double x : doubled) dimension += x > 0 ? x / (x + constant) : 0;
      EXPECT_NEAR(row.figures[1].value, dimension, 1e-12);
    }
  }
  const std::string text = comparison_text(comparison);
  for (const char* piece :
       {"B is b.h5", "Largest eigenvalue\n", "higher", "no interval: no verdict", "Dinh et al. 2017"})
    EXPECT_NE(text.find(piece), std::string::npos) << piece;
}

std::string refusal(const RunResult& first, const RunResult& other, bool force = false) {
  try {
    compare({{"a.h5", first}, {"b.h5", other}}, {}, force);
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

TEST(Compare, RefusesWhatIsNotComparable) {
  const RunResult a = known_result({3, 2, 1});
  RunResult b = a;
  EXPECT_EQ(refusal(a, b), "");
  b.process.curvature = "ggn";
  b.process.reduction = "sum";
  EXPECT_EQ(refusal(a, b),
            "'b.h5' can't be compared with 'a.h5': its matrix is ggn, not hessian; its reduction is sum, not mean");
  RunResult c = a, d = a;
  c.process.config = "label-smoothing = 0\nseed = 1\n";
  d.process.config = "label-smoothing = 0.1\nseed = 2\n";
  EXPECT_EQ(refusal(c, d), "'b.h5' can't be compared with 'a.h5': its --label-smoothing is 0.1, not 0");
  const RunResult larger = known_result({3, 2, 1, 0});
  EXPECT_NE(refusal(a, larger).find("it has 4 parameters, not 3 (--force"), std::string::npos);
  EXPECT_EQ(refusal(a, larger, true), "");
}

TEST(Compare, WarnsOfOtherData) {
  RunResult a = known_result({3, 2, 1}), b = a;
  a.process.data = {{"x.h5", "12"}};
  b.process.data = {{"y.h5", "34"}};
  const Comparison comparison = compare({{"a.h5", a}, {"b.h5", b}}, {});
  ASSERT_EQ(comparison.warnings.size(), 1U);
  EXPECT_NE(comparison.warnings[0].find("other data"), std::string::npos);
}

TEST(Compare, OneModelAloneIsNotGraded) {
  try {
    compare({{"a.h5", known_result({3, 2, 1})}}, {});
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_NE(std::string(error.what()).find("Dinh et al. 2017"), std::string::npos);
  }
}

}  // namespace
}  // namespace hesspect::compare_test
