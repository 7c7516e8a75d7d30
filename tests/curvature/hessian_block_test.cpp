// Products of several vectors at once are those of each alone to rounding; products from what is kept are bitwise those
// of one vector from nothing.
#include <gtest/gtest.h>

#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/core/errors.h"
#include "hesspect/curvature/hessian.h"
#include "support/failing_allocator.h"
#include "support/fixture.h"

namespace hesspect::hessian_block_test {
namespace {

using test::Fixture;

HessianOptions options_for(const Fixture& fixture, std::int64_t budget) {
  HessianOptions options;
  options.loss = fixture.loss();
  options.output_index = fixture.output_index();
  options.micro_batch = 3;
  options.graph_budget_bytes = budget;
  options.check_double_backward = false;
  return options;
}

/// This rank's shards of k vectors with dense, different entries.
std::vector<at::Tensor> vectors(const HessianOperator& hessian, std::int64_t k) {
  const Shard& shard = hessian.shard();
  std::vector<at::Tensor> x;
  for (std::int64_t i = 0; i < k; ++i) {
    x.push_back(at::zeros({shard.chunk}, hessian.options()));
    const at::Tensor index = at::arange(shard.begin(), shard.end(), at::kDouble);
    x.back().narrow(0, 0, shard.size()).copy_(at::sin(index * (0.7 + 0.1 * static_cast<double>(i)) + 0.3));
  }
  return x;
}

std::vector<at::Tensor> one_by_one(HessianOperator& hessian, const std::vector<at::Tensor>& x) {
  std::vector<at::Tensor> y;
  for (const at::Tensor& one : x) {
    y.push_back(at::empty_like(one));
    hessian.apply(one, y.back());
  }
  return y;
}

std::vector<at::Tensor> together(HessianOperator& hessian, const std::vector<at::Tensor>& x) {
  std::vector<at::Tensor> y;
  for (const at::Tensor& one : x) y.push_back(at::full_like(one, 99.0));
  hessian.apply_block(x, y);
  return y;
}

void expect_bitwise(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    EXPECT_TRUE(at::equal(a[i], b[i])) << what << ", vector " << i << " of " << a.size() << ": differ by up to "
                                       << (a[i] - b[i]).abs().max().item<double>();
}

/// Stacked matrix products round differently from single ones.
void expect_near(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    EXPECT_LE((a[i] - b[i]).abs().max().item<double>(), 2e-6 * a[i].abs().max().item<double>() + 1e-12)
        << what << ", vector " << i << " of " << a.size();
}

constexpr std::int64_t kRebuilt = 0, kKept = std::int64_t{1} << 30;

class Blocks : public ::testing::TestWithParam<const char*> {};

TEST_P(Blocks, TheProductsOfEachVectorAlone) {
  const Fixture fixture(GetParam());
  Program program = Program::load(fixture.path(".pt2"), {at::kFloat, at::kCPU});
  auto world = MpiCommunicator::world();
  for (const std::int64_t budget : {kRebuilt, kKept}) {
    HessianOperator hessian(program, fixture.shard(program, world->size(), world->rank()), *world,
                            options_for(fixture, budget));
    // More vectors, then fewer: the room for the most is used by all.
    for (const std::int64_t k : {1, 3, 2}) {
      const std::vector<at::Tensor> x = vectors(hessian, k);
      const std::vector<at::Tensor> alone = one_by_one(hessian, x), block = together(hessian, x);
      for (const at::Tensor& y : alone) EXPECT_EQ(at::isfinite(y).all().item<bool>(), true);
      expect_near(alone, block, budget == 0 ? "rebuilt" : "kept");
      expect_bitwise(together(hessian, x), block, "the same block again");
    }
  }
}

TEST_P(Blocks, BitwiseTheSameFromKeptAndRebuiltGraphs) {
  const Fixture fixture(GetParam());
  Program program = Program::load(fixture.path(".pt2"), {at::kFloat, at::kCPU});
  auto world = MpiCommunicator::world();
  const auto shard = [&] { return fixture.shard(program, world->size(), world->rank()); };
  HessianOperator rebuilt(program, shard(), *world, options_for(fixture, kRebuilt));
  HessianOperator kept(program, shard(), *world, options_for(fixture, kKept));
  EXPECT_EQ(rebuilt.stats().kept_graphs, 0);
  EXPECT_EQ(kept.stats().kept_graphs, kept.stats().micro_batches);
  const std::vector<at::Tensor> x = vectors(rebuilt, 2);
  expect_bitwise(together(rebuilt, x), together(kept, x), "first use");
  expect_bitwise(together(rebuilt, x), together(kept, x), "second use");
}

INSTANTIATE_TEST_SUITE_P(Models, Blocks, ::testing::Values("cnn_bn", "gpt2", "widedeep", "mlp_mse"),
                         [](const auto& test) { return std::string(test.param); });

// One row on several ranks: all but the first hold none, and still take part.
TEST(EmptyShards, TakePartInBlocks) {
  const Fixture fixture("mlp_ce");
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  auto world = MpiCommunicator::world();
  const auto data = ArrayFile::open(fixture.path(".data.h5"));
  const DatasetSpec spec{fixture.path(".data.h5"), {program.inputs()[0].name}, "target", 1};
  HessianOperator hessian(program, load_shard(*data, spec, world->size(), world->rank()), *world,
                          options_for(fixture, kRebuilt));
  const std::vector<at::Tensor> x = vectors(hessian, 3);
  const std::vector<at::Tensor> block = together(hessian, x);
  expect_near(one_by_one(hessian, x), block, "one row");
  double size = block[0].abs().sum().item<double>();
  world->all_reduce_sum(std::span<double>(&size, 1));
  EXPECT_GT(size, 0.0);
}

// The last rank had forgotten its room, the others had not: the next call found them at different messages.
TEST(Memory, ABlockThatOneRankHasNoRoomForCanBeTriedAgain) {
  const Fixture fixture("mlp_ce");
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  auto world = MpiCommunicator::world();
  HessianOperator hessian(program, fixture.shard(program, world->size(), world->rank()), *world,
                          options_for(fixture, kRebuilt));
  const std::vector<at::Tensor> x = vectors(hessian, 2);
  std::vector<at::Tensor> y{at::empty_like(x[0]), at::empty_like(x[1])};
  test::FailingAllocator allocator;
  if (world->rank() == world->size() - 1) allocator.fail_after(0);
  EXPECT_THROW(hessian.apply_block(x, y), MemoryError);
  EXPECT_EQ(allocator.has_failed(), world->rank() == world->size() - 1);
  hessian.apply_block(x, y);
  expect_near(one_by_one(hessian, x), y, "tried again");
}

TEST(Stats, CountProductsAndMessages) {
  const Fixture fixture("mlp_ce");
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  auto world = MpiCommunicator::world();
  HessianOperator hessian(program, fixture.shard(program, world->size(), world->rank()), *world,
                          options_for(fixture, kKept));
  EXPECT_EQ(hessian.stats().products, 0);
  const std::vector<at::Tensor> x = vectors(hessian, 2);
  together(hessian, x);
  one_by_one(hessian, {x[0]});
  const HessianStats& stats = hessian.stats();
  EXPECT_EQ(stats.products, 3);
  EXPECT_EQ(stats.collectives, world->size() == 1 ? 0 : 3 + 3);
  // Each vector's own shard goes to every other rank, and its parts of the others' shards come from this one.
  const std::int64_t peers = world->size() - 1;
  EXPECT_EQ(stats.message_bytes, 3 * 2 * peers * hessian.shard().chunk * 8);
}

}  // namespace
}  // namespace hesspect::hessian_block_test
