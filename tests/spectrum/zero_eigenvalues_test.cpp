// Spectra with dimensions left out in which the matrix is zero, against the spectra of the whole matrices.
#include "hesspect/spectrum/zero_eigenvalues.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "hesspect/spectrum/cumulative.h"
#include "hesspect/spectrum/density.h"
#include "krylov/test_operators.h"
#include "spectrum/run_probe.h"

namespace hesspect::zero_eigenvalues_test {
namespace {

using testing::DiagonalOperator;

LocalCommunicator local;

EigenEstimate value_of(double value, bool converged = true) {
  EigenEstimate one;
  one.value = value;
  one.converged = converged;
  one.true_residual = 1e-9;
  return one;
}

std::vector<double> values(const std::vector<EigenEstimate>& list) {
  std::vector<double> all;
  for (const EigenEstimate& one : list) all.push_back(one.value);
  return all;
}

/// The lists of a matrix whose eigenvalues in use are these, descending.
EigenResult lists_of(const std::vector<double>& in_use, std::size_t top, std::size_t bottom) {
  EigenResult result;
  top = std::min(top, in_use.size());
  bottom = std::min(bottom, in_use.size() - top);
  for (std::size_t i = 0; i < top; ++i) result.top.push_back(value_of(in_use[i]));
  for (std::size_t i = in_use.size() - bottom; i < in_use.size(); ++i) result.bottom.push_back(value_of(in_use[i]));
  result.converged = true;
  return result;
}

// For every number of zeros and every length of the lists they are what sorting all eigenvalues gives.
TEST(EigenvaluesWithZeros, ListsAreThoseOfAllEigenvaluesSorted) {
  for (const std::vector<double>& in_use :
       {std::vector<double>{5, 3, 1, -2, -4}, {5, 4, 3, 2, 1}, {-1, -2, -3}, {7}, {5, 0, -1}})
    for (std::int64_t zeros = 0; zeros <= 6; ++zeros)
      for (std::size_t top = 0; top <= 8; ++top)
        for (std::size_t bottom = 0; bottom <= 8; ++bottom) {
          std::vector<double> all = in_use;
          all.insert(all.end(), static_cast<std::size_t>(zeros), 0);
          std::ranges::sort(all, std::greater<>());
          const std::size_t first = std::min(top, all.size()), last = std::min(bottom, all.size() - first);
          const EigenvaluesWithZeros found = with_zeros(
              lists_of(in_use, top, bottom), {static_cast<std::int64_t>(top), static_cast<std::int64_t>(bottom), 0},
              std::ssize(in_use), zeros);
          const std::size_t listed =
              std::min(top, in_use.size()) + std::min(bottom, in_use.size() - std::min(top, in_use.size()));
          // Where values in use are left unlisted between the lists, they are not needed.
          EXPECT_EQ(values(found.result.top),
                    std::vector<double>(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(first)));
          EXPECT_EQ(values(found.result.bottom),
                    std::vector<double>(all.end() - static_cast<std::ptrdiff_t>(last), all.end()))
              << zeros << " zeros, " << top << " and " << bottom << ", " << listed << " listed";
          ASSERT_EQ(found.source.size(), first + last);
          const EigenResult from = lists_of(in_use, top, bottom);
          std::vector<EigenEstimate> listed_values = from.top;
          listed_values.insert(listed_values.end(), from.bottom.begin(), from.bottom.end());
          std::vector<double> merged = values(found.result.top);
          for (const EigenEstimate& one : found.result.bottom) merged.push_back(one.value);
          for (std::size_t i = 0; i < merged.size(); ++i)
            EXPECT_EQ(merged[i], found.source[i] ? listed_values.at(*found.source[i]).value : 0);
        }
}

TEST(EigenvaluesWithZeros, OfLargestMagnitudeZerosComeLast) {
  EigenResult result;
  for (const double value : {5.0, -4.0, 0.5}) result.magnitude.push_back(value_of(value));
  EXPECT_EQ(values(with_zeros(result, {0, 0, 3}, 9, 4).result.magnitude), (std::vector<double>{5, -4, 0.5}));
  EXPECT_EQ(values(with_zeros(result, {0, 0, 5}, 3, 4).result.magnitude), (std::vector<double>{5, -4, 0.5, 0, 0}));
  EXPECT_EQ(values(with_zeros(result, {0, 0, 5}, 9, 4).result.magnitude), (std::vector<double>{5, -4, 0.5}));
}

// A value that has not converged may yet sink below zero: the zero in its place is no settled answer.
TEST(EigenvaluesWithZeros, AZeroIsAsSettledAsWhatItReplaces) {
  EigenResult result;
  result.top = {value_of(9), value_of(8)};
  result.bottom = {value_of(2, false), value_of(1, true)};
  const EigenResult found = with_zeros(result, {2, 2, 0}, 100, 50).result;
  EXPECT_EQ(values(found.bottom), (std::vector<double>{0, 0}));
  EXPECT_FALSE(found.bottom[0].converged && found.bottom[1].converged);
  EXPECT_EQ(found.bottom[0].residual, 0);
  EXPECT_EQ(found.bottom[0].true_residual, 0);
}

/// F of a list of eigenvalues.
double share_up_to(const std::vector<double>& eigenvalues, double x) {
  return static_cast<double>(std::ranges::count_if(eigenvalues, [&](double value) { return value <= x; })) /
         static_cast<double>(eigenvalues.size());
}

TEST(DensityWithZeros, AnExactOneIsThatOfAllEigenvalues) {
  for (const double lowest : {-3.0, 0.5}) {
    std::vector<double> eigenvalues;
    for (int i = 0; i < 20; ++i) eigenvalues.push_back(lowest + 0.37 * i + 0.01 * i * i);
    DiagonalOperator op(local, 20, at::kDouble,
                        [&](std::int64_t i) { return eigenvalues[static_cast<std::size_t>(i)]; });
    const ProbeQuadrature q = run_probe(op, 0, {.steps = 20}).quadrature;
    const CumulativeDensity found = with_zeros(cumulative_density(std::span(&q, 1), 20), 20, 30);
    ASSERT_EQ(found.band, "exact");
    eigenvalues.insert(eigenvalues.end(), 30, 0.0);
    for (std::size_t i = 0; i < found.lambda.size(); ++i) {
      EXPECT_NEAR(found.cumulative[i], share_up_to(eigenvalues, found.lambda[i] + 1e-9), 1e-12);
      EXPECT_LE(found.lower[i], found.cumulative[i] + 1e-15);
      EXPECT_GE(found.upper[i], found.cumulative[i] - 1e-15);
      if (i > 0) {
        EXPECT_LT(found.lambda[i - 1], found.lambda[i]);
      }
    }
    EXPECT_NEAR(found.weight_at_zero.value, 0.6, 1e-12);
    double mean = 0, square = 0;
    for (const double value : eigenvalues) mean += value / 50, square += value * value / 50;
    EXPECT_NEAR(found.moments[0].value, mean, 1e-12);
    EXPECT_NEAR(found.moments[1].value, square, 1e-11);
    EXPECT_LE(found.range_lo, 0);

    const double sigma = 0.5;
    const Density density = hesspect::density(std::span(&q, 1), {.sigma = sigma, .n = 20, .zeros = 30});
    for (std::size_t i = 0; i < density.lambda.size(); ++i) {
      double exact = 0;
      for (const double value : eigenvalues)
        exact += std::exp(-0.5 * std::pow((density.lambda[i] - value) / sigma, 2)) / (50 * sigma * std::sqrt(2 * M_PI));
      EXPECT_NEAR(density.density[i], exact, 1e-9);
    }
  }
}

// The bound that few steps leave holds for the whole, and is smaller than without knowing the zeros.
TEST(DensityWithZeros, TheBoundHoldsForAllEigenvalues) {
  std::vector<double> eigenvalues;
  for (int i = 0; i < 400; ++i) eigenvalues.push_back(std::sin(0.7 * i) + 0.002 * i);
  DiagonalOperator op(local, 400, at::kDouble,
                      [&](std::int64_t i) { return eigenvalues[static_cast<std::size_t>(i)]; });
  const ProbeQuadrature q = run_probe(op, 0, {.steps = 12}).quadrature;
  const CumulativeDensity in_use = cumulative_density(std::span(&q, 1), 400);
  const CumulativeDensity found = with_zeros(in_use, 400, 600);
  EXPECT_NEAR(found.w1, 0.4 * in_use.w1, 1e-15);
  eigenvalues.insert(eigenvalues.end(), 600, 0.0);
  double w1 = 0;
  const double step = 1e-4;
  for (double x = -1.5; x < 2.5; x += step) {
    const auto at = std::upper_bound(found.lambda.begin(), found.lambda.end(), x) - found.lambda.begin();
    const double f = at == 0 ? 0 : found.cumulative[static_cast<std::size_t>(at - 1)];
    w1 += step * std::abs(f - share_up_to(eigenvalues, x));
  }
  EXPECT_LE(w1, found.w1);
}

}  // namespace
}  // namespace hesspect::zero_eigenvalues_test
