// Products with a diagonal block are the block of the whole matrix's products, which other tests compare with
// PyTorch's: however products are taken, of one vector and of several, at any number of ranks.
#include <gtest/gtest.h>

#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/core/errors.h"
#include "hesspect/curvature/part_operator.h"
#include "hesspect/tangent/tangent_program.h"
#include "support/fixture.h"

namespace hesspect::parts_test {
namespace {

using test::Fixture;

HessianOptions options_for(const Fixture& fixture, ProductMode mode, std::int64_t budget) {
  HessianOptions options;
  options.loss = fixture.loss();
  options.output_index = fixture.output_index();
  options.micro_batch = 3;
  options.product = mode;
  options.graph_budget_bytes = budget;
  options.check_double_backward = false;
  return options;
}

/// Entry i of vector k.
at::Tensor entries(std::int64_t begin, std::int64_t end, std::int64_t k) {
  return at::sin(at::arange(begin, end, at::kDouble) * (0.7 + 0.1 * static_cast<double>(k)) + 0.3);
}

std::vector<at::Tensor> shards(const LinearOperator& op, std::int64_t count) {
  std::vector<at::Tensor> x;
  for (std::int64_t k = 0; k < count; ++k) {
    x.push_back(at::zeros({op.shard().chunk}, op.options()));
    x.back().narrow(0, 0, op.shard().size()).copy_(entries(op.shard().begin(), op.shard().end(), k));
  }
  return x;
}

at::Tensor gathered(LinearOperator& op, const at::Tensor& local) {
  at::Tensor full = at::zeros({op.shard().padded()}, op.options());
  op.comm().all_gather(local, full);
  return full.narrow(0, 0, op.shard().n);
}

/// H_pp x by a product of the whole matrix.
at::Tensor expected(HessianOperator& whole, const Part& part, std::int64_t k) {
  at::Tensor v = at::zeros({whole.shard().padded()}, whole.options());
  const at::Tensor x = entries(0, part.size(), k);
  std::int64_t at = 0;
  for (const IndexRange& range : part.ranges) {
    v.narrow(0, range.begin, range.size()).copy_(x.narrow(0, at, range.size()));
    at += range.size();
  }
  const at::Tensor local = v.narrow(0, whole.shard().chunk * whole.comm().rank(), whole.shard().chunk).clone();
  at::Tensor product = at::zeros_like(local);
  whole.apply(local, product);
  const at::Tensor full = gathered(whole, product);
  std::vector<at::Tensor> pieces;
  for (const IndexRange& range : part.ranges) pieces.push_back(full.narrow(0, range.begin, range.size()));
  return at::cat(pieces);
}

void expect_block(HessianOperator& whole, const Part& part, const std::string& what) {
  PartOperator block(whole, part);
  for (const std::int64_t count : {1, 3}) {
    const std::vector<at::Tensor> x = shards(block, count);
    std::vector<at::Tensor> y;
    for (const at::Tensor& one : x) y.push_back(at::full_like(one, 99.0));
    block.apply_block(x, y);
    for (std::int64_t k = 0; k < count; ++k) {
      const at::Tensor& local = y[static_cast<std::size_t>(k)];
      EXPECT_EQ(
          local.narrow(0, block.shard().size(), block.shard().chunk - block.shard().size()).abs().sum().item<double>(),
          0)
          << what << ": padding";
      const at::Tensor product = gathered(block, local), reference = expected(whole, part, k);
      const double scale = std::max(reference.abs().max().item<double>(), 1e-3);
      EXPECT_LE((product - reference).abs().max().item<double>(), 1e-12 * scale)
          << what << ", block " << part.name << ", vector " << k << " of " << count;
    }
  }
}

class Products : public ::testing::TestWithParam<const char*> {};

TEST_P(Products, OfABlockAreThoseOfTheWhole) {
  const Fixture fixture(GetParam());
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  auto world = MpiCommunicator::world();
  std::vector<Part> parts = grouped_parts(program.layout(), ParameterGrouping::kModule);
  // Entries of two tensors, neither of them whole.
  const ParameterEntry &first = program.layout().entries().front(), &last = program.layout().entries().back();
  if (first.numel > 2 && last.offset > first.numel)
    parts.push_back(
        {"pieces", {{first.offset + 1, first.offset + 2}, {last.offset, last.offset + (last.numel + 1) / 2}}, {}});
  constexpr std::int64_t kNothing = 0, kAll = std::int64_t{1} << 30;
  for (const auto& [mode, budget, name] : {std::tuple(ProductMode::kKept, kAll, "kept"),
                                           {ProductMode::kRebuilt, kNothing, "rebuilt"},
                                           {ProductMode::kSegments, kNothing, "segments"},
                                           {ProductMode::kAutograd, kAll, "autograd, kept"},
                                           {ProductMode::kAutograd, kNothing, "autograd"}}) {
    // What a rank keeps of its rows is no other rank's business: each budget of the two modes is tried on one.
    if (world->size() > 1 && (mode == ProductMode::kRebuilt || (mode == ProductMode::kAutograd && budget == kAll)))
      continue;
    HessianOperator whole(program, fixture.shard(program, world->size(), world->rank()), *world,
                          options_for(fixture, mode, budget));
    for (const Part& part : parts) expect_block(whole, part, std::string(GetParam()) + ", " + name);
  }
}

TEST_P(Products, GaussNewton) {
  const Fixture fixture(GetParam());
  if (fixture.loss().kind == LossKind::kOutput) GTEST_SKIP();
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  auto world = MpiCommunicator::world();
  for (const std::int64_t budget : {std::int64_t{0}, std::int64_t{1} << 30}) {
    HessianOptions options = options_for(fixture, ProductMode::kAuto, budget);
    options.curvature = Curvature::kGgn;
    HessianOperator whole(program, fixture.shard(program, world->size(), world->rank()), *world, options);
    for (const Part& part : grouped_parts(program.layout(), ParameterGrouping::kModule))
      expect_block(whole, part, std::string(GetParam()) + ", Gauss-Newton");
  }
}

// The rest is constant: n is the part's, loss and products are those of the whole.
TEST_P(Products, OfAModelWhoseOtherParametersAreHeldFixed) {
  const Fixture fixture(GetParam());
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  auto world = MpiCommunicator::world();
  const HessianOptions options = options_for(fixture, ProductMode::kAuto, std::int64_t{1} << 30);
  HessianOperator whole(program, fixture.shard(program, world->size(), world->rank()), *world, options);
  for (const Part& part : grouped_parts(program.layout(), ParameterGrouping::kModule)) {
    Program frozen = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
    std::vector<bool> chosen;
    for (const ParameterEntry& entry : frozen.layout().entries())
      chosen.push_back(std::ranges::find(part.tensors, entry.name) != part.tensors.end());
    frozen.select_parameters(chosen);
    ASSERT_EQ(frozen.layout().size(), part.size());
    HessianOperator alone(frozen, fixture.shard(frozen, world->size(), world->rank()), *world, options);
    EXPECT_NEAR(alone.loss(), whole.loss(), 1e-13 * std::abs(whole.loss()));
    const std::vector<at::Tensor> x = shards(alone, 1);
    at::Tensor y = at::zeros_like(x[0]);
    alone.apply(x[0], y);
    const at::Tensor reference = expected(whole, part, 0);
    EXPECT_LE((gathered(alone, y) - reference).abs().max().item<double>(),
              1e-12 * std::max(reference.abs().max().item<double>(), 1e-3))
        << GetParam() << ", " << part.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Products,
                         ::testing::Values("mlp_ce", "gpt2", "cnn_bn", "widedeep", "complex_parameters", "mixture",
                                           "written_attention"),
                         [](const auto& test) { return std::string(test.param); });

// A block takes a part of what a product of the whole takes: nothing is done before its first parameter.
TEST(Sweeps, PassOverWhatLiesBeforeABlock) {
  const Fixture fixture("gpt2");
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  LocalCommunicator comm;
  Phases phases;
  HessianOptions options = options_for(fixture, ProductMode::kKept, std::int64_t{1} << 30);
  HessianOperator whole(program, fixture.shard(program), comm, options);
  const auto embedding_s = [&](const std::string& pattern) {
    const Part part = part_of(program.layout(), pattern, matching(program.layout(), "block", {pattern}));
    PartOperator block(whole, part);
    const std::vector<at::Tensor> x = shards(block, 1);
    at::Tensor y = at::zeros_like(x[0]);
    std::vector<OpSeconds> before = whole.op_seconds();
    block.apply(x[0], y);
    double embedding = 0;
    for (const OpSeconds& op : whole.op_seconds())
      for (const OpSeconds& then : before)
        if (op.op == then.op && op.op.find("embedding") != std::string::npos)
          embedding += op.tangent_s + op.adjoint_tangent_s - then.tangent_s - then.adjoint_tangent_s;
    return embedding;
  };
  EXPECT_GT(embedding_s("wte"), 0);
  EXPECT_LT(embedding_s("ln_f"), 1e-9);  // but for rounding of sums of seconds
}

TEST(Names, AreMatchedByRegularExpressions) {
  ParameterLayout layout;
  for (const char* name : {"wte.weight", "h.0.attn.weight", "h.0.attn.bias", "h.1.attn.weight", "layer1.0.conv1.weight",
                           "layer1.1.conv1.weight", "head.weight", "scale"})
    layout.add({.name = name, .aliases = {}, .shape = {2}, .stored_dtype = at::kFloat, .numel = 2});
  ParameterLayout tied;
  tied.add({.name = "wte.weight", .aliases = {"lm_head.weight"}, .shape = {2}, .stored_dtype = at::kFloat, .numel = 2});
  EXPECT_EQ(matching(tied, "params", {"^lm_head"}), std::vector<bool>{true});

  const Part part = part_of(layout, "attn", matching(layout, "block", {R"(h\.\d\.attn\.weight)", "attn.bias"}));
  ASSERT_EQ(part.ranges.size(), 1u);  // neighbours are one range
  EXPECT_EQ(part.ranges[0].begin, 2);
  EXPECT_EQ(part.size(), 6);
  EXPECT_EQ(part.tensors.size(), 3u);

  const auto names = [&](ParameterGrouping grouping) {
    std::vector<std::string> all;
    for (const Part& one : grouped_parts(layout, grouping)) all.push_back(one.name);
    return all;
  };
  using Names = std::vector<std::string>;
  EXPECT_EQ(names(ParameterGrouping::kModule), (Names{"wte", "h.0", "h.1", "layer1", "head", "scale"}));
  EXPECT_EQ(names(ParameterGrouping::kLayer),
            (Names{"wte", "h.0.attn", "h.1.attn", "layer1.0.conv1", "layer1.1.conv1", "head", "scale"}));
  EXPECT_EQ(names(ParameterGrouping::kTensor).size(), 8u);

  std::string overlap;
  const std::vector<Part> parts = named_parts(layout, {{"a", "^h"}, {"b", "conv"}});
  EXPECT_EQ(count_outside(layout, parts, overlap), 4);  // wte and scale
  EXPECT_EQ(overlap, "");
  count_outside(layout, named_parts(layout, {{"a", "^h"}, {"b", "attn.bias"}}), overlap);
  EXPECT_EQ(overlap, "h.0.attn.bias");

  // Some rows and columns of tables
  ParameterLayout tables;
  tables.add({.name = "embed.weight", .aliases = {}, .shape = {4, 3}, .stored_dtype = at::kFloat, .numel = 12});
  tables.add({.name = "wide.weight", .aliases = {}, .shape = {2, 5}, .stored_dtype = at::kFloat, .numel = 10});
  const auto entries_of = [&](const std::vector<std::pair<std::string, std::string>>& patterns) {
    std::vector<std::int64_t> entries;
    const Part part_of_tables = named_parts(tables, patterns).at(0);
    for (const IndexRange& range : part_of_tables.ranges)
      for (std::int64_t i = range.begin; i < range.end; ++i) entries.push_back(i);
    return entries;
  };
  using Entries = std::vector<std::int64_t>;
  EXPECT_EQ(entries_of({{"a", "embed@rows=3,0-1"}}), (Entries{0, 1, 2, 3, 4, 5, 9, 10, 11}));
  EXPECT_EQ(entries_of({{"a", "wide@columns=1-2"}}), (Entries{13, 14, 18, 19}));
  EXPECT_EQ(entries_of({{"a", "embed@rows=1"}, {"a", "wide@columns=0"}, {"a", "embed@rows=1-1"}}),
            (Entries{3, 4, 5, 12, 17}));
  EXPECT_EQ(named_parts(tables, {{"a", "embed@rows=3"}, {"a", "wide@columns=0"}}).at(0).tensors,
            (Names{"embed.weight", "wide.weight"}));
  const auto wrong = [&](const std::string& pattern) -> std::string {
    try {
      named_parts(tables, {{"a", pattern}});
    } catch (const Error& e) {
      return std::to_string(static_cast<int>(e.exit_code())) + " " + e.what();
    }
    return "";
  };
  EXPECT_EQ(wrong("embed@rows=2-4"),
            "4 --block a: parameter 'embed.weight' of shape [4, 3] has no rows 4: they are numbered 0 to 3");
  EXPECT_EQ(wrong("embed@rows=2,,3"), "2 --block a: expected @rows=3,10-19 after the expression, got ''");
  EXPECT_EQ(wrong("embed@columns=2-1"), "2 --block a: @columns=2-1 ends before it begins");

  const auto refused = [&](const std::string& pattern) -> std::string {
    try {
      matching(layout, "params", {pattern});
    } catch (const Error& e) {
      return std::to_string(static_cast<int>(e.exit_code())) + " " + e.what();
    }
    return "";
  };
  EXPECT_EQ(refused("layer1.0.con1"),
            "4 --params 'layer1.0.con1' matches none of the model's 8 parameters; near it: 'layer1.0.conv1.weight'");
  EXPECT_EQ(refused("zzz"),
            "4 --params 'zzz' matches none of the model's 8 parameters; its parameters are "
            "'wte.weight', 'h.0.attn.weight', 'h.0.attn.bias', 'h.1.attn.weight', "
            "'layer1.0.conv1.weight', … (+3 more)");
  EXPECT_EQ(refused("(a"), "2 --params '(a' is no regular expression (ECMAScript's)");
}

}  // namespace
}  // namespace hesspect::parts_test
