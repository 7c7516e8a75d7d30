// One operator, however many ranks hold its data: products, loss and errors agree at every rank count.
#include <gtest/gtest.h>

#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/core/errors.h"
#include "hesspect/curvature/hessian.h"
#include "support/fixture.h"

namespace hesspect::hessian_ranks_test {
namespace {

using test::Fixture;
using test::relative_error;

HessianOptions options_for(const Fixture& fixture) {
  HessianOptions options;
  options.loss = fixture.loss();
  options.output_index = fixture.output_index();
  options.micro_batch = 3;
  options.check_double_backward = false;
  return options;
}

/// H v, whole, on every rank.
at::Tensor gathered_product(HessianOperator& hessian, const at::Tensor& v) {
  const Shard& shard = hessian.shard();
  at::Tensor x = at::zeros({shard.chunk}, v.options()), y = at::empty({shard.chunk}, v.options());
  x.narrow(0, 0, shard.size()).copy_(v.narrow(0, shard.begin(), shard.size()));
  hessian.apply(x, y);
  at::Tensor full = at::empty({shard.padded()}, v.options());
  hessian.comm().all_gather(y, full);
  EXPECT_EQ(full.narrow(0, shard.n, shard.padded() - shard.n).abs().sum().item<double>(), 0.0) << "padding is not zero";
  return full.narrow(0, 0, shard.n);
}

class Ranks : public ::testing::TestWithParam<const char*> {};

TEST_P(Ranks, SameOperatorAsOneRank) {
  const Fixture fixture(GetParam());
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  const at::Tensor v = fixture.flat(program, at::kDouble, "v");
  auto world = MpiCommunicator::world();
  HessianOperator sharded(program, fixture.shard(program, world->size(), world->rank()), *world, options_for(fixture));
  LocalCommunicator local;
  HessianOperator alone(program, fixture.shard(program), local, options_for(fixture));
  const at::Tensor together = gathered_product(sharded, v), expected = gathered_product(alone, v);
  EXPECT_LE(relative_error(together, expected), 1e-12);
  EXPECT_NEAR(sharded.loss(), alone.loss(), 1e-12 * std::abs(alone.loss()) + 1e-300);
  EXPECT_NEAR(sharded.count(), alone.count(), 1e-14 * alone.count());  // equal, where it is a number of terms
}

TEST_P(Ranks, Symmetric) {
  const Fixture fixture(GetParam());
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  auto world = MpiCommunicator::world();
  HessianOperator hessian(program, fixture.shard(program, world->size(), world->rank()), *world, options_for(fixture));
  const at::Tensor v = fixture.flat(program, at::kDouble, "v");
  const at::Tensor u = at::sin(at::arange(v.numel(), at::kDouble));
  const at::Tensor hu = gathered_product(hessian, u), hv = gathered_product(hessian, v);
  const double difference = (at::dot(u, hv) - at::dot(v, hu)).item<double>();
  EXPECT_LE(std::abs(difference), 1e-12 * u.norm().item<double>() * hv.norm().item<double>());
}

INSTANTIATE_TEST_SUITE_P(Models, Ranks,
                         ::testing::Values("cnn_bn", "ce_ignore", "gpt2", "widedeep", "mlp_mse", "own_loss"),
                         [](const auto& test) { return std::string(test.param); });

// Shards of unequal size, and of unequal weight: sorted classes, ignored targets, rows without weight.
INSTANTIATE_TEST_SUITE_P(Losses, Ranks, ::testing::ValuesIn(test::kLossCases),
                         [](const auto& test) { return std::string(test.param); });

// More ranks than rows: the last ones hold nothing, and the operator is the same.
TEST(EmptyShards, AreAllowed) {
  const Fixture fixture("mlp_ce");
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  auto world = MpiCommunicator::world();
  const auto data = ArrayFile::open(fixture.path(".data.h5"));
  DatasetSpec spec{fixture.path(".data.h5"), {program.inputs()[0].name}, "target", 1};
  LocalCommunicator local;
  HessianOperator sharded(program, load_shard(*data, spec, world->size(), world->rank()), *world, options_for(fixture));
  HessianOperator alone(program, load_shard(*data, spec, 1, 0), local, options_for(fixture));
  const at::Tensor v = fixture.flat(program, at::kDouble, "v");
  EXPECT_LE(relative_error(gathered_product(sharded, v), gathered_product(alone, v)), 1e-12);
}

// A class out of range in the last rank's rows alone: every rank ends with the same line.
TEST(BadRows, EveryRankThrowsTheSame) {
  const Fixture fixture("mlp_ce");
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  auto world = MpiCommunicator::world();
  DataShard shard = fixture.shard(program, world->size(), world->rank());
  if (world->rank() == world->size() - 1) shard.target[-1] = 12345;
  std::string line;
  try {
    HessianOperator hessian(program, std::move(shard), *world, options_for(fixture));
  } catch (const InputError& e) {
    line = e.what();
  }
  EXPECT_NE(line.find("12345"), std::string::npos) << line;
  EXPECT_NE(line.find("row " + std::to_string(fixture.rows() - 1)), std::string::npos) << line;
}

}  // namespace
}  // namespace hesspect::hessian_ranks_test
