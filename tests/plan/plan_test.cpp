// Bytes, choice, advice and text of plans. Expected numbers are worked out by hand beside each case.
#include "hesspect/plan/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "hesspect/core/errors.h"
#include "hesspect/plan/input_plan.h"

namespace hesspect::plan_test {
namespace {

constexpr std::int64_t kGiB = std::int64_t{1} << 30;
constexpr std::int64_t kMiB = std::int64_t{1} << 20;

/// One run to be planned; small enough for arithmetic in the head.
struct Case : PlanInputs {
  Case()
      : PlanInputs{{10, 4, 8, 7, 3, false, false, 1000},
                   {2, 1.0, 2.0, 40, 10, 100, 7, 5},
                   {1, 5, 0, 2, true},
                   {2, kGiB, 0, 0, 0},
                   {}} {}
  Plan plan() const { return make_plan(*this); }
  std::vector<std::string> advice() const {
    return what_would_fit(*this, [this](const DemandChange& change) { return changed(change); });
  }
  /// As a command does whose eigenvalues need re-orthogonalisation.
  std::optional<Demand> changed(const DemandChange& change) const {
    Demand d = demand;
    if (!change.reorthogonalize && d.longest_steps > 0) return std::nullopt;
    d.reorthogonalize = d.reorthogonalize && change.reorthogonalize;
    if (change.steps) d.steps = *change.steps;
    if (change.max_steps) d.longest_steps = std::max(d.steps, *change.max_steps);
    if (change.max_basis) d.max_basis = *change.max_basis;
    return d;
  }
  std::string text() const {
    std::string all;
    for (const std::string& line : describe(plan(), *this)) all += line + "\n";
    return all;
  }
};

/// Blocks come after the rest, in its room, dealt to the groups.
TEST(PlanBlocks, AreCounted) {
  Case c;
  c.request.groups = 1;
  const Plan without = c.plan();
  EXPECT_EQ(without.block_products, 0);
  c.demand.blocks = {{6, 30, 0}, {4, 10, 8}};
  c.demand.block_rows = 20;
  const Plan plan = c.plan();
  EXPECT_EQ(plan.block_products, 40);
  EXPECT_EQ(plan.products, without.products + 40);
  EXPECT_EQ(plan.products_in_turn, without.products_in_turn + 40);
  EXPECT_EQ(plan.block_bytes, 20 * 5 * 4);  // in shards of 5
  EXPECT_EQ(plan.bytes.basis, 400);         // instead of 120
  // A product takes 4 rows of 2 s in 2 rows, all kept; a loss half of what can be kept, 1 s in 2 rows.
  EXPECT_NEAR(plan.blocks_s, 40 * 4.0 + 8 * 1.0, 0.01);
  EXPECT_NEAR(plan.run_s, without.run_s + plan.blocks_s, 1e-9);
  EXPECT_NE(c.text().find("then 2 blocks"), std::string::npos);
  EXPECT_NE(c.text().find("with 2 blocks: at most 40 products, "), std::string::npos);
  EXPECT_NE(c.text().find("400 B of vectors a rank"), std::string::npos);

  c.request.groups = 2;  // side by side: the first has the larger one
  EXPECT_EQ(c.plan().products_in_turn - c.plan().products + c.plan().block_products, 30);
  c.demand.are_features = true;
  EXPECT_NE(c.text().find("with 2 features"), std::string::npos);
}

TEST(InputPlan, ByHand) {
  PlanProblem problem{10, 4, 8, 7, 3, false, false, 1000};
  const InputCost cost{2, 6, 5, 100, 60, 0.5, 0.25};
  const InputPlan plan = make_input_plan(problem, cost, {2, kGiB, 0, 0, 0});
  EXPECT_EQ(plan.rows, 4);  // of 7, on two ranks
  EXPECT_EQ(plan.micro_batches, 2);
  EXPECT_EQ(plan.bytes.parameters, 40);
  EXPECT_EQ(plan.bytes.data, 12);
  EXPECT_EQ(plan.bytes.basis, 2 * 6 * (6 * 4 + 3 * 8));  // 5 products and the start, and three in double
  EXPECT_EQ(plan.bytes.holes, 20);
  EXPECT_NEAR(plan.run_s, 2 * (2 * 0.5 + 5 * 0.25), 1e-12);
  EXPECT_TRUE(plan.fits);
  const InputPlan small = make_input_plan(problem, cost, {2, 40 * kMiB, 0, 0, 0});
  EXPECT_TRUE(small.fits);  // of which 5 % and 32 MiB are left out
  EXPECT_FALSE(make_input_plan(problem, cost, {2, 33 * kMiB, 0, 0, 0}).fits);
  EXPECT_EQ(make_input_plan(problem, {}, {2, kGiB, 0, 0, 0}).run_s, 0);  // not measured
}

TEST(PlanBytes, OfTwoRanks) {
  const Plan plan = Case{}.plan();
  EXPECT_EQ(plan.groups, 1);
  EXPECT_EQ(plan.data_ranks, 2);
  EXPECT_EQ(plan.bytes.process, 1000);
  EXPECT_EQ(plan.bytes.parameters, 40);
  EXPECT_EQ(plan.bytes.buffers, 8);
  EXPECT_EQ(plan.bytes.data, 12);  // 4 of 7 rows
  // In and out 2 × 40, 40 received for a sum; of length 5 (1 + 2) × 20.
  EXPECT_EQ(plan.bytes.vectors, 180);
  EXPECT_EQ(plan.bytes.basis, 120);        // 6 rows of 5
  EXPECT_EQ(plan.micro_batches, 2);        // of 2 rows
  EXPECT_EQ(plan.kept_graphs, 2);          // both
  EXPECT_EQ(plan.bytes.kept_graphs, 120);  // 2 × (40 + 2 × 10)
  EXPECT_EQ(plan.bytes.transient, 114);    // 100 + 2 × 7
  EXPECT_EQ(plan.bytes.outputs, 10);
  EXPECT_EQ(plan.bytes.holes, 29);  // an eighth of 120 + 114
  EXPECT_EQ(plan.bytes.total(), 1623);
  EXPECT_TRUE(plan.fits);
}

TEST(PlanBytes, ShardsArePadded) {
  Case c;
  c.problem.parameters = 11;  // chunks of 6, 12 in all
  const Plan plan = c.plan();
  EXPECT_EQ(plan.bytes.parameters, 44);
  EXPECT_EQ(plan.bytes.vectors, 216);  // 3 × 48 + 3 × 24
  EXPECT_EQ(plan.bytes.basis, 144);
}

TEST(PlanBytes, OneRankGathersNothing) {
  Case c;
  c.machine.world = 1;
  const Plan plan = c.plan();
  EXPECT_EQ(plan.bytes.vectors, 200);  // 2 × 40, (1 + 2) × 40
  EXPECT_EQ(plan.bytes.data, 21);
  EXPECT_EQ(plan.micro_batches, 4);        // 2, 2, 2, 1
  EXPECT_EQ(plan.bytes.kept_graphs, 230);  // 3 × 60 + 50
  EXPECT_EQ(plan.messages_per_step, 0);
  EXPECT_EQ(plan.message_bytes_per_step, 0);
}

TEST(PlanBytes, ProbesInLockStepAndTheLongerEigenvalueProbe) {
  Case c;
  c.demand.probes = 2;
  c.demand.longest_steps = 8;
  c.request.lock_step = 2;
  c.request.groups = 1;
  const Plan plan = c.plan();
  EXPECT_EQ(plan.lock_step, 2);
  EXPECT_EQ(plan.bytes.basis, 300);            // (6 + 9) × 20
  EXPECT_EQ(plan.bytes.vectors, 360);          // 6 × 40 + (2 + 2 + 2) × 20
  EXPECT_EQ(plan.message_bytes_per_step, 80);  // 2 calls × 1 peer × 2 probes × 20
  c.demand.probes = c.request.lock_step = 3;
  EXPECT_EQ(c.plan().bytes.vectors, 520);  // 9 × 40 + (3 + 3 + 2) × 20
}

TEST(PlanBytes, NoMoreVectorsThanDimensions) {
  Case c;
  c.demand.steps = 5000;
  EXPECT_EQ(c.plan().bytes.basis, 200);  // 10 × 20
  EXPECT_EQ(c.plan().products, 12);      // 10 and the symmetry check's
}

TEST(PlanBytes, NarrowerBasisKeepsTwoVectorsOfFullPrecision) {
  Case c;
  c.request.basis_dtype = ElementType::kBF16;
  EXPECT_EQ(c.plan().bytes.basis, 100);  // 6 × 10 + 2 × 20
  c.request.basis_dtype.reset();
  c.demand.reorthogonalize = false;
  EXPECT_EQ(c.plan().bytes.basis, 40);
  c.request.basis_dtype = ElementType::kBF16;  // of no use then
  EXPECT_EQ(c.plan().bytes.basis, 40);
}

TEST(PlanBytes, HostBasisIsCountedApart) {
  Case c;
  c.problem.on_gpu = true;
  c.machine.host_memory_bytes = c.machine.memory_bytes = 10 * kGiB;
  c.request.basis_memory = BasisMemory::kHost;
  EXPECT_EQ(c.plan().bytes.basis, 40);            // the recurrence's two
  EXPECT_EQ(c.plan().bytes.basis_host, 512);      // of 6 rows: a block of 16 rows of 20, rounded up to a power of two
  EXPECT_EQ(c.plan().bytes.vectors, 140 + 1360);  // 16 rows of 5 and a vector: twice in float32, once in double
  EXPECT_EQ(c.plan().bytes.holes, 0);             // a GPU's allocator has a margin of its own
  EXPECT_EQ(c.plan().bytes.total(), 1554 - 120 + 40 + 1360);
  c.demand.steps = 16;
  c.problem.parameters = 20;
  EXPECT_EQ(c.plan().bytes.basis_host, 2 * 1024);  // 17 rows of 40
  c.machine.host_memory_bytes = 0;
  EXPECT_FALSE(c.plan().fits);
}

// However long the rows, the buffers on the device stay as they are.
TEST(PlanBytes, StreamedRowsTakeBuffersOfOneSize) {
  const auto vectors = [](std::int64_t element_bytes, ElementType basis_dtype, BasisMemory memory) {
    Case c;
    c.problem = {3'000'000'000, element_bytes, 0, 64, 100, false, true, 0};
    c.machine = {1, 1000 * kGiB, 10'000 * kGiB, 0, 0};
    c.request.basis_memory = memory;
    c.request.basis_dtype = basis_dtype;
    return c.plan().bytes.vectors;
  };
  const std::int64_t entries = 32 * kMiB;
  EXPECT_EQ(vectors(4, ElementType::kF32, BasisMemory::kHost) - vectors(4, ElementType::kF32, BasisMemory::kDevice),
            entries * (2 * 4 + 8));
  EXPECT_EQ(vectors(4, ElementType::kBF16, BasisMemory::kHost) - vectors(4, ElementType::kBF16, BasisMemory::kDevice),
            entries * (2 * 2 + 8));
  EXPECT_EQ(vectors(8, ElementType::kF64, BasisMemory::kHost) - vectors(8, ElementType::kF64, BasisMemory::kDevice),
            entries * 2 * 8);
}

TEST(PlanBytes, GraphsThatAreRebuiltAreTransient) {
  Case c;
  c.request.graph_bytes = 60;  // of one
  const Plan one = c.plan();
  EXPECT_EQ(one.kept_graphs, 1);
  EXPECT_EQ(one.bytes.kept_graphs, 60);
  EXPECT_EQ(one.bytes.transient, 174);
  EXPECT_LE(one.graph_budget_bytes, 60);
  c.request.graph_bytes = 0;
  c.request.micro_batch = 2;
  EXPECT_EQ(c.plan().kept_graphs, 0);
  EXPECT_EQ(c.plan().bytes.kept_graphs, 0);
  EXPECT_EQ(c.plan().bytes.transient, 174);
  EXPECT_EQ(c.plan().graph_budget_bytes, 0);
}

TEST(PlanBytes, MoreRanksThanRowsAndFixedBatches) {
  Case c;
  c.machine.world = 16;
  const Plan plan = c.plan();
  EXPECT_EQ(plan.bytes.data, 3);
  EXPECT_EQ(plan.micro_batch, 1);
  EXPECT_EQ(plan.micro_batches, 1);
  c.problem.static_batch = true;  // rows are padded to the program's 2
  EXPECT_EQ(c.plan().micro_batch, 2);
  EXPECT_EQ(c.plan().micro_batches, 1);
  EXPECT_EQ(c.plan().bytes.transient, 114);
}

TEST(PlanBytes, MemoryThatIsLeftDecidesOnGraphs) {
  // 8 micro-batches of 100 MiB graphs, 50 MiB transients; everything else is 100 MiB for the process and next to
  // nothing.
  Case c;
  c.machine.world = 1;
  c.problem = {10, 4, 0, 8, 0, false, false, 100 * kMiB};
  c.cost = {1, 1, 1, 100 * kMiB, 0, 50 * kMiB, 0, 0};
  // 5 % and 32 MiB stay free. Holes take an eighth of all.
  const auto memory = [](double mib) {
    return static_cast<std::int64_t>((132 + mib) * 20 / 19 * static_cast<double>(kMiB));
  };
  c.machine.memory_bytes = memory(1.125 * (150 + 250));  // one at a time, and two and a half
  EXPECT_EQ(c.plan().kept_graphs, 2);
  EXPECT_EQ(c.plan().bytes.holes, 350 * kMiB / 8);
  c.machine.memory_bytes = memory(1.125 * 150 + 1);
  EXPECT_TRUE(c.plan().fits);
  EXPECT_EQ(c.plan().kept_graphs, 0);
  c.machine.memory_bytes = memory(1.125 * 150 - 1);
  EXPECT_FALSE(c.plan().fits);
  c.machine.memory_bytes = memory(1.125 * 850 + 1);  // all: nothing is rebuilt
  EXPECT_EQ(c.plan().kept_graphs, 8);
  EXPECT_EQ(c.plan().bytes.transient, 50 * kMiB);
  EXPECT_EQ(c.plan().bytes.holes, 850 * kMiB / 8);
}

TEST(PlanBytes, AShorterLastMicroBatchHasItsGraphKeptToo) {
  // The operator keeps a graph where one as large as those before would fit. A budget of the bytes of all graphs, the
  // last one shorter, left that one out.
  Case c;
  c.machine.world = 1;
  c.cost.graph_row_bytes = 10 * kMiB;
  const Plan plan = c.plan();  // micro-batches of 2, 2, 2, 1 rows
  EXPECT_EQ(plan.kept_graphs, 4);
  EXPECT_LT(plan.bytes.kept_graphs, 75 * kMiB);
  EXPECT_GE(plan.graph_budget_bytes, 80 * kMiB);
}

TEST(PlanRefuses, WhatCannotBe) {
  const auto refused = [](const Case& c) {
    try {
      c.plan();
    } catch (const UsageError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  Case c;
  c.machine.world = 6;
  c.request.groups = 4;
  EXPECT_NE(refused(c).find("1, 2, 3, 6"), std::string::npos) << refused(c);
  c.request.groups = 3;
  EXPECT_EQ(refused(c), "");  // more groups than probes only idle
  EXPECT_EQ(c.plan().groups, 3);
  EXPECT_NE(c.text().find("2 groups idle"), std::string::npos) << c.text();
  c = {};
  c.problem.static_batch = true;
  c.request.micro_batch = 3;
  EXPECT_NE(refused(c).find("--micro-batch 3"), std::string::npos);
  c.request.micro_batch = 2;
  EXPECT_EQ(refused(c), "");
  c = {};
  c.request.basis_dtype = ElementType::kF64;
  EXPECT_NE(refused(c).find("wider"), std::string::npos);
  c = {};
  c.machine.world = 0;
  EXPECT_NE(refused(c), "");
}

TEST(PlanChooses, AsManyGroupsAsProbesWhileThatFits) {
  Case c;
  c.demand = {4, 80, 0, 2, true};
  c.problem = {1'000'000, 4, 0, 4096, 1000, false, false, 0};
  c.cost = {64, 1.2, 2, 40'000, 1000, 8'000'000, 1000, 0};
  c.machine = {4, 4 * kGiB, 0, 1e9, 1e-5};
  EXPECT_EQ(c.plan().groups, 4);
  EXPECT_EQ(c.plan().lock_step, 1);
  EXPECT_EQ(c.plan().basis_dtype, ElementType::kF32);
  // 81 × 4 MB = 324 MB a probe in one rank, 162 MB in two.
  c.machine.memory_bytes = 330 * kMiB;
  EXPECT_EQ(c.plan().groups, 2);
  c.cost = {};
  EXPECT_EQ(c.plan().groups, 2);
  c.machine.memory_bytes = 4 * kGiB;
  EXPECT_EQ(c.plan().groups, 4);
  EXPECT_EQ(c.plan().run_s, 0);
  c.demand.probes = 3;  // 4 ranks divide in 1, 2 or 4
  EXPECT_EQ(c.plan().groups, 2);
}

TEST(PlanChooses, LockStepWhereGraphsAreRebuilt) {
  Case c;
  c.machine.world = 1;
  c.demand = {4, 10, 0, 0, true};
  c.problem.rows = 2;
  c.request.graph_bytes = 0;
  EXPECT_EQ(c.plan().lock_step, 4);  // 1 + 4 × 2 s for 4 products, not 4 × (1 + 2)
  EXPECT_NEAR(c.plan().product_s, 9.0 / 4, 1e-6);
  EXPECT_NEAR(c.plan().run_s, 90, 1e-3);
  c.request.graph_bytes = -1;
  EXPECT_EQ(c.plan().lock_step, 1);
  EXPECT_NEAR(c.plan().run_s, 80, 1e-3);
}

TEST(PlanChooses, HostMemoryBeforeNarrowerVectors) {
  Case c;
  c.machine = {1, 8 * kGiB, 64 * kGiB, 0, 0};
  c.problem = {100'000'000, 4, 0, 64, 100, false, true, 0};
  c.demand.steps = 80;  // 32.4 GB of basis, 48 GiB as pinned; in bfloat16 half of that
  c.cost = {4, 1, 1, 400'000'000, 1000, 800'000'000, 1000, 0};
  EXPECT_EQ(c.plan().basis_dtype, ElementType::kF32);
  EXPECT_EQ(c.plan().basis_memory, BasisMemory::kHost);
  c.machine.host_memory_bytes = 32 * kGiB;
  EXPECT_EQ(c.plan().basis_dtype, ElementType::kBF16);
  EXPECT_EQ(c.plan().basis_memory, BasisMemory::kHost);
  c.machine.memory_bytes = 30 * kGiB;
  EXPECT_EQ(c.plan().basis_dtype, ElementType::kBF16);
  EXPECT_EQ(c.plan().basis_memory, BasisMemory::kDevice);
  c.machine.memory_bytes = 80 * kGiB;
  EXPECT_EQ(c.plan().basis_dtype, ElementType::kF32);
  EXPECT_EQ(c.plan().basis_memory, BasisMemory::kDevice);
  c.problem.on_gpu = false;
  c.request.basis_memory = BasisMemory::kHost;  // of a CPU they are one
  EXPECT_EQ(c.plan().basis_memory, BasisMemory::kDevice);
  EXPECT_EQ(c.plan().bytes.basis_host, 0);
}

TEST(PlanChooses, SmallerMicroBatchesWhereTheyMustBe) {
  Case c;
  c.machine = {1, 2176 * kMiB, 0, 0, 0};
  c.problem = {10, 4, 0, 64, 0, false, false, 0};
  c.cost = {64, 1, 1, 0, 20 * kMiB, 0, 10 * kMiB, 0};
  // Of 2176 − 109 − 32 = 2035 MiB: 64 rows take 1920 and an eighth of it for holes; 32 rows, both graphs kept, 1600 and
  // 200.
  EXPECT_EQ(c.plan().micro_batch, 32);
  EXPECT_TRUE(c.plan().fits);
  c.request.micro_batch = 64;
  EXPECT_FALSE(c.plan().fits);
  c.request.micro_batch = 0;
  c.problem.static_batch = true;
  EXPECT_FALSE(c.plan().fits);
}

/// 1.3 · 10⁹ parameters in float32 on 80 GiB: a vector has 5.2 GB, a basis of 81 of them 421 GB.
Case large(int world, std::int64_t host) {
  Case c;
  c.problem = {1'300'000'000, 4, 0, 8192, 8192, false, true, 0};
  c.cost = {4, 0.4, 0.6, 5'200'000'000, 1'500'000'000, 5'200'000'000, 1'000'000'000, 400'000'000};
  c.demand = {8, 80, 0, 2, true};
  c.machine = {world, 80 * kGiB, host, 1e11, 2e-5};
  return c;
}

TEST(PlanOfGpus, EightOfThem) {
  // In one group: 52.65 GB of basis, 5.2 of parameters, 2 × 5.2 + 4 × 0.65 of vectors: 70.85 GB. With 5.2 + 1 × 1 of
  // transient and 5.2 + 1.5 of a graph that is 83.75 GB for a single row; 81.07 may be planned with.
  const Plan narrow = large(8, 0).plan();
  EXPECT_TRUE(narrow.fits);
  EXPECT_EQ(narrow.groups, 1);
  EXPECT_EQ(narrow.basis_dtype, ElementType::kBF16);
  const Plan hosted = large(8, 104 * kGiB).plan();
  EXPECT_TRUE(hosted.fits);
  EXPECT_EQ(hosted.groups, 1);
  EXPECT_EQ(hosted.basis_dtype, ElementType::kF32);
  EXPECT_EQ(hosted.basis_memory, BasisMemory::kHost);
  // 81 rows of 0.65 GB: six blocks of sixteen, in 16 GiB each.
  EXPECT_EQ(hosted.bytes.basis_host, 6 * 16 * kGiB);
  // 8 probes × 80 products of 8192 / 8 rows: 256 micro-batches of 0.6 s and up to 0.4 s for the graph.
  EXPECT_GT(hosted.run_s, 640 * 256 * 0.6);
  EXPECT_LT(hosted.run_s, 642 * 256 * 1.0 * 1.1);
}

TEST(PlanOfGpus, ManyOfThem) {
  const Plan some = large(64, 0).plan();
  EXPECT_TRUE(some.fits);
  EXPECT_EQ(some.basis_dtype, ElementType::kF32);
  EXPECT_GE(some.data_ranks, 16);  // eight did not do in float32
  const Plan many = large(1024, 0).plan();
  EXPECT_TRUE(many.fits);
  EXPECT_LE(many.groups, 8);
  EXPECT_LT(many.run_s, some.run_s / 8);
  // A product's messages, in and out: 2 × 5.2 GB in shares of (D − 1) / D at 100 GB/s.
  EXPECT_NEAR(static_cast<double>(many.message_bytes_per_step) / many.lock_step, 10.4e9, 0.02 * 10.4e9);
  EXPECT_GT(many.product_s, 0.1);
}

TEST(PlanForecast, MessagesAndLanczosWork) {
  Case c;
  c.problem = {1000, 4, 0, 8, 1, false, false, 0};
  c.cost = {2, 1, 3, 0, 0, 0, 0, 0};
  c.machine = {4, 8 * kGiB, 0, 1e6, 1e-3};
  c.request.groups = 1;
  // 2 rows a rank: 3 s; 7 calls × log₂ 4 × 1 ms; 2 × 3 shards of 1000 bytes at 1 MB/s.
  EXPECT_NEAR(c.plan().product_s, 3 + 0.014 + 0.006, 1e-5);
  EXPECT_EQ(c.plan().messages_per_step, 7);
  EXPECT_EQ(c.plan().message_bytes_per_step, 6000);

  c.problem.parameters = 1'000'000'000;
  c.machine = {1, 200 * kGiB, 200 * kGiB, 0, 0};
  c.demand = {1, 10, 0, 0, true};
  // 2 passes over 1 + 2 + … + 10 vectors of 4 GB, 3 of other rows, beside 10 products of 12 s and 7 vectors.
  EXPECT_NEAR(c.plan().run_s, 120 + 28 + 44, 1e-6);
  c.request.basis_dtype = ElementType::kBF16;
  EXPECT_NEAR(c.plan().run_s, 120 + 28 + 33, 1e-6);
  c.request.basis_dtype = ElementType::kF32;
  c.problem.on_gpu = true;
  EXPECT_NEAR(c.plan().run_s, 120 + 0.28 + 0.44, 1e-6);
  c.request.basis_memory = BasisMemory::kHost;
  EXPECT_NEAR(c.plan().run_s, 120 + 0.28 + 33, 1e-6);
}

TEST(PlanForecast, MoreMemoryIsNeverSlower) {
  double before = std::numeric_limits<double>::infinity();
  for (double gib = 20; gib < 2000; gib *= 1.07) {
    Case c = large(8, 200 * kGiB);
    c.machine.memory_bytes = static_cast<std::int64_t>(gib * kGiB);
    c.request.basis_dtype = ElementType::kF32;
    const Plan plan = c.plan();
    if (!plan.fits) {
      EXPECT_TRUE(std::isinf(before)) << gib;
      continue;
    }
    EXPECT_LE(plan.run_s, 1.021 * before) << gib;
    EXPECT_LE(static_cast<double>(plan.bytes.total()), 0.95 * gib * kGiB);
    before = plan.run_s;
  }
  EXPECT_FALSE(std::isinf(before));
}

TEST(PlanForecast, MoreRanksAreNeverSlowerButForMessages) {
  double before = std::numeric_limits<double>::infinity();
  for (int world = 1; world <= 16384; world *= 2) {
    Case c = large(world, 0);
    c.machine.memory_bytes = 1000 * kGiB;
    c.machine.bandwidth = c.machine.latency_s = 0;
    const Plan plan = c.plan();
    EXPECT_TRUE(plan.fits);
    EXPECT_LE(plan.run_s, 1.021 * before) << world;
    before = plan.run_s;
  }
}

/// The word after an option in a suggestion, up to a bracket or comma; empty where the option is not there.
std::string word_after(const std::string& text, const std::string& option) {
  const std::size_t at = text.find(option + " ");
  if (at == std::string::npos) return {};
  const std::size_t begin = at + option.size() + 1;
  return text.substr(begin, text.find_first_of(" ,()", begin) - begin);
}

/// "at least 12.34 GiB of memory for each rank", 0 for other text.
std::int64_t memory_in(const std::string& text) {
  const std::size_t unit = text.find("iB of memory");
  if (unit == std::string::npos) return 0;
  const auto power = static_cast<double>(std::string("KMGT").find(text[unit - 1]) + 1);
  return static_cast<std::int64_t>(std::stod(word_after(text, "at least")) * std::pow(1024.0, power));
}

/// The case with a suggestion taken up.
Case with_suggestion(Case c, const std::string& text) {
  const auto number = [&](const std::string& option, std::int64_t& value) {
    if (const std::string word = word_after(text, option); !word.empty()) value = std::stoll(word);
  };
  const auto name = [&]<class Value>(const std::string& option, std::optional<Value>& value,
                                     std::initializer_list<Value> known) {
    for (const Value one : known)
      if (word_after(text, option) == to_string(one)) value = one;
  };
  number("--lock-step", c.request.lock_step);
  number("--groups", c.request.groups);
  number("--micro-batch", c.request.micro_batch);
  name("--basis-memory", c.request.basis_memory, {BasisMemory::kDevice, BasisMemory::kHost});
  name("--basis-dtype", c.request.basis_dtype, {ElementType::kF32, ElementType::kBF16});
  std::int64_t ranks = c.machine.world;
  number("mpirun -n", ranks);
  c.machine.world = static_cast<int>(ranks);
  if (text.starts_with("--steps ") && c.demand.longest_steps == 0) number("--steps", c.demand.steps);
  number("--max-steps", c.demand.longest_steps);
  if (text.starts_with("--steps and --max-steps")) c.demand.steps = c.demand.longest_steps;
  number("--max-basis", c.demand.max_basis);
  if (!word_after(text, "--reorthogonalization").empty()) c.demand.reorthogonalize = false;
  if (memory_in(text) > 0) c.machine.memory_bytes = memory_in(text);
  return c;
}

TEST(PlanAdvice, EverySuggestionFits) {
  std::vector<Case> cases(9, large(8, 0));
  cases[0].request.basis_dtype = ElementType::kF32;
  cases[1].request.groups = 8;
  cases[2].request.lock_step = 8;
  cases[3].machine.world = 1;
  cases[4].machine.world = 2;
  cases[4].demand.longest_steps = 400;
  cases[5].request.micro_batch = 64;
  cases[5].request.groups = 8;
  cases[5].demand.steps = 40;
  cases[6].machine.host_memory_bytes = 104 * kGiB;
  cases[6].request.basis_memory = BasisMemory::kDevice;
  cases[6].request.basis_dtype = ElementType::kF32;
  cases[7].problem.on_gpu = false;
  cases[7].cost = {};
  cases[7].machine.memory_bytes = kGiB;  // the parameters alone are more: memory helps, nothing else
  cases[8].request.groups = 8;           // neither alone is enough
  cases[8].request.lock_step = 8;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    ASSERT_FALSE(cases[i].plan().fits) << i;
    const std::vector<std::string> advice = cases[i].advice();
    EXPECT_FALSE(advice.empty()) << i;
    EXPECT_LE(advice.size(), 5u) << i;
    for (const std::string& text : advice)
      EXPECT_TRUE(with_suggestion(cases[i], text).plan().fits) << i << ": " << text;
  }
  EXPECT_EQ(cases[7].advice().size(), 1u);
  EXPECT_EQ(cases[8].advice()[0], "--lock-step 1 --groups 1");
  EXPECT_TRUE(large(64, 0).advice().empty());
}

TEST(PlanAdvice, TheFewestRanksThatDo) {
  Case c = large(8, 0);
  c.request.basis_dtype = ElementType::kF32;
  for (const std::string& text : c.advice()) {
    if (word_after(text, "mpirun -n").empty()) continue;
    c = with_suggestion(c, text);
    EXPECT_TRUE(c.plan().fits);
    --c.machine.world;
    EXPECT_FALSE(c.plan().fits);
    return;
  }
  FAIL() << "ranks are not among the suggestions";
}

TEST(PlanAdvice, EigenvaluesNeedReorthogonalization) {
  Case c = large(2, 0);
  c.demand = {1, 80, 0, 2, true};
  const auto names = [](const std::vector<std::string>& advice, const std::string& option) {
    return std::any_of(advice.begin(), advice.end(),
                       [&](const std::string& a) { return a.find(option) != std::string::npos; });
  };
  EXPECT_TRUE(names(c.advice(), "--reorthogonalization none"));
  c.demand.longest_steps = 80;
  EXPECT_FALSE(names(c.advice(), "--reorthogonalization"));
  EXPECT_TRUE(names(c.advice(), "--max-steps"));
}

TEST(PlanAdvice, EveryFixedOptionIsFreedAloneAndTogether) {
  // Half the bytes of a row would do, or half the rows: both are the user's own choice.
  Case c = large(8, 0);
  c.request.groups = 8;
  c.request.basis_dtype = ElementType::kF32;
  ASSERT_FALSE(c.plan().fits);
  bool dtype = false;
  for (const std::string& text : c.advice()) {
    EXPECT_TRUE(with_suggestion(c, text).plan().fits) << text;
    dtype = dtype || text.find("--basis-dtype") != std::string::npos;
  }
  EXPECT_TRUE(dtype);
}

TEST(PlanAdvice, WhatTheOptionsForbidIsNotSaid) {
  Case c = large(2, 0);
  const auto advice = what_would_fit(c, [](const DemandChange&) -> std::optional<Demand> { return std::nullopt; });
  for (const std::string& text : advice) {
    EXPECT_EQ(text.find("steps"), std::string::npos) << text;
    EXPECT_EQ(text.find("--reorthogonalization"), std::string::npos) << text;
  }
}

TEST(PlanBytes, ProductsThatAreTakenAtOnceTakeWholeVectors) {
  Case c;
  c.demand.joint_where_room = 4;
  const Plan plan = c.plan();
  EXPECT_EQ(plan.joint, 4);
  // In and out 8 × 40, received 4 × 40; of length 5: 4 that are packed, and (1 + 2).
  EXPECT_EQ(plan.bytes.vectors, 480 + 7 * 20);
  // Where that is too much they are taken one by one.
  const std::int64_t without = Case{}.plan().bytes.total();
  c.machine.memory_bytes = (without + 32 * kMiB) * 20 / 19 + 100;
  c.cost.graph_row_bytes = c.cost.graph_fixed_bytes = 0;
  EXPECT_TRUE(c.plan().fits);
  EXPECT_EQ(c.plan().joint, 1);
  // A block's products can't be.
  c.demand.joint = 4;
  EXPECT_EQ(c.plan().joint, 4);
  EXPECT_FALSE(c.plan().fits);
}

TEST(PlanText, DescriptionSaysWhatMatters) {
  Case c = large(64, 0);
  const std::string text = c.text();
  for (const char* part : {"layout", "groups of", "probe", "basis", "float32", "micro-batch", "parameters", "4.84 GiB",
                           "total", "80.00 GiB", "messages", "100 GB/s", "products", "642 at most", "forecast"})
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
  EXPECT_EQ(text.find("not measured"), std::string::npos) << text;
  EXPECT_EQ(text.find("does not fit"), std::string::npos) << text;
  c.cost = {};
  EXPECT_NE(c.text().find("not measured"), std::string::npos) << c.text();
  EXPECT_EQ(c.text().find("forecast"), std::string::npos) << c.text();
  c.machine.world = 1;
  EXPECT_NE(c.text().find("does not fit"), std::string::npos) << c.text();
}

}  // namespace
}  // namespace hesspect::plan_test
