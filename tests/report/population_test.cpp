// The error that the data make in report and comparison: which interval stands where, and which a verdict goes by.
#include <gtest/gtest.h>

#include <regex>

#include <algorithm>
#include <cmath>

#include "../../src/report/population.h"
#include "hesspect/report/compare.h"
#include "hesspect/report/report.h"
#include "report/known_result.h"

namespace hesspect::population_test {
namespace {

RunResult result_of(double largest, const std::string& data) {
  RunResult r = testing::known_result({largest, 5, 1});
  r.trace = TraceEstimate{.value = largest + 6, .standard_error = 0.1, .half_width = 0.2, .samples = 10};
  r.layers = {{"a", 2, {largest, 0.1}}, {"b", 1, {6, 0.1}}};
  r.process.data = {{"data.h5", data}};
  DataError& e = r.data_error.emplace();
  e.groups = {{50, 50}, {0.5, 0.5}, {1, 1}};
  e.loss = {0.1, 1.8, 2.2};
  e.trace = {0.5, largest + 5, largest + 7};
  e.trace_from = "probes";
  e.eigenvalues = {{{0.25, largest - 1, largest + 1}, 0.125, {}}, {{0.5, NAN, NAN}, 0, {}}, {}, {}};
  e.layers = {{0.5, largest - 1, largest + 1}, {0.25, 5, 7}};
  return r;
}

const Figure& figure(const std::vector<Figure>& figures, const std::string& key) {
  return *std::ranges::find(figures, key, &Figure::key);
}

TEST(Population, StandsBesideTheRunsInterval) {
  const auto figures = figures_of(result_of(10, "aa"), {});
  const Figure& largest = figure(figures, "lambda_1");
  EXPECT_EQ(largest.population_lower, 9);
  EXPECT_EQ(largest.population_upper, 11);
  EXPECT_EQ(largest.data_error, 0.25);
  EXPECT_NEAR(largest.upper, 10.001, 1e-12) << "the run's own is as it was";
  const Figure& step = figure(figures, "step_gd");
  EXPECT_NEAR(step.population_lower, 2.0 / 11, 1e-12);
  EXPECT_NEAR(step.population_upper, 2.0 / 9, 1e-12);
  EXPECT_NEAR(step.data_error, 0.2 * 0.25 / 10, 1e-12);
  EXPECT_NEAR(figure(figures, "mean_eigenvalue").population_upper, 17.0 / 3, 1e-12);
  EXPECT_FALSE(figure(figures, "lambda_min").has_population());
  EXPECT_FALSE(figure(figures, "frobenius").has_population());
  EXPECT_NE(figure(figures, "frobenius").note.find("over rows: not told"), std::string::npos);
  EXPECT_EQ(layer_figures(result_of(10, "aa"))[1].population_lower, 5);
  const std::string text =
      std::regex_replace(report_text({{"a.h5", result_of(10, "aa")}}, {}), std::regex("\\s+"), " ");
  EXPECT_NE(text.find("over rows ± 0.25 (standard error), population [9, 11]"), std::string::npos) << text;
  EXPECT_NE(text.find("from two probes alone"), std::string::npos);
  EXPECT_EQ(text.find("is not measured: intervals"), std::string::npos);
  EXPECT_NE(report_json({{"a.h5", result_of(10, "aa")}}, {}).find("\"population_upper\": 11.0"), std::string::npos);
  EXPECT_NE(report_html({{"a.h5", result_of(10, "aa")}}, {}).find("population [9, 11]"), std::string::npos);
}

// The Frobenius norm's by the listed eigenvalues, whose parts by group are in the result.
TEST(Population, OfTheNormIsByTheEigenvaluesThatMakeIt) {
  RunResult r = result_of(10, "aa");
  r.data_error->eigenvalues[0].of_group = {9.5, 10.5};
  r.data_error->eigenvalues[1] = {{0.25, 4, 6}, 0, {4.75, 5.25}};
  const auto figures = figures_of(r, {});
  const Figure& norm = figure(figures, "frobenius");
  ASSERT_TRUE(norm.has_population());
  EXPECT_LT(norm.population_lower, norm.value);
  EXPECT_GT(norm.population_upper, norm.value);
  // d‖H‖_F = Σ λ_i dλ_i/‖H‖_F: parts 10·9.5 + 5·4.75 and 10·10.5 + 5·5.25, halved; a little more for what is not
  // listed.
  const double by_hand = std::sqrt(2 * 2 * std::pow(6.25 / 2, 2)) / norm.value;
  EXPECT_NEAR(norm.data_error, by_hand, 0.02 * by_hand);
}

// A figure that is a layer's trace with a weight kept that trace's own interval of the population.
TEST(Population, IsWeightedAsTheFigureIs) {
  RunResult r = result_of(10, "aa");
  r.initial.emplace();
  r.initial->layers.resize(1);
  r.initial->layers[0].name = "b";
  r.initial->layers[0].distance = 3;
  const std::vector<Figure> weighted = weighted_layer_figures(r);
  ASSERT_EQ(weighted.size(), 1u);
  EXPECT_EQ(weighted[0].population_lower, 9 * 5);
  EXPECT_EQ(weighted[0].population_upper, 9 * 7);
  EXPECT_EQ(weighted[0].data_error, 9 * 0.25);
}

TEST(Population, IsNoIntervalWhereEigenvaluesMix) {
  Figure figure;
  figure.value = 3;
  EXPECT_EQ(population_text(figure), "");
  figure.data_error = 0.5;
  EXPECT_NE(population_text(figure).find("no interval"), std::string::npos);
}

Verdict of_largest(const Comparison& c) {
  for (const ComparedFigure& row : c.figures)
    if (row.figures.front().key == "lambda_1") return row.verdicts[1];
  return {};
}

TEST(Population, DecidesWhereRowsDiffer) {
  using Kind = Verdict::Kind;
  using Basis = Verdict::Basis;
  const NamedResult a{"a.h5", result_of(10, "aa")};
  const auto verdict = [&](double largest, const std::string& data) {
    return of_largest(compare({a, {"b.h5", result_of(largest, data)}}, {}));
  };
  EXPECT_EQ(verdict(11, "aa").kind, Kind::kHigher) << "on the same rows the run's error counts";
  EXPECT_EQ(verdict(11, "aa").basis, Basis::kSameRows);
  EXPECT_EQ(verdict(11, "bb").kind, Kind::kUndecided);
  EXPECT_EQ(verdict(11, "bb").basis, Basis::kPopulations);
  EXPECT_NE(verdict_text(verdict(11, "bb")).find("more rows"), std::string::npos);
  EXPECT_EQ(verdict_text(verdict(13, "bb")), "higher in the rows' populations");
  RunResult without = result_of(13, "bb");
  without.data_error.reset();
  const Verdict alone = of_largest(compare({a, {"b.h5", without}}, {}));
  EXPECT_EQ(alone.kind, Kind::kHigher);
  EXPECT_NE(verdict_text(alone).find("on these rows; of others nothing is known"), std::string::npos);
  EXPECT_NE(comparison_json(compare({a, {"b.h5", without}}, {})).find("\"basis\": \"these rows alone\""),
            std::string::npos);
}

}  // namespace
}  // namespace hesspect::population_test
