// Figures over rows: against closed forms, and how often their intervals hold.
#include "hesspect/spectrum/row_figures.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace hesspect::row_figures_test {
namespace {

TEST(RowFigures, ConfidencesFallInHalfOpenBins) {
  EXPECT_EQ(confidence_bin(1e-9), 0);
  EXPECT_EQ(confidence_bin(1.0 / 15), 0);
  EXPECT_EQ(confidence_bin(1.0 / 15 + 1e-9), 1);
  EXPECT_EQ(confidence_bin(0.5), 7);
  EXPECT_EQ(confidence_bin(1), 14);
}

/// Tables of Clopper and Pearson: 5 of 10 at 95 %, and the rule of three for none.
TEST(RowFigures, BinomialIntervals) {
  const Interval half = binomial_interval(5, 10, 0.95);
  EXPECT_NEAR(half.lower, 0.1871, 1e-4);
  EXPECT_NEAR(half.upper, 0.8129, 1e-4);
  const Interval none = binomial_interval(0, 20, 0.9);
  EXPECT_EQ(none.lower, 0);
  EXPECT_NEAR(none.upper, 1 - std::pow(0.05, 1 / 20.0), 1e-12);
  EXPECT_EQ(binomial_interval(20, 20, 0.9).upper, 1);
}

TEST(RowFigures, RatiosAreStudentsWhereRowsAreNotSkewed) {
  const std::vector<double> even{1, 3, 5, 7}, sums{1, 2, 4, 9}, ones(4, 1.0);
  const Interval symmetric = ratio_over_rows(even, ones, 0.9);
  EXPECT_NEAR(symmetric.upper, 4 + 2.353363 * std::sqrt(20 / 3.0 / 4), 1e-5);
  EXPECT_NEAR(symmetric.lower, 4 - 2.353363 * std::sqrt(20 / 3.0 / 4), 1e-5);
  // Hall's transformation g(T) = T + aT²/3 + a²T³/27 + a/6 is ∓ the quantile at the ends.
  const Interval i = ratio_over_rows(sums, ones, 0.9);
  const double error = std::sqrt((9 + 4 + 0 + 25) / 3.0 / 4), a = (-27 - 8 + 0 + 125) / 64.0 / std::pow(error, 3);
  const auto g = [a](double t) { return t + a * t * t / 3 + a * a * t * t * t / 27 + a / 6; };
  EXPECT_EQ(i.value, 4);
  EXPECT_NEAR(g((4 - i.upper) / error), -2.353363, 1e-5);
  EXPECT_NEAR(g((4 - i.lower) / error), 2.353363, 1e-5);
  EXPECT_GT(i.upper - 4, 4 - i.lower) << "the tail is above";
  EXPECT_TRUE(std::isnan(ratio_over_rows(std::vector<double>{1}, std::vector<double>{1}, 0.9).lower));
  // A row without terms is none.
  const Interval with_empty =
      ratio_over_rows(std::vector<double>{1, 2, 0, 4, 9}, std::vector<double>{1, 1, 0, 1, 1}, 0.9);
  EXPECT_NEAR(with_empty.upper, i.upper, 1e-12);
}

/// Rows of one term each: confidence, and whether it is right with the probability confidence − bias.
RowSums rows_of(std::mt19937_64& random, int count, double bias) {
  RowSums rows;
  std::uniform_real_distribution<double> uniform;
  for (int i = 0; i < count; ++i) {
    const double confidence = 0.4 + 0.6 * std::sqrt(uniform(random));
    const double right = uniform(random) < std::max(0.0, confidence - bias) ? 1 : 0;
    rows.loss.push_back(-std::log(right > 0 ? confidence : 1 - confidence + 1e-9));
    rows.loss_count.push_back(1);
    rows.terms.push_back(1);
    rows.correct.push_back(right);
    rows.nll.push_back(rows.loss.back());
    rows.brier.push_back(0);
    rows.bin_row.push_back(i);
    rows.bin.push_back(confidence_bin(confidence));
    rows.bin_terms.push_back(1);
    rows.bin_correct.push_back(right);
    rows.bin_confidence.push_back(confidence);
  }
  return rows;
}

double mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

TEST(RowFigures, IntervalsHoldWhatTheyClaim) {
  std::mt19937_64 random(3);
  for (const double bias : {0.0, 0.1})
    for (const int rows : {60, 200}) {
      const double accurate = mean_of(rows_of(random, 200'000, bias).correct);
      int ece = 0, accuracy = 0;
      constexpr int kRuns = 200;
      for (int run = 0; run < kRuns; ++run) {
        const DataQuality q = quality_of(rows_of(random, rows, bias), 0.9, static_cast<std::uint64_t>(run));
        // The model is as sure of itself in every bin as it is right, but for the bias.
        ece += q.ece.lower <= bias && bias <= q.ece.upper ? 1 : 0;
        accuracy += q.accuracy.lower <= accurate && accurate <= q.accuracy.upper ? 1 : 0;
      }
      EXPECT_GE(ece, 0.88 * kRuns) << bias << " " << rows;
      EXPECT_GE(accuracy, 0.88 * kRuns) << bias << " " << rows;
    }
}

/// A mean of rows with a long tail, as log-likelihoods have (skewness 2.4); Student's alone held in 87 % of 60 rows.
TEST(RowFigures, MeansOfSkewedRowsHold) {
  std::mt19937_64 random(31);
  for (const double bias : {0.0, 0.1})
    for (const int rows : {60, 200}) {
      const double log_loss = mean_of(rows_of(random, 1'000'000, bias).nll);
      const std::vector<double> ones(static_cast<std::size_t>(rows), 1.0);
      int held = 0;
      constexpr int kRuns = 2000;
      for (int run = 0; run < kRuns; ++run) {
        const Interval i = ratio_over_rows(rows_of(random, rows, bias).nll, ones, 0.9);
        held += i.lower <= log_loss && log_loss <= i.upper ? 1 : 0;
      }
      std::printf("bias %g, %d rows: NLL %d of %d\n", bias, rows, held, kRuns);
      EXPECT_GE(held, 0.88 * kRuns) << bias << " " << rows;
    }
}

/// Quadratic forms of ten random vectors in a matrix with one eigenvalue far out, and the ratio of two of them.
TEST(RowFigures, MeansOverRandomVectorsHold) {
  std::mt19937_64 random(17);
  std::normal_distribution<double> normal;
  constexpr int kRuns = 300, kVectors = 10, kBulk = 20;
  int mean = 0, ratio = 0;
  for (int run = 0; run < kRuns; ++run) {
    std::vector<double> forms, others;
    for (int i = 0; i < kVectors; ++i) {
      double bulk = 0;
      for (int k = 0; k < kBulk; ++k) bulk += std::pow(normal(random), 2);
      const double first = std::pow(normal(random), 2);
      forms.push_back(10 * first + bulk);
      others.push_back(4 * first + 2 * bulk);
    }
    const Interval m = mean_over_samples(forms, 0.9), r = ratio_over_samples(forms, others, 0.9);
    mean += m.lower <= 10 + kBulk && 10 + kBulk <= m.upper ? 1 : 0;
    const double truth = (10.0 + kBulk) / (4 + 2 * kBulk);
    ratio += r.lower <= truth && truth <= r.upper ? 1 : 0;
  }
  std::printf("means over ten random vectors: %d, ratios %d of %d\n", mean, ratio, kRuns);
  EXPECT_GE(mean, 0.88 * kRuns);
  EXPECT_GE(ratio, 0.88 * kRuns);
}

TEST(RowFigures, TheBootstrapDependsOnItsSeedAlone) {
  std::mt19937_64 random(5);
  const RowSums rows = rows_of(random, 200, 0.1);
  EXPECT_EQ(quality_of(rows, 0.9, 4).ece.upper, quality_of(rows, 0.9, 4).ece.upper);
  EXPECT_NE(quality_of(rows, 0.9, 4).ece.upper, quality_of(rows, 0.9, 5).ece.upper);
  RowSums halves = rows;
  halves.append(rows);
  EXPECT_EQ(halves.bin_row.back(), 399);
  EXPECT_NEAR(quality_of(halves, 0.9, 4).ece.value, quality_of(rows, 0.9, 4).ece.value, 1e-12);
}

TEST(RowFigures, DifferencesOfTwoDataSets) {
  const std::vector<double> a{1, 2, 3, 4}, b{5, 5, 6, 8, 6}, ones_a(4, 1.0), ones_b(5, 1.0);
  const Interval gap = difference_over_rows(a, ones_a, b, ones_b, 0.9);
  EXPECT_NEAR(gap.value, 3.5, 1e-12);
  const double error = std::sqrt(5.0 / 3 / 4 + 6.0 / 4 / 5);
  // Rows of both together are hardly skewed: 3.6 − 3 of the second alone.
  EXPECT_NEAR(gap.upper, 3.5 + 2.353363 * error, 0.3);
  EXPECT_GT(gap.upper - 3.5, 3.5 - gap.lower);
  const Interval back = difference_over_rows(b, ones_b, a, ones_a, 0.9);
  EXPECT_NEAR(back.lower, -gap.upper, 1e-12);
  EXPECT_NEAR(back.upper, -gap.lower, 1e-12);
}

}  // namespace
}  // namespace hesspect::row_figures_test
