// Figures against closed forms on known spectra, and stable steps against taking them.
#include "hesspect/report/figures.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "report/known_result.h"

namespace hesspect::figures_test {
namespace {

using testing::known_result;

/// Not there unless the result has what they are of.
const std::set<std::string> kOfOtherCommands = {"layer_trace",
                                                "sam_rise",
                                                "adaptive_rise",
                                                "step_checked",
                                                "critical_sharpness",
                                                "basin_radius",
                                                "input_curvature",
                                                "input_change",
                                                "off_block_share",
                                                "js_distance",
                                                "distance",
                                                "weighted_trace",
                                                "layer_weighted_trace",
                                                "adam_lambda_1",
                                                "adam_rate",
                                                "feature_largest",
                                                "feature_mean",
                                                "feature_change",
                                                "feature_correlation",
                                                "fisher_rao",
                                                "fisher_trace",
                                                "empirical_fisher_trace",
                                                "tic",
                                                "relative_flatness",
                                                "loss_gap",
                                                "data_loss",
                                                "accuracy",
                                                "nll",
                                                "ece",
                                                "brier"};

std::map<std::string, Figure> by_key(const RunResult& result, const FigureOptions& options = {}) {
  std::map<std::string, Figure> all;
  for (const Figure& figure : figures_of(result, options)) all.emplace(figure.key, figure);  // the first of each
  return all;
}

TEST(Figures, OfAKnownSpectrum) {
  RunResult r = known_result({10, 8, 6, 4, 2, 0.5, 0, 0, -1, -0.25});
  r.trace = TraceEstimate{29.25, 0.1, 0.2, 0.9, 16, 14, 0, 0, "hutchinson", true};
  auto f = by_key(r, {0.9, 2.0});
  EXPECT_EQ(f["lambda_1"].value, 10);
  EXPECT_NEAR(f["lambda_1"].upper, 10.001, 1e-12);
  EXPECT_EQ(f["lambda_ratio"].value, 5);
  EXPECT_NEAR(f["lambda_ratio"].lower, 9.999 / 2.001, 1e-12);
  EXPECT_NEAR(f["lambda_ratio"].upper, 10.001 / 1.999, 1e-12);
  EXPECT_EQ(f["lambda_min"].value, -1);
  EXPECT_NEAR(f["step_gd"].value, 0.2, 1e-15);
  EXPECT_NEAR(f["step_gd"].lower, 2 / 10.001, 1e-12);
  EXPECT_NEAR(f["step_gd"].upper, 2 / 9.999, 1e-12);
  EXPECT_EQ(f["trace"].lower, 29.05);
  EXPECT_NEAR(f["mean_eigenvalue"].value, 2.925, 1e-15);
  EXPECT_NEAR(f["mean_eigenvalue"].upper, 2.945, 1e-12);
  EXPECT_NEAR(f["frobenius"].value, std::sqrt(100 + 64 + 36 + 16 + 4 + 0.25 + 1 + 0.0625), 1e-12);
  const double dimension = 10 / 12.0 + 8 / 10.0 + 6 / 8.0 + 4 / 6.0 + 2 / 4.0 + 0.5 / 2.5;
  EXPECT_NEAR(f["effective_dimension"].value, dimension, 1e-12);
  EXPECT_EQ(f["effective_dimension"].of, "c = 2");
  EXPECT_NEAR(f["effective_dimension"].lower, dimension, 1e-12);  // all is found: nothing is uncertain
  EXPECT_NEAR(f["negative_mass"].value, 0.2, 1e-15);
  EXPECT_NEAR(f["negative_share"].value, 1.25 / (30.5 + 1.25), 1e-12);
  for (const Definition& definition : definitions())
    if (!kOfOtherCommands.contains(definition.key)) {
      EXPECT_TRUE(f.contains(definition.key)) << definition.key;
    }
}

/// λ² x²/2: a step below the stable one comes to rest, one above it grows.
TEST(Figures, StableStepsAreThoseThatStayBounded) {
  const double beta = 0.8;
  auto f = by_key(known_result({7, 3, 1, 0.5, 0.2, -0.1}), {beta, 0});
  const auto ends_at = [&](double eta, double momentum, bool nesterov) {
    double x = 1, v = 0;  // along the first eigenvector; v as in PyTorch's SGD
    for (int step = 0; step < 4000 && std::abs(x) < 1e6; ++step) {
      const double gradient = 7 * x;
      v = momentum * v + gradient;
      x -= eta * (nesterov ? gradient + momentum * v : v);
    }
    return std::abs(x);
  };
  const auto check = [&](const std::string& key, double momentum, bool nesterov) {
    EXPECT_LT(ends_at(0.99 * f[key].value, momentum, nesterov), 1e-3) << key;
    EXPECT_GT(ends_at(1.01 * f[key].value, momentum, nesterov), 1e3) << key;
  };
  check("step_gd", 0, false);
  check("step_momentum", beta, false);
  check("step_nesterov", beta, true);
}

TEST(Figures, OutliersStandAboveTheWidestGap) {
  auto f = by_key(known_result({100, 90, 80, 10, 9, 8.5, 0, 0, 0, 0}, 6));
  EXPECT_EQ(f["outliers"].value, 3);
  EXPECT_EQ(f["bulk_edge"].value, 10);
  EXPECT_FALSE(f["outliers"].has_interval());
  f = by_key(known_result({10, 9, 8, 7, 6, 5, 4.5, 4, 3.5, 3}, 10));
  EXPECT_EQ(f["outliers"].value, 0);
  EXPECT_EQ(f["bulk_edge"].value, 10);
}

TEST(Figures, TheBulkExponentOfAPowerLaw) {
  for (const double s : {0.8, 1.3}) {
    std::vector<double> values;
    for (int k = 1; k <= 5000; ++k) values.push_back(20 * std::pow(k, -s));
    RunResult r = known_result(values);
    const Figure figure = by_key(r)["bulk_exponent"];
    EXPECT_NEAR(figure.value, s, 0.04 * s) << figure.note << figure.missing;
    ASSERT_TRUE(figure.has_interval());
    EXPECT_LE(figure.lower, figure.value);
    EXPECT_GE(figure.upper, figure.value);
  }
  EXPECT_FALSE(by_key(known_result({1, 1, 1, 1, 1}))["bulk_exponent"].known());
}

TEST(Figures, WhatTheResultLacksSaysWhy) {
  RunResult r;
  r.diagnostics.parameters = 10;
  for (const Figure& figure : figures_of(r, {})) {
    EXPECT_FALSE(figure.known()) << figure.key;
    EXPECT_TRUE(std::isnan(figure.value)) << figure.key;
  }
  r.eigenvalues.emplace().magnitude = {{-5, 0, 0, 0.1, true}, {4, 0, 0, 0.1, true}};
  auto f = by_key(r);
  EXPECT_EQ(f["lambda_1"].value, 4);
  EXPECT_EQ(f["lambda_min"].value, -5);
  EXPECT_FALSE(f["lambda_ratio"].known());
  r.eigenvalues->magnitude = {{-5, 0, 0, 0.1, true}};
  EXPECT_FALSE(by_key(r)["lambda_1"].known());  // it is somewhere below 5
  EXPECT_FALSE(by_key(r)["step_gd"].known());
}

TEST(Figures, WhatWasMeasuredByTheLossItself) {
  RunResult r;
  Sharpness s;
  s.ascents = {{0.05, false, 0.2, 0.3, 0.1}, {0.5, true, 0.7, NAN, 0.4}};
  s.steps = {{"gradient descent", 0.2, 0.9, 1.1, 0.9, 1.1}};
  s.critical = {0.5, 4, 3.5};
  s.basin = {0.1, {0.3, 0.1, 0.2}};
  r.sharpness = s;
  auto f = by_key(r);
  EXPECT_EQ(f.size(), 5U);  // and no line for each of a spectrum's that it lacks
  EXPECT_EQ(f["sam_rise"].value, 0.3);
  EXPECT_EQ(f["sam_rise"].of, "ρ = 0.05");
  EXPECT_EQ(f["adaptive_rise"].value, 0.7);
  EXPECT_TRUE(f["step_checked"].note.starts_with("confirmed"));
  EXPECT_EQ(f["critical_sharpness"].value, 4);
  EXPECT_EQ(f["basin_radius"].value, 0.2);
  r.inputs.emplace().quantiles = {{0.5, {}, {}, {3, 2, 4}, {0.1, 0.05, 0.2}}};
  f = by_key(r);
  EXPECT_EQ(f["input_curvature"].upper, 4);
  EXPECT_EQ(f["input_change"].lower, 0.05);
}

TEST(Figures, OfTheDistanceFromTheInitialWeights) {
  RunResult r = known_result({10, 8, 6});
  r.diagnostics.parameters_in_use = 3;
  r.initial.emplace().layers = {{"w", 2, 3}, {"b", 1, 0.5}};
  r.initial->distance = std::sqrt(9.25);
  auto f = by_key(r);
  EXPECT_EQ(f["distance"].value, std::sqrt(9.25));
  EXPECT_TRUE(f["distance"].note.empty());
  EXPECT_FALSE(f["weighted_trace"].known());
  EXPECT_FALSE(weighted_layer_figures(r).at(0).known());
  r.trace = TraceEstimate{24, 0.1, 0.2, 0.9, 5, 5, 0, 0, "hutchinson", true};
  r.layers = {{"w", 2, {16, 0.5}}, {"b", 1, {8, 0.25}}};
  r.initial->weighted_trace = {146, 4};
  r.initial->half_width = 11;
  r.initial->samples = 5;
  r.diagnostics.parameters_in_use = 2;
  f = by_key(r);
  EXPECT_EQ(f["weighted_trace"].value, 146);
  EXPECT_EQ(f["weighted_trace"].upper, 157);
  EXPECT_FALSE(f["distance"].note.empty());
  const std::vector<Figure> layers = weighted_layer_figures(r);
  EXPECT_EQ(layers[0].value, 144);
  // Student's, 4 degrees of freedom, and a quarter for optional stopping.
  EXPECT_NEAR(layers[0].upper, 144 + 9 * 1.25 * 2.131847 * 0.5, 1e-4);
  EXPECT_EQ(layers[1].value, 2);
}

TEST(Figures, OfBlocks) {
  RunResult r = known_result({10, 8, 6, 4, 2, 0.5, -1});
  BlockResult head, bias;
  head.name = "head";
  head.parameters = 2;
  head.eigenvalues.emplace().top = {{8, 0, 0, 0.5, true}, {-2, 0, 0, 0.5, true}};  // all there are
  head.trace = TraceEstimate{6, 0.1, 0.2, 0.9, 4, 2, 0, 0, "hutchinson", true};
  head.norm_sq = {68, 4};
  bias.name = "bias";
  bias.parameters = 5;
  r.blocks.emplace().each = {head, bias};
  r.blocks->off_block_share = {0.25, 0.1};
  const auto blocks = block_figures(r);
  ASSERT_EQ(blocks.size(), 2U);
  std::map<std::string, Figure> of_head;
  for (const Figure& figure : blocks[0]) of_head[figure.key] = figure;
  EXPECT_EQ(of_head["lambda_1"].value, 8);
  EXPECT_EQ(of_head["lambda_1"].of, "head");
  EXPECT_EQ(of_head["lambda_min"].value, -2);
  EXPECT_EQ(of_head["step_gd"].value, 0.25);
  EXPECT_EQ(of_head["mean_eigenvalue"].value, 3);
  EXPECT_EQ(of_head["trace"].upper, 6.2);
  for (const Figure& figure : blocks[1]) EXPECT_FALSE(figure.known()) << figure.key;
  auto f = by_key(r);
  EXPECT_EQ(f["off_block_share"].value, 0.25);
  EXPECT_NEAR(f["off_block_share"].upper, 0.25 + 2.353363 * 0.1, 1e-6);  // Student's, of the head's four samples
  EXPECT_FALSE(f["js_distance"].known());
  r.blocks->off_block_obstacle = "they overlap";
  EXPECT_EQ(by_key(r)["off_block_share"].missing, "they overlap");
}

/// A definition without a source, or without what speaks against it, is none.
TEST(Figures, EveryDefinitionIsWhole) {
  for (const Definition& d : definitions())
    for (const std::string* text : {&d.key, &d.name, &d.symbol, &d.definition, &d.source, &d.against})
      EXPECT_FALSE(text->empty()) << d.key;
  EXPECT_THROW(definition_of("grade"), std::out_of_range);
}

}  // namespace
}  // namespace hesspect::figures_test
