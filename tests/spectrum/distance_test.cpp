// Traces of layers weighted by distances, against a matrix whose traces are known.
#include "hesspect/spectrum/distance.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "hesspect/spectrum/trace.h"

namespace hesspect::distance_test {
namespace {

/// Layers of a dense symmetric matrix of three layers of two entries: z_l · (Az)_l for random signs z.
struct Dense {
  double a[6][6];
  explicit Dense(std::mt19937_64& random) {
    std::normal_distribution<double> normal;
    for (int i = 0; i < 6; ++i)
      for (int j = 0; j <= i; ++j) a[i][j] = a[j][i] = normal(random);
  }
  double trace(int layer) const { return a[2 * layer][2 * layer] + a[2 * layer + 1][2 * layer + 1]; }
  DeflatedSample sample(std::mt19937_64& random) const {
    double z[6];
    for (double& x : z) x = random() & 1 ? 1 : -1;
    DeflatedSample s;
    for (int l = 0; l < 3; ++l) {
      double sum = 0;
      for (int i = 2 * l; i < 2 * l + 2; ++i)
        for (int j = 0; j < 6; ++j) sum += z[i] * a[i][j] * z[j];
      s.layers.push_back(sum);
      s.quadratic_form += sum;
    }
    return s;
  }
};

TEST(Distance, IntervalsOfTheWeightedTraceHoldIt) {
  std::mt19937_64 random(7);
  int held = 0, layer_held = 0;
  for (int run = 0; run < 400; ++run) {
    const Dense matrix(random);
    std::vector<DeflatedSample> samples;
    for (int i = 0; i < 12; ++i) samples.push_back(matrix.sample(random));
    const std::vector<LayerEstimate> layers =
        layer_estimates({"a", "b", "c"}, std::vector<std::int64_t>{2, 2, 2}, {}, samples);
    InitialDistance initial;
    initial.layers = {{"a", 2, 1}, {"b", 2, 3}, {"c", 2, 0.5}};
    weigh_by_distance(initial, layers, {}, samples, 0.9, 0);
    const double exact = matrix.trace(0) + 9 * matrix.trace(1) + 0.25 * matrix.trace(2);
    held += std::abs(initial.weighted_trace.value - exact) <= initial.half_width ? 1 : 0;
    double sum = 0;
    for (const LayerDistance& layer : initial.layers) sum += layer.weighted.value;
    EXPECT_NEAR(sum, initial.weighted_trace.value, 1e-12 * (1 + std::abs(sum)));
    layer_held += std::abs(initial.layers[1].weighted.value - 9 * matrix.trace(1)) <=
                          sampled_quantile(0.9, 12) * initial.layers[1].weighted.standard_error
                      ? 1
                      : 0;
  }
  EXPECT_GE(held, 352);        // 88 % at a nominal 90 %
  EXPECT_GE(layer_held, 352);  // a layer's own
}

TEST(Distance, WhatIsCapturedCountsExactly) {
  InitialDistance initial;
  initial.layers = {{"a", 2, 2}, {"b", 2, 3}};
  const std::vector<double> captured{5, 7};
  std::vector<DeflatedSample> samples(2);
  for (DeflatedSample& s : samples) s.layers = {0, 0};
  const auto layers = layer_estimates({"a", "b"}, std::vector<std::int64_t>{2, 2}, captured, samples);
  weigh_by_distance(initial, layers, captured, samples, 0.9, 0);
  EXPECT_EQ(initial.weighted_trace.value, 4 * 5 + 9 * 7);
  EXPECT_EQ(initial.half_width, 0);
  weigh_by_distance(initial, layers, captured, std::span(samples).first(1), 0.9, 0);
  EXPECT_EQ(initial.weighted_trace.value, 83);
  EXPECT_TRUE(std::isnan(initial.weighted_trace.standard_error));
}

}  // namespace
}  // namespace hesspect::distance_test
