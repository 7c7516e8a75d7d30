// The change of a trace from one matrix of a sequence to the next: the sequence is planted, its changes are known.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "hesspect/spectrum/trace.h"
#include "hesspect/spectrum/trace_change.h"

namespace hesspect::trace_change_test {
namespace {

constexpr int kSize = 40;
using Matrix = std::vector<double>;  // [kSize][kSize], symmetric

Matrix random_symmetric(std::mt19937_64& random, double scale) {
  std::normal_distribution<double> normal(0, scale);
  Matrix a(kSize * kSize);
  for (int i = 0; i < kSize; ++i)
    for (int j = 0; j <= i; ++j) a[i * kSize + j] = a[j * kSize + i] = normal(random);
  return a;
}

Matrix sum(const Matrix& a, const Matrix& b) {
  Matrix c = a;
  for (std::size_t i = 0; i < c.size(); ++i) c[i] += b[i];
  return c;
}

double trace(const Matrix& a) {
  double value = 0;
  for (int i = 0; i < kSize; ++i) value += a[i * kSize + i];
  return value;
}

/// Random signs, by number alone: the same vector at each matrix.
std::vector<double> probe(std::uint64_t seed, std::int64_t number) {
  std::mt19937_64 random(seed * 1000 + static_cast<std::uint64_t>(number));
  std::vector<double> z(kSize);
  for (double& one : z) one = (random() & 1) != 0 ? 1 : -1;
  return z;
}

std::vector<DeflatedSample> samples_of(const Matrix& a, std::uint64_t seed, std::int64_t first, std::int64_t count) {
  std::vector<DeflatedSample> samples;
  for (std::int64_t p = first; p < first + count; ++p) {
    const std::vector<double> z = probe(seed, p);
    DeflatedSample sample{p, 0, 0, {}};
    for (int i = 0; i < kSize; ++i) {
      double row = 0;
      for (int j = 0; j < kSize; ++j) row += a[i * kSize + j] * z[static_cast<std::size_t>(j)];
      sample.quadratic_form += z[static_cast<std::size_t>(i)] * row;
      sample.product_norm_sq += row * row;
    }
    samples.push_back(std::move(sample));
  }
  return samples;
}

struct Outcome {
  int held = 0, trials = 0, paired = 0;
  double narrower = 0;  // mean of the half width over that of two independent traces
};

/// Changes of a sequence in which each matrix is the one before and a change of `drift` times its size.
/// @param shift  of the second matrix's first probe against the first one's
Outcome outcome(double drift, std::int64_t count, std::int64_t shift) {
  Outcome all;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    std::mt19937_64 random(seed);
    Matrix a = random_symmetric(random, 1);
    for (int step = 0; step < 5; ++step) {
      const Matrix b = sum(a, random_symmetric(random, drift));
      const auto before = samples_of(a, seed * 10 + static_cast<std::uint64_t>(step), 0, count);
      const auto now = samples_of(b, seed * 10 + static_cast<std::uint64_t>(step), shift, count);
      const TraceRule rule{.confidence = 0.9};
      const TraceEstimate first = trace_estimate(0, before, rule), second = trace_estimate(0, now, rule);
      const TraceChange change = trace_change({first, before}, {second, now});
      ++all.trials;
      all.held += std::abs(change.value - (trace(b) - trace(a))) <= change.half_width;
      all.paired += change.probes > 0;
      all.narrower += change.half_width / std::hypot(first.half_width, second.half_width);
      a = b;
    }
  }
  all.narrower /= all.trials;
  return all;
}

TEST(TraceChange, IntervalsHoldAndAreNarrowWhereLittleChanges) {
  for (const std::int64_t count : {2, 3, 6, 12}) {
    SCOPED_TRACE(count);
    for (const double drift : {0.03, 0.3, 1.0, 10.0}) {
      SCOPED_TRACE(drift);
      const Outcome found = outcome(drift, count, 0);
      EXPECT_GE(found.held, 0.9 * found.trials);
      if (drift == 0.03 && count >= 3) {
        EXPECT_EQ(found.paired, found.trials);
        // The spread of the few samples is √drift² of that of the matrices, and Student's quantile is wider.
        EXPECT_LT(found.narrower, count == 3 ? 0.15 : 0.08);
      }
    }
  }
}

TEST(TraceChange, WithoutVectorsInCommonIsTheDifference) {
  const Outcome found = outcome(0.3, 6, 6);
  EXPECT_EQ(found.paired, 0);
  EXPECT_DOUBLE_EQ(found.narrower, 1);
  EXPECT_GE(found.held, 0.9 * found.trials);
}

TEST(TraceChange, WhatASpaceHasCapturedCounts) {
  std::mt19937_64 random(3);
  const Matrix a = random_symmetric(random, 1);
  const auto samples = samples_of(a, 1, 0, 4);
  const TraceEstimate first = trace_estimate(10, samples, {}), second = trace_estimate(12.5, samples, {});
  const TraceChange change = trace_change({first, samples}, {second, samples});
  EXPECT_DOUBLE_EQ(change.value, 2.5);
  EXPECT_EQ(change.standard_error, 0);
  EXPECT_EQ(change.probes, 4);
}

}  // namespace
}  // namespace hesspect::trace_change_test
