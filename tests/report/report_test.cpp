// From a ledger to a result, and the result in words.
#include <gtest/gtest.h>

#include <algorithm>

#include "hesspect/core/log.h"
#include "hesspect/core/probe_numbers.h"
#include "hesspect/report/assemble.h"
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
