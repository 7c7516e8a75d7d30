// Products over the rows in use alone against those over all parameters, and random vectors likewise.
#include <gtest/gtest.h>

#include <set>

#include "core/input_error.h"
#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/curvature/hessian.h"
#include "hesspect/spectrum/probe.h"
#include "support/fixture.h"

namespace hesspect::rows_in_use_test {
namespace {

using test::Fixture;
using test::relative_error;

RowsInUse rows_in_use(const Program& program, const DataShard& data) {
  RowMarks marks(program);
  marks.mark(data.inputs);
  RowsInUse in_use;
  for (std::size_t t = 0; t < marks.tables().size(); ++t)
    if (const auto rows = marks.rows(t)) in_use.push_back({marks.tables()[t].name, *rows});
  return in_use;
}

/// @param rows  of the data that tell what is in use
Program of_rows_in_use(const Fixture& fixture, const DataShard& rows) {
  Program program = Program::load(fixture.path(".pt2"), {.dtype = at::kDouble, .device = at::kCPU, .lay_out = false});
  EXPECT_TRUE(program.flat_parameters().is_meta());
  program.lay_out(rows_in_use(program, rows));
  return program;
}

/// The entries of a vector over all parameters that are in use.
at::Tensor entries_in_use(const ParameterLayout& layout, const at::Tensor& whole) {
  at::Tensor some = at::empty({layout.size()}, whole.options());
  layout.numbers()->for_each(0, layout.size(), [&](auto position, auto number, auto count) {
    some.narrow(0, position, count).copy_(whole.narrow(0, number, count));
  });
  return some;
}

HessianOptions options_for(const Fixture& fixture, ProductMode product = ProductMode::kAuto) {
  HessianOptions options;
  options.loss = fixture.loss();
  options.output_index = fixture.output_index();
  options.micro_batch = 3;
  options.product = product;
  return options;
}

at::Tensor gathered(const Shard& shard, Communicator& comm, const at::Tensor& local) {
  at::Tensor full = at::empty({shard.padded()}, local.options());
  comm.all_gather(local, full);
  return full.narrow(0, 0, shard.n);
}

at::Tensor product(HessianOperator& hessian, const at::Tensor& v) {
  const Shard& shard = hessian.shard();
  at::Tensor x = at::zeros({shard.chunk}, v.options()), y = at::empty({shard.chunk}, v.options());
  x.narrow(0, 0, shard.size()).copy_(v.narrow(0, shard.begin(), shard.size()));
  hessian.apply(x, y);
  return gathered(shard, hessian.comm(), y);
}

class RowsInUseOf : public ::testing::TestWithParam<const char*> {};

TEST_P(RowsInUseOf, ProductsAndRandomVectorsAreThoseOfAllParameters) {
  const Fixture fixture(GetParam());
  Program whole = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  Program some = of_rows_in_use(fixture, fixture.shard(whole));
  const ParameterLayout& layout = some.layout();
  ASSERT_EQ(layout.model_size(), whole.layout().size());
  ASSERT_LT(layout.size(), layout.model_size());
  EXPECT_TRUE(entries_in_use(layout, whole.flat_parameters()).equal(some.flat_parameters()));
  auto world = MpiCommunicator::world();
  const auto data = [&] { return fixture.shard(whole, world->size(), world->rank()); };
  const at::Tensor v = fixture.flat(whole, at::kDouble, "v");
  for (const ProductMode mode :
       {ProductMode::kKept, ProductMode::kRebuilt, ProductMode::kSegments, ProductMode::kAutograd}) {
    HessianOperator all(whole, data(), *world, options_for(fixture, mode));
    HessianOperator in_use(some, data(), *world, options_for(fixture, mode));
    const at::Tensor expected = product(all, v), found = product(in_use, entries_in_use(layout, v));
    EXPECT_LE(relative_error(found, entries_in_use(layout, expected)), 1e-12);
    // All of the product lies in the rows in use, so that the others have no curvature.
    EXPECT_NEAR(found.norm().item<double>(), expected.norm().item<double>(), 1e-12 * expected.norm().item<double>());
    EXPECT_NEAR(in_use.loss(), all.loss(), 1e-13 * std::abs(all.loss()));
    for (const auto distribution : {ProbeDistribution::kRademacher, ProbeDistribution::kGaussian}) {
      const at::Tensor z = gathered(all.shard(), *world, probe_vector(all, distribution, 11, 5));
      const at::Tensor z_in_use = gathered(in_use.shard(), *world, probe_vector(in_use, distribution, 11, 5));
      EXPECT_TRUE(entries_in_use(layout, z).equal(z_in_use));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, RowsInUseOf, ::testing::Values("widedeep", "bert", "llama"),
                         [](const auto& test) { return std::string(test.param); });

// A row that the pass over the data did not find is told, never read as another.
TEST(RowsInUse, AnotherRowIsRefused) {
  const Fixture fixture("widedeep");
  Program whole = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  const DataShard data = fixture.shard(whole);
  DataShard one = data;
  for (at::Tensor& input : one.inputs) input = input.narrow(0, 0, 1);
  Program some = of_rows_in_use(fixture, one);
  const std::string line = test::input_error([&] { some.run(some.prepare_inputs(data.inputs)); });
  EXPECT_CONTAINS(line, "which no row of the run's data was found to use");
  EXPECT_CONTAINS(line, "--rows-in-use off");
  EXPECT_NO_THROW(some.run(some.prepare_inputs(one.inputs)));
}

// A tied output head reads all rows.
TEST(RowsInUse, TiedTablesStayWhole) {
  const Fixture fixture("gpt2");
  const Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  const RowMarks marks(program);
  for (const RowTable& table : marks.tables()) EXPECT_EQ(table.name.find("wte"), std::string::npos) << table.name;
}

}  // namespace
}  // namespace hesspect::rows_in_use_test
