// Parameters in shards: products and gradients are those of a model that every rank holds whole, and PyTorch's.
#include <gtest/gtest.h>

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string_view>

#include "hesspect/comm/make_communicator.h"
#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/core/errors.h"
#include "hesspect/curvature/hessian.h"
#include "hesspect/curvature/part_operator.h"
#include "hesspect/curvature/parts.h"
#include "hesspect/model/rows_in_use.h"
#include "hesspect/tangent/tangent_program.h"
#include "support/fixture.h"

namespace hesspect::sharded_products_test {
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

Program left_in_file(const Fixture& fixture, at::ScalarType dtype = at::kDouble) {
  Program program = Program::load(fixture.path(".pt2"), {.dtype = dtype, .device = at::kCPU, .lay_out = false});
  program.leave_in_file();
  return program;
}

/// Cuts wherever the list of nodes may be cut, or at every so many of these places.
std::vector<std::size_t> all_cuts(const Program& program, const Fixture& fixture, std::size_t every = 1) {
  const TangentProgram tangent(program, {static_cast<std::size_t>(fixture.output_index())});
  std::vector<std::size_t> cuts;
  for (std::size_t p = 1, places = 0; p < tangent.nodes(); ++p)
    if (tangent.may_cut(p) && ++places % every == 0) cuts.push_back(p);
  return cuts;
}

at::Tensor local_of(const Shard& shard, const at::Tensor& whole) {
  at::Tensor local = at::zeros({shard.chunk}, whole.options());
  shard.for_each_piece([&](std::int64_t position, std::int64_t begin, std::int64_t size) {
    local.narrow(0, position, size).copy_(whole.narrow(0, begin, size));
  });
  return local;
}

/// Whole, in the layout's order; checks that padding is zero and that every entry is some rank's.
at::Tensor whole_of(LinearOperator& op, const at::Tensor& local) {
  const Shard& shard = op.shard();
  at::Tensor gathered = at::empty({shard.padded()}, local.options());
  op.comm().all_gather(local, gathered);
  at::Tensor whole = at::full({shard.n}, NAN, local.options());
  for (int rank = 0; rank < shard.ranks; ++rank)
    shard.for_each_piece_of(rank, [&](std::int64_t position, std::int64_t begin, std::int64_t size) {
      at::Tensor from = gathered.narrow(0, rank * shard.chunk + position, size);
      whole.narrow(0, begin, size).copy_(from);
      from.zero_();
    });
  EXPECT_EQ(gathered.abs().sum().item<double>(), 0.0) << "padding is not zero";
  EXPECT_FALSE(whole.isnan().any().item<bool>()) << "an entry is no rank's";
  return whole;
}

std::vector<at::Tensor> products(HessianOperator& op, const std::vector<at::Tensor>& vectors) {
  std::vector<at::Tensor> x, y, whole;
  for (const at::Tensor& v : vectors) {
    x.push_back(local_of(op.shard(), v).to(op.options().device()));
    y.push_back(at::empty_like(x.back()));
  }
  op.apply_block(x, y);
  for (const at::Tensor& one : y) whole.push_back(whole_of(op, one).cpu());
  return whole;
}

/// Models that are cut as others are. That their nodes may be cut, and where, is seen on one rank; HESSPECT_LONG=1
/// takes them on several too.
bool takes_long_on_ranks(std::string_view model, const Communicator& world) {
  constexpr std::array<std::string_view, 6> kAlike{"mlp_mse", "mlp_bce", "resnet18", "vit", "bert", "llama"};
  const char* value = std::getenv("HESSPECT_LONG");
  const bool long_run = value != nullptr && std::string_view(value) == "1";
  return world.size() > 1 && !long_run && std::ranges::find(kAlike, model) != kAlike.end();
}

class Sharded : public ::testing::TestWithParam<const char*> {
 protected:
  Sharded() : fixture(GetParam()), world(MpiCommunicator::world()) {}

  void expect_same(const HessianOptions& options, const std::string& how) {
    Program whole = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU}), program = left_in_file(fixture);
    LocalCommunicator local;
    HessianOptions replicated = options;
    replicated.cuts.reset();
    HessianOperator expected(whole, fixture.shard(whole), local, replicated);
    HessianOperator op(program, fixture.shard(program, world->size(), world->rank()), *world, options);
    EXPECT_NEAR(op.loss(), expected.loss(), 1e-12 * std::abs(expected.loss())) << how;
    EXPECT_NEAR(op.count(), expected.count(), 1e-14 * expected.count()) << how;
    EXPECT_LE(relative_error(whole_of(op, op.gradient()), expected.gradient()), 1e-12) << how;
    const at::Tensor v = fixture.flat(whole, at::kDouble, "v"), u = at::sin(at::arange(v.numel(), at::kDouble));
    const std::vector<at::Tensor> vectors{v, u, v - 2 * u};
    const std::vector<at::Tensor> together = products(op, vectors), reference = products(expected, vectors);
    for (std::size_t k = 0; k < vectors.size(); ++k)
      EXPECT_LE(relative_error(together[k], reference[k]), 1e-12) << how << ", vector " << k;
    EXPECT_LE(relative_error(products(op, {v})[0], reference[0]), 1e-12) << how << ", alone";
    if (options.curvature == Curvature::kHessian) {
      const at::Tensor pytorch = fixture.flat(whole, at::kDouble, "hv");
      EXPECT_LE(relative_error(together[0], pytorch), 1e-9) << how << ", against PyTorch";
    }
  }

  /// Of two ways to run with the same cuts.
  void expect_same_bits(const HessianOptions& one, const HessianOptions& other) {
    Program program = left_in_file(fixture), again = left_in_file(fixture);
    HessianOperator a(program, fixture.shard(program, world->size(), world->rank()), *world, one);
    HessianOperator b(again, fixture.shard(again, world->size(), world->rank()), *world, other);
    const at::Tensor v = fixture.flat(program, at::kDouble, "v"), u = at::sin(at::arange(v.numel(), at::kDouble));
    // A copy may lie in memory otherwise than the view that it is of, and kernels round differently by that.
    const double tolerance = other.crossing_on_host ? 1e-14 : 0;
    EXPECT_LE(relative_error(b.gradient(), a.gradient()), tolerance) << "span " << other.span;
    const std::vector<at::Tensor> expected = products(a, {v, u}), found = products(b, {v, u});
    for (std::size_t k = 0; k < found.size(); ++k)
      EXPECT_LE(relative_error(found[k], expected[k]), tolerance) << "span " << other.span << ", vector " << k;
  }

  Fixture fixture;
  std::unique_ptr<MpiCommunicator> world;
};

TEST_P(Sharded, ProductsAreThoseOfWholeParameters) {
  if (takes_long_on_ranks(GetParam(), *world)) GTEST_SKIP() << "with HESSPECT_LONG=1";
  HessianOptions options = options_for(fixture);
  expect_same(options, "cuts as chosen");
  // A message takes long where ranks share a core: alone at every place, else at some.
  options.cuts = all_cuts(left_in_file(fixture), fixture, world->size() == 1 ? 1 : 7);
  expect_same(options, std::to_string(options.cuts->size()) + " cuts");
}

INSTANTIATE_TEST_SUITE_P(Models, Sharded,
                         ::testing::Values("mlp_mse", "mlp_ce", "mlp_bce", "cnn_bn", "resnet18", "vit", "bert", "gpt2",
                                           "llama", "widedeep", "complex_parameters", "mixture"),
                         [](const auto& test) { return std::string(test.param); });
INSTANTIATE_TEST_SUITE_P(Losses, Sharded,
                         ::testing::Values("ce_weights", "ce_spatial_weights", "masked_lm_weights", "causal_lm_weights",
                                           "nll", "mse_weights", "bce", "bce_pos_weight_spatial"),
                         [](const auto& test) { return std::string(test.param); });

class SomeSharded : public Sharded {};

// What crosses cuts inside a span is made again; messages go on while a segment is worked on. Spans that divide the
// segments and that don't, one of all of them, and all this together.
TEST_P(SomeSharded, SpansAndFetchingAheadChangeNoProduct) {
  HessianOptions options = options_for(fixture);
  options.cuts = all_cuts(left_in_file(fixture), fixture, 5);
  const auto segments = static_cast<std::int64_t>(options.cuts->size()) + 1;
  const HessianOptions plain = options;
  for (const auto& [ahead, span, on_host] :
       {std::tuple(true, std::int64_t{1}, false), {false, 3, false}, {true, 2, true}, {true, segments, false}}) {
    options.fetch_ahead = ahead;
    options.span = span;
    options.on_host = options.crossing_on_host = on_host;
    expect_same_bits(plain, options);
  }
  options.micro_batch = 1;
  options.passes = 3;  // sums over rows are added up in another order
  expect_same(options, "in passes");
}

// Each module's block, and one of entries of two tensors neither of which it has whole: its vectors stay where the
// whole's are, nothing is gone back through that leads to none of its parameters, and products are those of the block
// of a model that is held whole.
TEST_P(SomeSharded, ProductsOfABlockAreThoseOfWholeParameters) {
  Program whole = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU}), program = left_in_file(fixture);
  LocalCommunicator local;
  HessianOptions options = options_for(fixture);
  HessianOperator expected(whole, fixture.shard(whole), local, options);
  options.cuts = all_cuts(program, fixture, 5);
  options.span = 2;
  options.fetch_ahead = true;
  HessianOperator op(program, fixture.shard(program, world->size(), world->rank()), *world, options);
  std::vector<Part> parts = grouped_parts(program.layout(), ParameterGrouping::kModule);
  const ParameterEntry &first = program.layout().entries().front(), &last = program.layout().entries().back();
  parts.push_back(
      {"pieces", {{first.offset + 1, first.offset + 2}, {last.offset, last.offset + (last.numel + 1) / 2}}, {}});
  for (const Part& part : parts) {
    PartOperator block(op, part), reference(expected, part);
    ASSERT_EQ(block.shard().n, part.size());
    std::vector<at::Tensor> vectors, found, x, y;
    for (int k = 1; k <= 2; ++k) {
      vectors.push_back(at::cos(at::arange(part.size(), at::kDouble) * (0.7 * k)));
      x.push_back(local_of(block.shard(), vectors.back()));
      y.push_back(at::full({block.shard().chunk}, 99.0, at::kDouble));
    }
    block.apply_block(x, y);
    for (int k = 0; k < 2; ++k) {
      at::Tensor product = at::empty({part.size()}, at::kDouble);
      reference.apply(vectors[static_cast<std::size_t>(k)], product);
      // A block whose matrix is zero has a product of zeros, or of rounding.
      const at::Tensor here = whole_of(block, y[static_cast<std::size_t>(k)]);
      const double scale = std::max(product.norm().item<double>(), 1e-6);
      EXPECT_LE((here - product).norm().item<double>(), 1e-11 * scale) << part.name << ", vector " << k;
    }
  }
}

// Every third tensor is held fixed: it is gathered with its segments, and no vector has it; and where the first ones
// all are, no segment of theirs is gone back through.
TEST_P(SomeSharded, ChosenParametersAreThoseOfWholeParameters) {
  for (const bool late : {false, true}) {
    Program whole = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU}), program = left_in_file(fixture);
    std::vector<bool> chosen;
    const std::size_t count = whole.layout().entries().size();
    for (std::size_t p = 0; p < count; ++p) chosen.push_back(late ? 3 * p >= 2 * count : p % 3 != 1);
    whole.select_parameters(chosen);
    program.select_parameters(chosen);
    ASSERT_EQ(program.layout().size(), whole.layout().size());
    ASSERT_EQ(program.brought_count(), count);
    HessianOptions options = options_for(fixture);
    LocalCommunicator local;
    HessianOperator expected(whole, fixture.shard(whole), local, options);
    options.cuts = all_cuts(program, fixture, 5);
    options.fetch_ahead = late;
    options.span = late ? 2 : 1;
    HessianOperator op(program, fixture.shard(program, world->size(), world->rank()), *world, options);
    EXPECT_EQ(op.shard().n, whole.layout().size());
    EXPECT_NEAR(op.loss(), expected.loss(), 1e-12 * std::abs(expected.loss()));
    EXPECT_LE(relative_error(whole_of(op, op.gradient()), expected.gradient()), 1e-12) << late;
    const at::Tensor v = at::sin(at::arange(op.shard().n, at::kDouble) * 0.3);
    const std::vector<at::Tensor> vectors{v, at::cos(2 * v)};
    const std::vector<at::Tensor> found = products(op, vectors), reference = products(expected, vectors);
    for (std::size_t k = 0; k < vectors.size(); ++k) {
      const double scale = std::max(reference[k].norm().item<double>(), 1e-6);
      EXPECT_LE((found[k] - reference[k]).norm().item<double>(), 1e-12 * scale) << late << ", vector " << k;
    }
  }
}

// What groups of rows have of two products and of another vector, layer by layer, however micro-batches and passes lie.
TEST_P(SomeSharded, GroupsOfRowsAreThoseOfWholeParameters) {
  Program whole = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU}), program = left_in_file(fixture);
  HessianOptions options = options_for(fixture);
  options.micro_batch = 2;
  options.row_groups = 2;
  // On as many ranks: a rank's rows of a group that are too few for a micro-batch go with another group.
  HessianOperator expected(whole, fixture.shard(whole, world->size(), world->rank()), *world, options);
  options.cuts = all_cuts(program, fixture, 5);
  options.passes = 2;
  options.fetch_ahead = true;
  HessianOperator op(program, fixture.shard(program, world->size(), world->rank()), *world, options);
  const RowGroups &mine = op.row_groups(), &theirs = expected.row_groups();
  ASSERT_EQ(mine.count(), 2);
  EXPECT_EQ(mine.rows, theirs.rows);
  for (std::size_t g = 0; g < 2; ++g) {
    EXPECT_NEAR(mine.loss[g], theirs.loss[g], 1e-12 * std::abs(theirs.loss[g]));
    EXPECT_NEAR(mine.share[g], theirs.share[g], 1e-12);
  }
  std::vector<std::int64_t> layers;
  for (const ParameterEntry& entry : program.layout().entries()) layers.push_back(entry.offset);
  layers.push_back(program.layout().size());
  const at::Tensor v = at::sin(at::arange(op.shard().n, at::kDouble) * 0.3), u = at::cos(3 * v), o = at::cos(5 * v);
  for (const std::vector<std::int64_t>& segments : {layers, {0, layers.back()}}) {
    const auto sums = [&](HessianOperator& of, std::vector<at::Tensor>& y) {
      const std::vector<at::Tensor> x{local_of(of.shard(), v), local_of(of.shard(), u)},
          others{local_of(of.shard(), o)};
      for (const at::Tensor& one : x) y.push_back(at::empty_like(one));
      return of.apply_in_groups(x, y, others, segments);
    };
    std::vector<at::Tensor> y, whole_y;
    const std::vector<double> found = sums(op, y), reference = sums(expected, whole_y);
    ASSERT_EQ(found.size(), 2 * 2 * 2 * (segments.size() - 1));
    ASSERT_EQ(found.size(), reference.size());
    double largest = 0;
    for (const double one : reference) largest = std::max(largest, std::abs(one));
    for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], reference[i], 1e-12 * largest) << i;
    EXPECT_LE(relative_error(whole_of(op, y[1]), whole_of(expected, whole_y[1])), 1e-12);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, SomeSharded,
                         ::testing::Values("mlp_ce", "gpt2", "cnn_bn", "widedeep", "complex_parameters", "mixture"),
                         [](const auto& test) { return std::string(test.param); });

// Of a table the ranks share only the rows that the data use.
TEST(RowsInUse, AreShared) {
  const Fixture fixture("widedeep");
  auto world = MpiCommunicator::world();
  const auto unread = [&] {
    return Program::load(fixture.path(".pt2"), {.dtype = at::kDouble, .device = at::kCPU, .lay_out = false});
  };
  Program whole = unread(), program = unread();
  RowMarks marks(whole);
  marks.mark(fixture.shard(whole).inputs);
  RowsInUse in_use;
  for (std::size_t t = 0; t < marks.tables().size(); ++t)
    if (const auto rows = marks.rows(t)) in_use.push_back({marks.tables()[t].name, *rows});
  ASSERT_FALSE(in_use.empty());
  whole.lay_out(in_use);
  program.leave_in_file(in_use);
  ASSERT_LT(program.layout().size(), program.layout().model_size());
  LocalCommunicator local;
  HessianOperator expected(whole, fixture.shard(whole), local, options_for(fixture));
  HessianOperator op(program, fixture.shard(program, world->size(), world->rank()), *world, options_for(fixture));
  EXPECT_EQ(op.shard().n, expected.shard().n);
  EXPECT_LE(relative_error(whole_of(op, op.gradient()), expected.gradient()), 1e-12);
  const at::Tensor v = at::sin(at::arange(op.shard().n, at::kDouble));
  EXPECT_LE(relative_error(products(op, {v})[0], products(expected, {v})[0]), 1e-12);
}

class ShardedGaussNewton : public Sharded {};

TEST_P(ShardedGaussNewton, ProductsAreThoseOfWholeParameters) {
  HessianOptions options = options_for(fixture);
  options.curvature = Curvature::kGgn;
  options.cuts = all_cuts(left_in_file(fixture), fixture, 7);
  expect_same(options, "GGN");
}

INSTANTIATE_TEST_SUITE_P(Models, ShardedGaussNewton, ::testing::Values("mlp_ce", "gpt2", "cnn_bn"),
                         [](const auto& test) { return std::string(test.param); });

// However many micro-batches there are, messages are the same; each set of parameters is gathered twice a product, but
// the last segment's once, and so are vectors.
TEST(Messages, DoNotGrowWithMicroBatches) {
  const Fixture fixture("gpt2");
  auto world = MpiCommunicator::world();
  std::vector<std::int64_t> collectives, bytes;
  for (const std::int64_t rows : {1, 4}) {
    Program program = left_in_file(fixture);
    HessianOptions options = options_for(fixture);
    options.micro_batch = rows;
    options.cuts = all_cuts(program, fixture, 10);
    HessianOperator op(program, fixture.shard(program, world->size(), world->rank()), *world, options);
    at::Tensor x = at::ones({op.shard().chunk}, at::kDouble), y = at::empty_like(x);
    const HessianStats before = op.stats();
    op.apply(x, y);
    collectives.push_back(op.stats().collectives - before.collectives);
    bytes.push_back(op.stats().message_bytes - before.message_bytes);
  }
  EXPECT_EQ(collectives[0], collectives[1]);
  EXPECT_EQ(bytes[0], bytes[1]);
}

/// The program's own weights in another type, as a checkpoint has them.
StateDict weights_as(const Program& whole, at::ScalarType type) {
  StateDict dict;
  dict.format = "safetensors";
  dict.files = {"weights.safetensors"};
  for (std::size_t i = 0; i < whole.parameters().size(); ++i) {
    const ParameterEntry& entry = whole.layout().entries()[i];
    dict.tensors.push_back({entry.name, type, entry.shape, whole.parameters()[i].detach().to(type)});
  }
  return dict;
}

// bfloat16 weights are held and sent in two bytes, and widened exactly: the model is the one that is read whole.
TEST(StoredTypes, AreWidenedExactly) {
  const Fixture fixture("widedeep");
  auto world = MpiCommunicator::world();
  Program whole = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  StateDict weights = weights_as(whole, at::kBFloat16);
  weights.tensors.front().tensor = weights.tensors.front().tensor.to(weights.tensors.front().dtype = at::kFloat);
  Program program = Program::load(fixture.path(".pt2"), {.dtype = at::kDouble, .device = at::kCPU, .lay_out = false});
  whole.overlay(std::span(&weights, 1), /*partial=*/true);
  program.overlay(std::span(&weights, 1), /*partial=*/true);
  program.leave_in_file();
  EXPECT_EQ(program.stored_type(0), at::kFloat);
  EXPECT_EQ(program.stored_type(1), at::kBFloat16);
  LocalCommunicator local;
  HessianOperator expected(whole, fixture.shard(whole), local, options_for(fixture));
  HessianOperator op(program, fixture.shard(program, world->size(), world->rank()), *world, options_for(fixture));
  const at::Tensor v = at::sin(at::arange(op.shard().n, at::kDouble));
  EXPECT_LE(relative_error(products(op, {v})[0], products(expected, {v})[0]), 1e-12);
}

TEST(NonFiniteParameters, AreNamedOnEveryRank) {
  const Fixture fixture("mlp_ce");
  auto world = MpiCommunicator::world();
  const Program whole = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  StateDict weights = weights_as(whole, at::kDouble);
  weights.tensors.back().tensor.view({-1})[-1] = NAN;
  Program program = Program::load(fixture.path(".pt2"), {.dtype = at::kDouble, .device = at::kCPU, .lay_out = false});
  program.overlay(std::span(&weights, 1), /*partial=*/true, /*look_at_values=*/false);
  program.leave_in_file();
  std::string line;
  try {
    HessianOperator op(program, fixture.shard(program, world->size(), world->rank()), *world, options_for(fixture));
  } catch (const InputError& error) {
    line = error.what();
  }
  EXPECT_NE(line.find("'" + weights.tensors.back().name + "'"), std::string::npos) << line;
  EXPECT_NE(line.find("non-finite"), std::string::npos) << line;
}

// One rank on a GPU: shares on the device, and in host memory, from which segments stream.
TEST(OnAGpu, SharesAreOnTheDeviceOrInHostMemory) {
  auto world = MpiCommunicator::world();
  if (world->size() > 1 || cuda_device_count() == 0) GTEST_SKIP() << "not one rank with a GPU";
  const at::Device device = choose_device("cuda", *world);
  for (const char* model : {"gpt2", "cnn_bn", "complex_parameters"}) {
    const Fixture fixture(model);
    Program whole = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
    LocalCommunicator local;
    HessianOptions options = options_for(fixture);
    HessianOperator expected(whole, fixture.shard(whole), local, options);
    const at::Tensor v = fixture.flat(whole, at::kDouble, "v"), u = at::sin(at::arange(v.numel(), at::kDouble));
    const std::vector<at::Tensor> reference = products(expected, {v, u});
    options.cuts = all_cuts(left_in_file(fixture), fixture, 5);
    for (const auto& [on_host, ahead] : {std::pair(false, false), {true, false}, {true, true}}) {
      options.on_host = options.crossing_on_host = on_host;
      options.fetch_ahead = ahead;
      Program program = Program::load(fixture.path(".pt2"), {.dtype = at::kDouble, .device = device, .lay_out = false});
      program.leave_in_file();
      HessianOperator op(program, fixture.shard(program), local, options);
      EXPECT_EQ(op.options().device().is_cpu(), on_host);
      const std::vector<at::Tensor> found = products(op, {v, u});
      for (std::size_t k = 0; k < found.size(); ++k)
        EXPECT_LE(relative_error(found[k], reference[k]), 1e-11) << model << (on_host ? ", in host memory" : "");
    }
  }
}

// More ranks than rows: those without rows have no shapes to cut by, and take part in all messages.
TEST(RanksWithoutRows, TakePart) {
  const Fixture fixture("mlp_ce");
  auto world = MpiCommunicator::world();
  Program whole = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU}), program = left_in_file(fixture);
  const auto data = ArrayFile::open(fixture.path(".data.h5"));
  const DatasetSpec spec{fixture.path(".data.h5"), {program.inputs()[0].name}, "target", 2};
  LocalCommunicator local;
  HessianOperator expected(whole, load_shard(*data, spec, 1, 0), local, options_for(fixture));
  HessianOperator op(program, load_shard(*data, spec, world->size(), world->rank()), *world, options_for(fixture));
  const at::Tensor v = fixture.flat(whole, at::kDouble, "v");
  EXPECT_LE(relative_error(products(op, {v})[0], products(expected, {v})[0]), 1e-12);
}

}  // namespace
}  // namespace hesspect::sharded_products_test
