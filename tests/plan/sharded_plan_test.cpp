// Plans of groups that share the parameters. Expected numbers are worked out by hand beside each case.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "hesspect/core/errors.h"
#include "hesspect/plan/plan.h"

namespace hesspect::sharded_plan_test {
namespace {

constexpr std::int64_t kGiB = std::int64_t{1} << 30;
constexpr std::int64_t kMiB = std::int64_t{1} << 20;

/// Two ranks, seven rows; ten parameters of two bytes in two segments, which 1,000 operations a second go through.
struct Case : PlanInputs {
  Case()
      : PlanInputs{{10, 4, 8, 7, 3, false, false, 1000},
                   {2, 1.0, 2.0, 40, 10, 100, 7, 5},
                   {1, 5, 0, 2, true},
                   {2, kGiB, 0, 0, 0},
                   {}} {
    request.parameters = ParameterMemory::kSharded;
    sharded = {20, 1000, /*widens=*/true, [this](const ShardedWork& work) {
                 asked.push_back(work);
                 return segments;
               }};
  }
  Case(const Case&) = delete;
  Plan plan() const { return make_plan(*this); }
  std::string text() const {
    std::string all;
    for (const std::string& line : describe(plan(), *this)) all += line + "\n";
    return all;
  }

  std::vector<PlanSegment> segments{{6, 12, 100, 40, 3, 16, 16, 1000}, {4, 8, 60, 20, 0, 0, 0, 500}};
  std::vector<ShardedWork> asked;
};

/// Where all fits on the GPU.
double held_product_s(Case& c) {
  c.machine.memory_bytes = 64 * kGiB;
  return c.plan().product_s;
}

TEST(ShardedPlan, BytesOfTwoRanks) {
  Case c;
  const Plan plan = c.plan();
  EXPECT_EQ(plan.parameters, ParameterMemory::kSharded);
  EXPECT_EQ(plan.data_ranks, 2);
  EXPECT_EQ(plan.segments, 2);
  EXPECT_EQ(plan.product, ProductMode::kSegments);
  EXPECT_EQ(plan.micro_batch, 2);
  EXPECT_EQ(plan.micro_batches, 2);  // of 4 of 7 rows
  EXPECT_EQ(plan.bytes.process, 1000);
  EXPECT_EQ(plan.bytes.parameters, 10);  // half of 20
  EXPECT_EQ(plan.bytes.buffers, 8);
  EXPECT_EQ(plan.bytes.data, 12);
  EXPECT_EQ(plan.bytes.vectors, 80);                  // in, out, a work vector, gradient: 4 × 5 × 4
  EXPECT_EQ(plan.bytes.basis, 120);                   // 6 rows of 5
  EXPECT_EQ(plan.bytes.gathered, 12 + 2 * 24);        // stored, as run and one vector, of 6
  EXPECT_EQ(plan.bytes.sums, 24 + 12);                // of 6, and this rank's of them as they come back
  EXPECT_EQ(plan.bytes.transient, 140);               // 100 + 40
  EXPECT_EQ(plan.bytes.crossing, 2 * (3 + 32 + 32));  // of 2 micro-batches; values and tangents, adjoints and theirs
  EXPECT_EQ(plan.bytes.holes, 17);                    // an eighth of 140
  EXPECT_EQ(plan.bytes.total(), 1000 + 10 + 8 + 12 + 80 + 120 + 60 + 36 + 140 + 134 + 17);
  EXPECT_TRUE(plan.fits);
  ASSERT_FALSE(c.asked.empty());
  EXPECT_EQ(c.asked.front().ranks, 2);
  EXPECT_EQ(c.asked.front().tangents, 1);

  c.request.lock_step = 3;
  c.demand.probes = 3;
  const Plan three = c.plan();
  EXPECT_EQ(three.bytes.vectors, (2 * 3 + 3 + 1) * 20);
  c.request.lock_step = 2;
  EXPECT_EQ(c.plan().bytes.vectors, (2 * 2 + 2 + 2) * 20);  // and the start of the third
  EXPECT_EQ(three.bytes.gathered, 12 + 4 * 24);
  EXPECT_EQ(three.bytes.sums, 3 * 36);
  EXPECT_EQ(three.bytes.transient, 100 + 3 * 40);
  EXPECT_EQ(three.bytes.crossing, 2 * (3 + 4 * 16 + 4 * 16));
}

TEST(ShardedPlan, MessagesAndSeconds) {
  Case c;
  // Forwards 3 units of the first segment, backwards 8 of both, for two micro-batches.
  EXPECT_NEAR(c.plan().product_s, 2 * (3 * 1.0 + 8 * 0.5 + 8 * 1.0), 1e-6);
  EXPECT_NEAR(c.plan().messages_s, 0, 1e-9);
  c.machine.bandwidth = 10;
  c.machine.latency_s = 0.1;
  const Plan plan = c.plan();
  // The first segment is fetched twice and the second once, parameters and vector; both are summed.
  EXPECT_EQ(plan.product_messages, 3 * 2 + 2);
  EXPECT_EQ(plan.messages_per_step, 8 + 5);
  EXPECT_EQ(plan.message_bytes_per_step, (12 + 24) / 2 + (8 + 16) / 2 + 16 / 2 + (12 + 24) / 2 + 24 / 2);
  // Nothing is fetched ahead, and nothing hides behind arithmetic: twice 12 and 24 bytes, 8 and 16, the sums of 24 and
  // 16; and five small sums.
  const double exposed = 2 * (0.6 + 0.1 + 1.2 + 0.1) + (0.4 + 0.1 + 0.8 + 0.1) + (1.2 + 0.1) + (0.8 + 0.1) + 5 * 0.1;
  EXPECT_NEAR(plan.messages_s, exposed, 1e-9);
  EXPECT_NEAR(plan.product_s, 30 + exposed, 1e-6);
  EXPECT_GE(plan.step_s, plan.product_s);

  // Ahead: but for the first fetch and the last sum all hides behind 6, 8 and 16 s of arithmetic; in twice the memory.
  c.machine.overlaps = true;
  const Plan ahead = c.plan();
  EXPECT_TRUE(ahead.fetch_ahead);
  EXPECT_NEAR(ahead.messages_s, (0.6 + 0.1 + 1.2 + 0.1) + (1.2 + 0.1) + 5 * 0.1, 1e-9);
  EXPECT_EQ(ahead.message_bytes_per_step, plan.message_bytes_per_step);
  EXPECT_EQ(ahead.bytes.gathered, 2 * plan.bytes.gathered);
  EXPECT_EQ(ahead.bytes.sums, 2 * 24 + 24);
  EXPECT_NE(c.text().find("while the next one is gathered"), std::string::npos) << c.text();
  c.request.fetch_ahead = false;
  EXPECT_FALSE(c.plan().fetch_ahead);
  c.machine.overlaps = false;
  c.request.fetch_ahead = true;
  EXPECT_TRUE(c.plan().fetch_ahead);

  c.sharded.flops_per_s = 0;
  c.cost.graph_s = c.cost.pullback_s = 0;
  EXPECT_EQ(c.plan().product_s, 0);
  EXPECT_EQ(c.plan().run_s, 0);
  EXPECT_NE(c.text().find("give it by --flops"), std::string::npos) << c.text();
  EXPECT_EQ(c.text().find("forecast"), std::string::npos) << c.text();
}

// Eight equal segments, each of which leaves 1 MiB that only the next one reads. Held all, seven of them and their
// tangents. In two passes of one micro-batch half as much; where a rank has one micro-batch, in spans of two segments:
// what crosses three ends and, within one, two more.
TEST(ShardedPlan, WhatCrossesIsDividedOrMadeAgainWhereItDoesNotFit) {
  Case c;
  c.segments.assign(8, {1, 2, 100, 40, 0, kMiB, kMiB, 100});
  c.segments.back() = {1, 2, 100, 40, 0, 0, 0, 100};
  const Plan held = c.plan();
  EXPECT_EQ(held.span, 1);
  EXPECT_EQ(held.passes, 1);
  EXPECT_EQ(held.bytes.crossing, 2 * (2 * 7 + 2) * kMiB);  // two micro-batches; and the adjoints at one cut
  EXPECT_EQ(held.product_messages, 7 * 2 + 8 * 3);
  while (c.plan().passes == 1 && c.plan().micro_batch == 2) c.machine.memory_bytes -= kMiB;
  c.request.micro_batch = 2;
  const Plan passes = c.plan();
  ASSERT_TRUE(passes.fits);
  EXPECT_EQ(passes.passes, 2);
  EXPECT_EQ(passes.span, 1);
  EXPECT_EQ(passes.bytes.crossing, (2 * 7 + 2) * kMiB);
  EXPECT_EQ(passes.product_messages, 2 * held.product_messages);
  EXPECT_NE(c.text().find("2 through the segments for each product"), std::string::npos) << c.text();

  c.request.micro_batch = 4;  // all rows of a rank
  c.machine.memory_bytes = kGiB;
  while (c.plan().span == 1) c.machine.memory_bytes -= kMiB;
  const Plan spans = c.plan();
  ASSERT_TRUE(spans.fits);
  EXPECT_EQ(spans.span, 2);
  EXPECT_EQ(spans.bytes.crossing, (2 * (3 + 2) + 2) * kMiB);
  EXPECT_NE(c.text().find("made again within them"), std::string::npos) << c.text();
  // Three first segments of spans forwards once more: a parameter and a vector each.
  EXPECT_EQ(spans.product_messages, held.product_messages + 3 * 2);
}

TEST(ShardedPlan, IsChosenWhereNothingElseFits) {
  Case c;
  c.request.parameters = ParameterMemory::kAuto;
  EXPECT_EQ(c.plan().parameters, ParameterMemory::kReplicated);
  // 40 Mi parameters: of 211 MiB that may be planned with, all of them would take 160, and two vectors twice as much.
  c.problem.parameters = 40 * kMiB;
  c.sharded.stored_bytes = 80 * kMiB;
  c.machine.memory_bytes = 256 * kMiB;
  c.machine.world = 16;
  const Plan plan = c.plan();
  EXPECT_TRUE(plan.fits);
  EXPECT_EQ(plan.parameters, ParameterMemory::kSharded);
  EXPECT_EQ(plan.groups, 1);
  EXPECT_EQ(plan.bytes.parameters, 5 * kMiB);
  EXPECT_EQ(plan.bytes.vectors, 4 * 10 * kMiB);
  const auto ways = describe_ways(c);
  ASSERT_EQ(ways.size(), 2);  // host memory is beside GPUs alone
  EXPECT_NE(ways[0].find("replicated    does not fit"), std::string::npos) << ways[0];
  EXPECT_NE(ways[1].find("sharded       fits"), std::string::npos) << ways[1];
  EXPECT_NE(c.text().find("shared by the 16 ranks of a group, whole for one of 2 segments"), std::string::npos);

  c.machine.world = 4;
  EXPECT_FALSE(c.plan().fits);
  const auto ideas = what_would_fit(c, [&](const DemandChange&) { return std::optional<Demand>(); });
  ASSERT_FALSE(ideas.empty());
  // 40 Mi × (2 + 4 × 4 + 6 × 2 + 2 × 4) / D ≤ 211 MiB with a basis in bfloat16: 7.2 ranks.
  EXPECT_NE(ideas[0].find("at least 8 ranks"), std::string::npos) << ideas[0];
}

/// Rows are held, in however many passes they go through the segments.
TEST(ShardedPlan, FewerRowsAreAdvised) {
  Case c;
  c.problem.row_bytes = kMiB;
  c.problem.rows = 4000;
  EXPECT_FALSE(c.plan().fits);
  bool told = false;
  for (const std::string& idea : what_would_fit(c, [&](const DemandChange&) { return std::optional<Demand>(); })) {
    if (!idea.starts_with("--samples ")) continue;
    told = true;
    c.problem.rows = std::stoll(idea.substr(10));
    EXPECT_TRUE(c.plan().fits);
    EXPECT_GT(c.problem.rows, 1600);  // of 1,024 − 51 − 32 MiB
  }
  EXPECT_TRUE(told);
}

TEST(ShardedPlan, HostMemoryBesideAGpu) {
  Case c;
  c.request.parameters = ParameterMemory::kHost;
  EXPECT_THROW(c.plan(), UsageError);
  c.problem.on_gpu = true;
  c.machine.memory_bytes = c.machine.host_memory_bytes = kGiB;
  const Plan plan = c.plan();
  EXPECT_EQ(plan.bytes.parameters, 0);
  EXPECT_EQ(plan.bytes.vectors, 0);
  EXPECT_EQ(plan.bytes.share_host, 10 + 80);
  EXPECT_EQ(plan.bytes.total_host(), 90);
  EXPECT_TRUE(plan.fits);
  c.machine.host_memory_bytes = 0;
  EXPECT_FALSE(c.plan().fits);
}

// Beside a GPU what crosses the cuts goes to the host before it is divided or made again; on the GPU is then what one
// segment reads and leaves of it, and the adjoints at one cut, of both micro-batches.
TEST(ShardedPlan, WhatCrossesGoesToTheHostBesideAGpu) {
  Case c;
  c.problem.on_gpu = true;
  c.machine.memory_bytes = 4 * kGiB;
  c.segments.assign(8, {1, 2, 100, 40, 0, 100 * kMiB, 100 * kMiB, 100});
  c.segments.back() = {1, 2, 100, 40, 0, 0, 0, 100};
  EXPECT_FALSE(c.plan().crossing_on_host);
  while (c.plan().passes == 1 && !c.plan().crossing_on_host) c.machine.memory_bytes -= 100 * kMiB;
  EXPECT_EQ(c.plan().passes, 2);  // there is no host memory
  c.machine.host_memory_bytes = 8 * kGiB;
  const Plan plan = c.plan();
  EXPECT_TRUE(plan.fits);
  EXPECT_TRUE(plan.crossing_on_host);
  EXPECT_EQ(plan.passes, 1);
  EXPECT_EQ(plan.bytes.crossing_host, 2 * 2 * 700 * kMiB);
  EXPECT_EQ(plan.bytes.crossing, 2 * 2 * 100 * kMiB + 2 * 2 * 100 * kMiB);
  EXPECT_GT(plan.product_s, held_product_s(c));
}

TEST(ShardedPlan, NeedsShapes) {
  Case c;
  c.sharded.cut = nullptr;
  try {
    c.plan();
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_NE(std::string(error.what()).find("--parameters sharded"), std::string::npos);
  }
}

}  // namespace
}  // namespace hesspect::sharded_plan_test
