// Rank correlations against SciPy's, and whether their intervals hold.
#include "hesspect/spectrum/rank_correlation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <random>

namespace hesspect::rank_correlation_test {
namespace {

const std::vector<double> x{3, 1, 4, 1, 5, 9, 2, 6}, y{2, 7, 1, 8, 2, 8, 1, 8}, z{1, 4, 1, 4, 2, 1, 3, 5};

/// scipy.stats.spearmanr 1.17.1, and NumPy for the rest of the formulas.
TEST(RankCorrelation, IsSciPys) {
  const RankCorrelation plain = spearman(x, y, 0.9), partial = partial_spearman(x, y, z, 0.9);
  EXPECT_NEAR(plain.value, 0.19885368120992467, 1e-14);
  EXPECT_NEAR(plain.lower, -0.49397024030679043, 1e-9);
  EXPECT_NEAR(plain.upper, 0.7372263357294774, 1e-9);
  EXPECT_NEAR(partial.value, 0.4118171044771041, 1e-14);
  EXPECT_NEAR(partial.lower, -0.3959101100280853, 1e-9);
  EXPECT_NEAR(partial.upper, 0.8602704962542301, 1e-9);
  EXPECT_EQ(plain.count, 8);
}

TEST(RankCorrelation, IsUnknownWhereNothingCanBeSaid) {
  EXPECT_TRUE(std::isnan(spearman({1, 2, 3, 4}, {1, 2, 3, 4}, 0.9).value));  // too few
  EXPECT_TRUE(std::isnan(spearman({1, 1, 1, 1, 1, 1}, {1, 2, 3, 4, 5, 6}, 0.9).value));
  EXPECT_TRUE(std::isnan(partial_spearman({1, 2, 3, 4, 5}, {5, 2, 3, 1, 4}, {1, 2, 3, 4, 5}, 0.9).value));
  const RankCorrelation perfect = spearman({1, 2, 3, 4, 5}, {2, 4, 5, 7, 9}, 0.9);
  EXPECT_EQ(perfect.value, 1);
  EXPECT_EQ(perfect.upper, 1);
  EXPECT_LT(perfect.lower, 0.6);  // five pairs in order are no certainty
}

/// Of normal pairs of correlation r the ranks' is 6/π asin(r/2).
TEST(RankCorrelation, IntervalsHold) {
  std::mt19937_64 random(7);
  std::normal_distribution<double> normal;
  for (const double r : {0.0, 0.6, 0.9})
    for (const int count : {8, 30, 120}) {
      const double truth = 6 / std::numbers::pi * std::asin(r / 2);
      int held = 0;
      constexpr int kTrials = 400;
      for (int t = 0; t < kTrials; ++t) {
        std::vector<double> a, b;
        for (int i = 0; i < count; ++i) {
          a.push_back(normal(random));
          b.push_back(r * a.back() + std::sqrt(1 - r * r) * normal(random));
        }
        const RankCorrelation found = spearman(a, b, 0.9);
        held += found.lower <= truth && truth <= found.upper;
      }
      EXPECT_GE(held, 0.88 * kTrials) << r << ", " << count;
    }
}

}  // namespace
}  // namespace hesspect::rank_correlation_test
