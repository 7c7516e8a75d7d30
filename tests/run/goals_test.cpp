// What commands ask for, and what that takes.
#include "hesspect/run/goals.h"

#include <gtest/gtest.h>

#include "hesspect/core/errors.h"

namespace hesspect::goals_test {
namespace {

constexpr std::int64_t kParameters = 1'000'000;

Goals goals(Command command, const RunConfig& config = {}) { return goals_of(command, config, kParameters); }
Demand demand(Command command, const RunConfig& config = {}) { return demand_of(goals(command, config)); }

TEST(Goals, OfEachCommand) {
  const Goals analyze = goals(Command::kAnalyze);
  ASSERT_TRUE(analyze.eigen && analyze.trace && analyze.density);
  EXPECT_EQ(analyze.eigen->solver, EigenSolver::kProbe);
  EXPECT_TRUE(analyze.eigen->true_residuals);
  EXPECT_EQ(analyze.eigen->wanted(), 13);
  EXPECT_TRUE(analyze.deflates());
  EXPECT_EQ(analyze.runs, 1);
  EXPECT_EQ(analyze.steps, 80);
  EXPECT_EQ(analyze.most_steps, 200);
  EXPECT_EQ(analyze.density->w1, 0.01);

  const Goals density = goals(Command::kDensity);
  EXPECT_FALSE(density.eigen);
  ASSERT_TRUE(density.trace);  // of samples that cost nothing
  EXPECT_EQ(density.trace->rule.rtol, 0);
  EXPECT_FALSE(density.trace->layers);

  const Goals eigs = goals(Command::kEigs);
  EXPECT_TRUE(eigs.eigen && !eigs.trace && !eigs.density);
  EXPECT_EQ(eigs.runs, 1);
  EXPECT_EQ(eigs.steps, 0);

  const Goals trace = goals(Command::kTrace);
  EXPECT_TRUE(!trace.eigen && trace.trace && !trace.density);
  EXPECT_EQ(trace.runs, 1);
}

TEST(Goals, RunsOfTheirOwnNeedNoProbe) {
  RunConfig config;
  config.eigs.block = 4;
  EXPECT_EQ(goals(Command::kEigs, config).eigen->solver, EigenSolver::kBlock);
  EXPECT_EQ(goals(Command::kEigs, config).runs, 0);
  EXPECT_EQ(goals(Command::kAnalyze, config).runs, 1);
  config = {};
  config.eigs.method = EigenMethod::kPower;
  config.eigs.magnitude = 3;
  config.eigs.top = config.eigs.bottom = 0;
  EXPECT_TRUE(goals(Command::kEigs, config).solves_by(EigenSolver::kPower));
  EXPECT_FALSE(goals(Command::kEigs, config).eigen->true_residuals);
  config = {};
  config.trace.trace_method = TraceMethod::kXTrace;
  EXPECT_EQ(goals(Command::kTrace, config).runs, 0);
  EXPECT_TRUE(goals(Command::kTrace, config).estimates_trace_by_itself());
  EXPECT_FALSE(goals(Command::kDensity, config).trace);
}

TEST(Goals, WithoutReorthogonalisationTheTraceIsHutchinsons) {
  RunConfig config;
  config.quadrature.reorthogonalize = false;
  EXPECT_EQ(goals(Command::kDensity, config).trace->method, TraceMethod::kHutchinson);
}

TEST(Goals, NameTheMatrix) {
  RunConfig config;
  EXPECT_EQ(goals(Command::kTrace, config).matrix, "Hessian");
  EXPECT_FALSE(goals(Command::kTrace, config).semidefinite);
  config.curvature.curvature = Curvature::kEmpiricalFisher;
  EXPECT_EQ(goals(Command::kTrace, config).matrix, "empirical Fisher matrix");
  EXPECT_TRUE(goals(Command::kTrace, config).semidefinite);
}

TEST(Goals, TooFewProductsForAnEstimator) {
  RunConfig config;
  config.trace.trace_method = TraceMethod::kHutchPlusPlus;
  config.accuracy.max_hvps = 7;
  EXPECT_THROW(goals(Command::kTrace, config), UsageError);
  config.accuracy.max_hvps = 8;
  EXPECT_EQ(goals(Command::kTrace, config).trace->own_products, 6);
}

TEST(Demand, OfAnAnalysis) {
  const Demand d = demand(Command::kAnalyze);
  EXPECT_EQ(d.probes, 1);
  EXPECT_EQ(d.steps, 80);
  EXPECT_EQ(d.longest_steps, 200);
  EXPECT_EQ(d.most_steps, 200);
  EXPECT_EQ(d.other_products, 15);  // symmetry and true residuals
  EXPECT_EQ(d.other_rows, 14);      // of four products at once, and two for the forecast
  EXPECT_EQ(d.joint, 1);
  EXPECT_EQ(d.joint_where_room, 4);  // the trace takes four products at once
  EXPECT_EQ(d.wanted, 13);
  EXPECT_TRUE(d.keeps_basis && d.adaptive && d.reorthogonalize);
}

/// The plan left out what --max-hvps leaves undone.
TEST(Demand, IsNoMoreThanTheProductsThatMayBeTaken) {
  RunConfig config;
  config.accuracy.max_hvps = 40;
  const Demand d = demand(Command::kAnalyze, config);
  EXPECT_EQ(d.steps, 25);  // 40 − 2 − 13
  EXPECT_EQ(d.longest_steps, 25);
  EXPECT_EQ(d.other_products + d.probes * d.steps, 40);
}

/// The plan left out the products, vectors and whole vectors of methods of their own.
TEST(Demand, OfHutchPlusPlusAndXTrace) {
  RunConfig config;
  config.trace.trace_method = TraceMethod::kHutchPlusPlus;
  Demand d = demand(Command::kTrace, config);
  EXPECT_EQ(d.other_products, 302);
  EXPECT_EQ(d.other_rows, 212);
  EXPECT_EQ(d.joint, 4);
  EXPECT_EQ(d.longest_steps, 0);
  config.trace.trace_method = TraceMethod::kXTrace;
  d = demand(Command::kTrace, config);
  EXPECT_EQ(d.other_products, 402);
  EXPECT_EQ(d.other_rows, 212);
  config.trace.trace_method = TraceMethod::kXNysTrace;  // a vector for each product
  d = demand(Command::kTrace, config);
  EXPECT_EQ(d.other_products, 202);
  EXPECT_EQ(d.other_rows, 212);
  EXPECT_EQ(d.joint, 4);
}

TEST(Demand, OfBlocksAndPowerIterations) {
  RunConfig config;
  config.eigs.block = 6;
  Demand d = demand(Command::kEigs, config);
  EXPECT_EQ(d.joint, 6);
  EXPECT_EQ(d.other_rows, 214);      // 200 and the next block, a block of products, the symmetry check's probes
  EXPECT_EQ(d.other_products, 215);  // symmetry, residuals, 200
  EXPECT_EQ(d.longest_steps, 0);     // there is no single run beside it
  config.eigs.max_basis = 50;
  EXPECT_EQ(demand(Command::kEigs, config).other_rows, 58);
  config = {};
  config.eigs.method = EigenMethod::kPower;
  config.eigs.magnitude = 3;
  config.eigs.top = config.eigs.bottom = 0;
  d = demand(Command::kEigs, config);
  EXPECT_EQ(d.other_rows, 1);  // three, an iterate and its product; four of these in the room of a Lanczos run
  EXPECT_EQ(d.joint, 1);
}

Part part(const std::string& name, std::int64_t size) { return {name, {{0, size}}, {name}}; }

/// Blocks and features stood in no plan.
TEST(Demand, OfDiagonalBlocks) {
  Goals g = goals(Command::kAnalyze);
  BlocksGoal blocks;
  blocks.max_products = 100;
  blocks.eigen = g.eigen;
  blocks.trace = g.trace;
  blocks.density = g.density;
  blocks.parts = {part("small", 20), part("large", kParameters / 2), part("unused", 0)};
  g.blocks = blocks;
  const Demand without = demand(Command::kAnalyze), d = demand_of(g);
  ASSERT_EQ(d.blocks.size(), 3u);
  EXPECT_EQ(d.blocks[0].parameters, kParameters / 2);  // the largest first
  EXPECT_EQ(d.blocks[0].products, 100);
  EXPECT_EQ(d.blocks[1].products, 20 + 13);  // found whole, and its true residuals
  EXPECT_EQ(d.blocks[2].products, 0);
  EXPECT_EQ(d.block_rows, 43);  // half as long as the whole's: 100 − 13 − 6 steps, 1 and 4 more
  EXPECT_FALSE(d.are_features);
  EXPECT_EQ(d.other_products, without.other_products);
  EXPECT_EQ(d.blocks[0].losses, 0);

  const ProductRange large = products_with_block(g, kParameters / 2);
  EXPECT_EQ(large.least, 80 + 6 + 13);
  EXPECT_EQ(large.most, 100);
  EXPECT_EQ(products_with_block(g, 0).most, 0);

  blocks.changes = ChangesGoal{{0.1, 0.01}, 8, 1e-7};
  blocks.features.resize(2);
  g = goals(Command::kFeatures);
  g.blocks = blocks;
  const Demand features = demand_of(g);
  EXPECT_TRUE(features.are_features);
  EXPECT_EQ(features.blocks[0].products, 108);          // a product with each draw
  EXPECT_EQ(features.blocks[0].losses, 1 + 2 * 2 * 9);  // both ways, at both lengths, and along the eigenvector
  EXPECT_EQ(features.probes * features.steps + features.other_products, 2);  // the symmetry check
}

/// What --max-hvps leaves to the trace, where the Lanczos run takes all it may, is all that is taken together.
TEST(Demand, OfATraceWithFewProductsLeft) {
  RunConfig config;
  config.accuracy.max_hvps = 24;
  Demand d = demand(Command::kAnalyze, config);
  EXPECT_EQ(d.joint_where_room, 1);
  EXPECT_EQ(d.other_rows, 6);  // the symmetry check's two samples, and two for the forecast
  config.accuracy.max_hvps = 0;
  EXPECT_EQ(demand(Command::kAnalyze, config).joint_where_room, 4);
  // Where no accuracy is asked for, the symmetry check's two samples are all that there are.
  EXPECT_EQ(demand(Command::kDensity, config).joint_where_room, 1);
  EXPECT_EQ(demand(Command::kEigs, config).joint_where_room, 1);
}

/// A diagonal was counted only where an accuracy of the trace is asked for too.
TEST(Demand, OfADiagonal) {
  RunConfig config;
  config.trace.diagonal = "d.h5";
  config.accuracy.rtol_trace = 0;
  config.quadrature.probes = 12;
  const Demand d = demand(Command::kTrace, config);
  EXPECT_EQ(d.other_rows, 21);
  EXPECT_EQ(d.other_products, 12);
  EXPECT_EQ(d.joint_where_room, 1);  // its samples are taken one by one
}

}  // namespace
}  // namespace hesspect::goals_test
