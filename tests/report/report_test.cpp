// From a ledger to a result, and the result in words.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <tuple>

#include "hesspect/core/log.h"
#include "hesspect/core/probe_numbers.h"
#include "hesspect/report/assemble.h"
#include "hesspect/report/input_summary.h"
#include "hesspect/report/text.h"

namespace hesspect::report_test {
namespace {

Goals eigen_goals() {
  Goals goals;
  goals.command = Command::kEigs;
  goals.n = 100;
  goals.runs = 1;
  goals.eigen = EigenGoal{};
  goals.eigen->top = 1;
  return goals;
}

EigenResult one_eigenvalue(bool converged) {
  EigenResult found;
  found.top = {{2.5, 1e-9, 2e-9, 1e-10, converged}};
  found.steps = 40;
  found.residual_products = 1;
  found.thick_restarts = 3;
  found.converged = converged;
  return found;
}

/// A result of `eigs` that had restarted thick could not be read: its quadrature was of no step.
TEST(Assemble, ARunWithoutAQuadratureHasNone) {
  const Goals goals = eigen_goals();
  LedgerState state;
  state.products = 43;
  Ledger ledger(state, goals, 1);
  ledger.add(FinishedProbe{{}, one_eigenvalue(true)});
  const RunResult result = assemble({}, goals, ledger, 1, 0.5);
  EXPECT_TRUE(result.quadrature.empty());
  ASSERT_TRUE(result.eigenvalues.has_value());
  EXPECT_EQ(result.counts.symmetry, 2);
  EXPECT_EQ(result.counts.first_probe, 40);
  EXPECT_EQ(result.counts.residuals, 1);
  EXPECT_EQ(result.counts.surplus, 0);
  EXPECT_TRUE(converged(result));
}

TEST(Assemble, WarnsOfWhatIsNotAsGoodAsAsked) {
  set_log_level(LogLevel::kQuiet);
  const Goals goals = eigen_goals();
  Ledger ledger({}, goals, 1);
  ledger.add(FinishedProbe{{}, one_eigenvalue(false)});
  ledger.set_symmetry(0.5, 1);
  RunFacts facts;
  facts.warnings = {"told before"};
  facts.symmetry_bound = 1e-4;
  const RunResult result = assemble(facts, goals, ledger, 1, 0.5);
  EXPECT_FALSE(converged(result));
  ASSERT_EQ(result.warnings.size(), 3U);
  EXPECT_EQ(result.warnings[0], "told before");
  EXPECT_NE(result.warnings[1].find("not symmetric"), std::string::npos);
  EXPECT_NE(result.warnings[2].find("raise --max-steps"), std::string::npos);
}

/// A matrix without negative eigenvalues that seems to have one: something is wrong, beyond rounding.
TEST(Assemble, WarnsOfNegativeEigenvaluesWhereThereAreNone) {
  set_log_level(LogLevel::kQuiet);
  for (const auto& [least, semidefinite, warned] : {std::tuple{-0.01, true, true},
                                                    {-1e-5, true, false},  // rounding
                                                    {-0.01, false, false}}) {
    Goals goals = eigen_goals();
    goals.semidefinite = semidefinite;
    goals.matrix = "Fisher matrix";
    goals.rounding = 1e-6;
    Ledger ledger({}, goals, 1);
    EigenResult found = one_eigenvalue(true);
    found.bottom = {{least, 1e-9, 2e-9, 1e-10, true}};
    ledger.add(FinishedProbe{{}, found});
    const RunResult result = assemble({}, goals, ledger, 1, 0.5);
    EXPECT_EQ(result.warnings.size(), warned ? 1U : 0U) << least;
    if (warned) {
      EXPECT_NE(result.warnings[0].find("the Fisher matrix has no negative eigenvalues, and yet -0.01 was found"),
                std::string::npos);
    }
  }
}

InputSharpness rows_of(const std::vector<double>& magnitudes) {
  InputSharpness sharpness;
  for (std::size_t i = 0; i < magnitudes.size(); ++i)
    sharpness.rows.push_back({static_cast<std::int64_t>(i), 1, 1, 0, 0.1, magnitudes[i], 0.1, true, 1, 2});
  return sharpness;
}

TEST(InputSummary, TellsQuantilesAndTheMostFragileRows) {
  InputSharpness sharpness = rows_of({1, -5, 3, 2, -4});
  sharpness.rows.push_back(InputRow{.row = 5});  // has no loss
  sharpness.rows[2].converged = false;
  summarise(sharpness, 2, 0.9);
  ASSERT_EQ(sharpness.fragile.size(), 2U);
  EXPECT_EQ(sharpness.fragile[0].row, 1);
  EXPECT_EQ(sharpness.fragile[1].row, 4);
  const InputQuantiles& median = sharpness.quantiles[3];
  EXPECT_EQ(median.share, 0.5);
  EXPECT_EQ(median.magnitude.value, 3);
  EXPECT_EQ(sharpness.quantiles[0].magnitude.value, 1);
  EXPECT_TRUE(std::isnan(sharpness.quantiles[0].magnitude.lower));
  EXPECT_EQ(sharpness.quantiles.back().magnitude.value, 5);
  const std::vector<std::string> warnings = input_warnings(sharpness);
  ASSERT_EQ(warnings.size(), 2U);
  EXPECT_TRUE(warnings[0].starts_with("1 rows have no loss"));
  EXPECT_TRUE(warnings[1].starts_with("1 rows' eigenvalues are not known"));
  bool found = false;
  for (const std::string& line : input_lines(sharpness)) found = found || line.find("rows 1 (-5), 4 (-4)") != line.npos;
  EXPECT_TRUE(found);

  InputSharpness none;
  summarise(none, 2, 0.9);
  EXPECT_TRUE(none.quantiles.empty() && none.fragile.empty());
}

/// Of a uniform distribution, whose quantiles are known: 300 samples of rows for each size.
TEST(InputSummary, IntervalsHold) {
  std::mt19937_64 random(7);
  std::uniform_real_distribution<double> uniform(0, 1);
  constexpr int kSamples = 300;
  for (const std::size_t size : {20U, 150U}) {
    std::map<double, std::pair<int, int>> held;  // of a share: how often, of how many
    for (int sample = 0; sample < kSamples; ++sample) {
      std::vector<double> values(size);
      for (double& value : values) value = uniform(random);
      InputSharpness sharpness = rows_of(values);
      summarise(sharpness, 0, 0.9);
      for (const InputQuantiles& q : sharpness.quantiles) {
        if (std::isnan(q.magnitude.lower) || std::isnan(q.magnitude.upper)) continue;
        auto& [count, of] = held[q.share];
        ++of;
        count += q.magnitude.lower <= q.share && q.share <= q.magnitude.upper ? 1 : 0;
      }
    }
    EXPECT_TRUE(held.contains(0.5));
    for (const auto& [share, counts] : held)
      EXPECT_GE(counts.first, 0.88 * counts.second) << share << " of " << size << " rows";
  }
}

/// What a finished run says, and what `inspect` says of its file, is one text.
TEST(Text, ThePageHoldsTheFindings) {
  RunResult result;
  result.eigenvalues = one_eigenvalue(false);
  result.trace = TraceEstimate{3.5, 0.1, 0.2, 0.9, 4, 2, 1.5, 6, "deflated", true};
  result.density = Density{{-1, 0, 2}, {0.1, 1, 0.1}, {0, 0, 0}, 0.1};
  const std::string text = page(result);
  const std::vector<std::string> lines = findings(result);
  EXPECT_GT(lines.size(), 5U);
  for (const std::string& line : lines) EXPECT_NE(text.find(line + "\n"), std::string::npos) << line;
  EXPECT_NE(text.find("3 thick restarts"), std::string::npos);
  EXPECT_NE(text.find("not converged"), std::string::npos);
  EXPECT_TRUE(text.ends_with(plot_density(*result.density)));
}

}  // namespace
}  // namespace hesspect::report_test
