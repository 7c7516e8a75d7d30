// The forecast's schedule: by hand, and against a scheduler that walks through it product by product.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "hesspect/plan/plan.h"

namespace hesspect::plan_schedule_test {
namespace {

constexpr double kGraph = 1, kPullback = 2;  // s

/// Rows of one micro-batch on every group's only rank; Lanczos work is next to nothing.
Plan plan_of(int groups, std::int64_t lock_step, const Demand& work, bool kept) {
  const PlanProblem problem{500, 4, 0, 10, 1, false, false, 0};
  const BatchCost cost{10, kGraph, kPullback, 1000, 1, 1000, 1, 0};
  PlanRequest request;
  request.groups = groups;
  request.lock_step = lock_step;
  if (!kept) request.graph_bytes = 0;
  request.micro_batch = 10;
  return make_plan({problem, cost, work, {groups, std::int64_t{8} << 30, 0, 1e9, 1e-6}, request});
}

TEST(PlanSchedule, ThreeProbesInTwoGroups) {
  const Plan plan = plan_of(2, 1, {3, 10, 0, 0, true}, true);
  EXPECT_EQ(plan.products, 30);
  EXPECT_EQ(plan.products_in_turn, 20);
  EXPECT_NEAR(plan.run_s, 40, 1e-3);
  // The eigenvalues' probe has one group to itself, the others share the second.
  const Plan longer = plan_of(2, 1, {3, 10, 25, 2, true}, true);
  EXPECT_EQ(longer.products, 47);
  EXPECT_EQ(longer.products_in_turn, 27);
  EXPECT_NEAR(longer.run_s, 54, 1e-3);
  const Plan shorter = plan_of(2, 1, {3, 10, 15, 2, true}, true);
  EXPECT_EQ(shorter.products_in_turn, 20);
}

TEST(PlanSchedule, LockStepSharesGraphs) {
  const Plan plan = plan_of(1, 3, {3, 10, 14, 0, true}, false);
  EXPECT_EQ(plan.products_in_turn, 34);
  EXPECT_NEAR(plan.run_s, 10 * (kGraph + 3 * kPullback) + 4 * (kGraph + kPullback), 1e-3);
  EXPECT_NEAR(plan.product_s, (kGraph + 3 * kPullback) / 3, 1e-5);
}

TEST(PlanSchedule, GroupsWithoutProbesIdle) {
  const Plan plan = plan_of(8, 1, {3, 10, 0, 0, true}, true);
  EXPECT_EQ(plan.products_in_turn, 10);
  EXPECT_NEAR(plan.run_s, 20, 1e-3);
}

struct Walked {
  double time = 0;
  std::vector<std::int64_t> products_of_last;  // of every group that ends then
  bool tie = false;                            // the first group and another were free at once: who went on was chance
};

/// One list schedule, one joint product at a time.
Walked walk(int groups, std::int64_t lock_step, const Demand& work, bool kept) {
  Walked result;
  std::vector<double> clock(static_cast<std::size_t>(groups), 0.0);
  std::vector<std::int64_t> products(clock.size(), 0);
  std::int64_t probe = 0;
  while (probe < work.probes) {
    const auto group = static_cast<std::size_t>(std::min_element(clock.begin(), clock.end()) - clock.begin());
    if (products[0] > 0 && std::abs(clock[0] - clock[group]) < 0.5)
      result.tie |= std::any_of(clock.begin() + 1, clock.end(), [&](double c) { return std::abs(c - clock[0]) < 0.5; });
    std::vector<std::int64_t> left;
    for (; probe < work.probes && static_cast<std::int64_t>(left.size()) < lock_step; ++probe)
      left.push_back(probe == 0 ? std::max(work.steps, work.longest_steps) : work.steps);
    if (group == 0 && products[0] == 0) {
      clock[0] += static_cast<double>(work.other_products) * ((kept ? 0 : kGraph) + kPullback);
      products[0] += work.other_products;
    }
    while (std::any_of(left.begin(), left.end(), [](std::int64_t l) { return l > 0; })) {
      std::int64_t active = 0;
      for (std::int64_t& l : left)
        if (l-- > 0) ++active;
      clock[group] += (kept ? 0 : kGraph) + static_cast<double>(active) * kPullback;
      products[group] += active;
    }
  }
  result.time = *std::max_element(clock.begin(), clock.end());
  for (std::size_t g = 0; g < clock.size(); ++g)
    if (clock[g] > result.time - 0.5) result.products_of_last.push_back(products[g]);
  return result;
}

TEST(PlanSchedule, AsWalkedThrough) {
  std::mt19937 random(1);
  const auto draw = [&](int least, int most) { return std::uniform_int_distribution<int>(least, most)(random); };
  int untied = 0;
  for (int trial = 0; trial < 3000; ++trial) {
    const int groups = draw(1, 9);
    const Demand work{draw(1, 40), draw(1, 12), draw(0, 1) * draw(1, 100), draw(0, 3), true};
    const std::int64_t lock_step = std::min<std::int64_t>(draw(1, 6), work.probes);
    const bool kept = draw(0, 1) == 1;
    const Plan plan = plan_of(groups, lock_step, work, kept);
    const Walked walked = walk(groups, lock_step, work, kept);
    const std::string which = "groups " + std::to_string(groups) + " lock-step " + std::to_string(lock_step) +
                              " probes " + std::to_string(work.probes) + " steps " + std::to_string(work.steps) + " " +
                              std::to_string(work.longest_steps) + " others " + std::to_string(work.other_products);
    ASSERT_NEAR(plan.run_s, walked.time, 0.01) << which;
    if (walked.tie) continue;
    ++untied;
    const auto& last = walked.products_of_last;
    ASSERT_NE(std::find(last.begin(), last.end(), plan.products_in_turn), last.end()) << which;
  }
  EXPECT_GT(untied, 1000);
}

TEST(PlanSchedule, LargeWorldsArePlanned) {
  const PlanProblem problem{1'000'000'000, 4, 0, 1'000'000, 1000, false, true, 0};
  const BatchCost cost{64, 1, 2, 4'000'000'000, 1'000'000, 4'000'000'000, 1'000'000, 0};
  PlanMachine machine{5040, std::int64_t{80} << 30, std::int64_t{80} << 30, 1e11, 1e-5};
  const Plan plan = make_plan({problem, cost, {100'000, 80, 200, 2, true}, machine, {}});
  EXPECT_TRUE(plan.fits);
  EXPECT_EQ(plan.groups * plan.data_ranks, 5040);
  EXPECT_EQ(plan.products, 100'000 * 80 + 120 + 2);
}

}  // namespace
}  // namespace hesspect::plan_schedule_test
