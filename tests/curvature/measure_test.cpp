// What a micro-batch is said to cost, against what the heap shows of products as the operator takes them.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "hesspect/core/errors.h"
#include "hesspect/core/memory.h"
#include "hesspect/core/timer.h"
#include "hesspect/curvature/measure.h"
#include "support/fixture.h"
#include "support/heap.h"

namespace hesspect::measure_test {
namespace {

using test::Fixture;
using test::kHeapIsCounted;

constexpr std::int64_t kPlenty = std::int64_t{4} << 30;
// Blocks that the heap splits or not, by their addresses: as much as the smallest model's whole graph of a few rows.
constexpr double kHeapNoise = 16384;

/// A fixture with its rows repeated, so that there are enough to tell sizes apart.
struct Case {
  explicit Case(const char* name, std::int64_t copies = 8)
      : fixture(name), program(Program::load(fixture.path(".pt2"), {at::kFloat, at::kCPU})) {
    data = fixture.shard(program);
    for (at::Tensor& input : data.inputs) input = at::cat(std::vector<at::Tensor>(copies, input));
    if (data.target.defined()) data.target = at::cat(std::vector<at::Tensor>(copies, data.target));
    data.rows = {0, copies * data.rows.size()};
    data.global_rows = data.rows.size();
    options.loss = fixture.loss();
    options.output_index = fixture.output_index();
  }
  BatchCost cost(std::int64_t micro_batch, std::int64_t memory_bytes = kPlenty) {
    HessianOptions asked = options;
    asked.micro_batch = micro_batch;
    return measure_batch_cost(program, data, asked, memory_bytes);
  }
  DataShard first_rows(std::int64_t rows) const {
    DataShard part = data;
    for (at::Tensor& input : part.inputs) input = input.narrow(0, 0, rows);
    if (part.target.defined()) part.target = part.target.narrow(0, 0, rows);
    part.rows = {0, rows};
    part.global_rows = rows;
    return part;
  }
  /// An operator on one micro-batch of the first rows.
  std::unique_ptr<HessianOperator> one_batch(std::int64_t rows, std::int64_t budget) {
    HessianOptions given = options;
    given.micro_batch = rows;
    given.graph_budget_bytes = budget;
    return std::make_unique<HessianOperator>(program, first_rows(rows), comm, given);
  }

  Fixture fixture;
  Program program;
  DataShard data;
  HessianOptions options;
  LocalCommunicator comm;
};

/// The most that the heap held above its start while `work` ran, over and over, until another thread has looked often.
template <class Work>
std::int64_t sampled_peak(const Work& work) {
  std::atomic<int> samples{0};
  std::atomic<bool> done{false};
  std::int64_t peak = 0;
  std::thread sampler([&] {
    const std::int64_t before = heap_bytes_in_use();
    ++samples;
    for (; !done; ++samples) peak = std::max(peak, heap_bytes_in_use() - before);
  });
  while (samples == 0) std::this_thread::yield();
  // Looks wait for the heap's lock: on a busy machine there are few.
  const Timer timer;
  for (int i = 0; i < 5 || (samples < 300 && timer.elapsed_s() < 3); ++i) work();
  done = true;
  sampler.join();
  return peak;
}

class Measure : public ::testing::TestWithParam<const char*> {};

double graph_bytes(const BatchCost& cost, std::int64_t rows) {
  return static_cast<double>(cost.graph_fixed_bytes + rows * cost.graph_row_bytes);
}

double transient_bytes(const BatchCost& cost, std::int64_t rows) {
  return static_cast<double>(cost.transient_fixed_bytes + rows * cost.transient_row_bytes);
}

TEST_P(Measure, GraphBytesForecastOtherSizes) {
  if (!kHeapIsCounted) GTEST_SKIP();
  Case c(GetParam());
  const BatchCost cost = c.cost(8);
  EXPECT_EQ(cost.micro_batch, 8);
  EXPECT_GT(cost.graph_row_bytes, 0);
  EXPECT_GT(cost.output_row_bytes, 0);
  for (const std::int64_t rows : {3, 8, 16, 32}) {
    auto probe = c.one_batch(rows, 0);
    probe.reset();  // warm
    const std::int64_t before = heap_bytes_in_use();
    auto rebuilt = c.one_batch(rows, 0);
    const std::int64_t without = heap_bytes_in_use() - before;
    rebuilt.reset();
    auto kept = c.one_batch(rows, kPlenty);
    const double graph = static_cast<double>(heap_bytes_in_use() - before - without);
    ASSERT_EQ(kept->stats().kept_graphs, 1);
    EXPECT_GT(graph_bytes(cost, rows) + kHeapNoise, graph / 1.25) << rows << " rows";
    EXPECT_LT(graph_bytes(cost, rows) - kHeapNoise, graph * 1.25) << rows << " rows";
  }
}

/// Models whose products last long enough to be looked into.
class MeasurePeak : public ::testing::TestWithParam<const char*> {};

TEST_P(MeasurePeak, ProductsTakeNoMoreThanTheTransientPeak) {
  if (!kHeapIsCounted) GTEST_SKIP();
  Case c(GetParam());
  for (const std::int64_t rows : {8, 32}) {
    const BatchCost cost = c.cost(rows);
    for (const std::int64_t budget : {std::int64_t{0}, kPlenty}) {
      auto hessian = c.one_batch(rows, budget);
      const at::Tensor x = at::ones({c.program.layout().size()}, at::kFloat);
      at::Tensor y = at::empty_like(x);
      hessian->apply(x, y);
      const double stated = transient_bytes(cost, rows) + (budget == 0 ? graph_bytes(cost, rows) : 0.0);
      // A look that comes between two products sees nothing: on a busy machine that may be all of them.
      std::int64_t seen = 0;
      for (int trial = 0; trial < 10 && static_cast<double>(seen) < stated / 4; ++trial)
        seen = std::max(seen, sampled_peak([&] { hessian->apply(x, y); }));
      // The operator's lists of views, and what libraries below LibTorch take for a moment, are seen too.
      EXPECT_LE(static_cast<double>(seen), 1.05 * stated + 65536) << rows << " rows, budget " << budget;
      EXPECT_GE(static_cast<double>(seen), stated / 4) << rows << " rows, budget " << budget;
    }
  }
}

TEST_P(Measure, TimesAreSeconds) {
  Case c(GetParam());
  const BatchCost cost = c.cost(8);
  EXPECT_GT(cost.pullback_s, 0);
  EXPECT_GT(cost.graph_s, 0);
  EXPECT_LT(cost.graph_s + cost.pullback_s, 30);
}

/// An operator that takes over what trials have left has the same numbers, to the bit, as one that makes all itself.
TEST_P(Measure, TrialsLeaveWhatAnOperatorWouldMake) {
  Case c(GetParam(), 2);
  const std::int64_t rows = c.data.rows.size(), n = c.program.layout().size();
  at::manual_seed(3);
  const at::Tensor v = at::randn({n}, at::kFloat), w = at::randn({n}, at::kFloat);
  auto plain = c.one_batch(rows, kPlenty);
  const auto product = [&](HessianOperator& op, const at::Tensor& x) {
    at::Tensor y = at::full_like(x, 7);
    op.apply(x, y);
    return y;
  };
  for (const bool in_order : {true, false}) {
    HessianOptions options = c.options;
    options.whole_data = true;
    options.micro_batch = rows;
    WarmStart warm{v, nullptr, 0};
    const BatchCost cost = measure_batch_cost(c.program, c.data, options, kPlenty, &warm);
    ASSERT_NE(warm.products, nullptr);
    EXPECT_GE(warm.bytes, cost.graph_fixed_bytes + rows * cost.graph_row_bytes + 3 * 4 * n - rows);
    options.warm = std::move(warm.products);
    HessianOperator taken(c.program, c.data, c.comm, options);
    EXPECT_EQ(taken.loss(), plain->loss());
    EXPECT_EQ(taken.count(), plain->count());
    EXPECT_TRUE(at::equal(taken.gradient(), plain->gradient()));
    EXPECT_EQ(taken.stats().micro_batches, 1);
    EXPECT_EQ(taken.stats().kept_graphs, 1);
    EXPECT_GT(taken.stats().graph_bytes, 0);
    EXPECT_GT(taken.stats().gradient_s, 0);
    // The vector that the trials had, first or later, and others.
    for (const at::Tensor& x : in_order ? std::vector{v, w, v} : std::vector{w, v, w})
      EXPECT_TRUE(at::equal(product(taken, x), product(*plain, x)));
    EXPECT_EQ(taken.stats().products, 3);
    EXPECT_GT(taken.stats().product_s, 0);
  }
}

TEST(MeasureWarm, NothingIsLeftOfOtherRowsOrWays) {
  Case c("mlp_ce", 2);
  const std::int64_t rows = c.data.rows.size();
  const auto left = [&](auto&& change) {
    HessianOptions options = c.options;
    options.whole_data = true;
    options.micro_batch = rows;
    change(options);
    WarmStart warm{at::ones({c.program.layout().size()}), nullptr, 0};
    measure_batch_cost(c.program, c.data, options, kPlenty, &warm);
    return warm.products != nullptr;
  };
  EXPECT_TRUE(left([](HessianOptions&) {}));
  EXPECT_FALSE(left([](HessianOptions& options) { options.whole_data = false; }));
  EXPECT_FALSE(left([&](HessianOptions& options) { options.micro_batch = rows / 2; }));
  EXPECT_FALSE(left([](HessianOptions& options) { options.product = ProductMode::kRebuilt; }));
  EXPECT_FALSE(left([](HessianOptions& options) { options.product = ProductMode::kAutograd; }));
}

INSTANTIATE_TEST_SUITE_P(Models, MeasurePeak, ::testing::Values("vit", "gpt2", "cnn_bn"),
                         [](const auto& test) { return std::string(test.param); });
INSTANTIATE_TEST_SUITE_P(Models, Measure, ::testing::Values("mlp_ce", "vit", "gpt2", "cnn_bn"),
                         [](const auto& test) { return std::string(test.param); });

TEST(MeasureChoice, LittleMemoryMeansASmallerMicroBatchOrNone) {
  if (!kHeapIsCounted) GTEST_SKIP();
  Case c("vit", 16);
  const BatchCost roomy = c.cost(0);
  ASSERT_GE(roomy.micro_batch, 4);
  // Room for three rows: of the sizes 4, 2 and 1, two fit.
  const BatchCost eight = c.cost(8);
  const auto peak = [&](double rows) {
    return static_cast<double>(eight.graph_fixed_bytes + eight.transient_fixed_bytes) +
           rows * static_cast<double>(eight.graph_row_bytes + eight.transient_row_bytes);
  };
  const auto tight = static_cast<std::int64_t>(peak(3.0));
  EXPECT_EQ(c.cost(0, tight).micro_batch, 2);
  try {
    c.cost(0, 1000);
    FAIL() << "fits into 1000 bytes";
  } catch (const MemoryError& e) {
    EXPECT_EQ(e.available_bytes, 1000);
    EXPECT_GT(e.needed_bytes, 1000);
  }
  EXPECT_EQ(c.cost(2, tight).micro_batch, 2);
  EXPECT_THROW(c.cost(64, tight), MemoryError);
}

TEST(MeasureChoice, FixedBatchAndFewRows) {
  Case fixed("static_batch", 1);
  const std::int64_t batch = *fixed.program.static_batch();
  EXPECT_EQ(fixed.cost(0).micro_batch, batch);
  EXPECT_THROW(fixed.cost(batch + 1), UsageError);
  // One row is not enough to fit a line through: the gradient is the fixed part.
  Case c("mlp_ce", 1);
  const BatchCost one = measure_batch_cost(c.program, c.first_rows(1), c.options, kPlenty);
  EXPECT_EQ(one.micro_batch, 1);
  EXPECT_GE(one.graph_fixed_bytes, 0);
  EXPECT_GT(graph_bytes(one, 1), 0);
}

TEST(MeasureChoice, ChecksTheData) {
  Case c("mlp_ce");
  c.data.target[1] = 12345;
  EXPECT_THROW(c.cost(0), InputError);
}

TEST(FreeMemory, OnTheCpuIsTheNodes) {
  const std::int64_t free = free_memory_bytes(at::kCPU);
  EXPECT_GT(free, 0);
  EXPECT_NEAR(static_cast<double>(free), static_cast<double>(available_memory_bytes()), 1e9);
}

}  // namespace
}  // namespace hesspect::measure_test
