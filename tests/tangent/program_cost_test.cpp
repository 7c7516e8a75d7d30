// What a program costs, by shapes alone: against a run over real tensors, and against arithmetic by hand.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "hesspect/core/errors.h"
#include "hesspect/model/program.h"
#include "hesspect/tangent/program_cost.h"

namespace hesspect::program_cost_test {
namespace {

std::string file_of(const std::string& name) {
  const char* folder = std::getenv("HESSPECT_FIXTURES");
  return std::string(folder != nullptr ? folder : "fixtures") + "/" + name + ".pt2";
}

/// Zeros, with so many rows, and of any other symbol the same size as far as it may be.
std::vector<at::Tensor> inputs_of(const Program& program, std::int64_t rows) {
  std::vector<at::Tensor> inputs;
  for (const InputSpec& spec : program.inputs()) {
    std::vector<std::int64_t> sizes;
    for (const Dimension& d : spec.shape)
      sizes.push_back(d.is_static() ? d.size : std::clamp(rows, d.min, d.max < 0 ? rows + d.min : d.max));
    const at::ScalarType type = at::isFloatingType(spec.dtype) ? program.options().dtype : spec.dtype;
    inputs.push_back(at::zeros(sizes, type));
  }
  return inputs;
}

class Shapes : public ::testing::TestWithParam<const char*> {};

TEST_P(Shapes, GiveTheCostOfARunOverValues) {
  const Program program = Program::load(file_of(GetParam()), {at::kDouble, at::kCPU});
  const TangentProgram tangent(program, {0});
  const auto inputs = inputs_of(program, program.static_batch().value_or(5));
  const ProgramCost shapes = program_cost(tangent, inputs), values = program_cost(tangent, inputs, CostRun::kValues);
  ASSERT_EQ(shapes.nodes.size(), values.nodes.size());
  EXPECT_EQ(shapes.nodes.size(), tangent.nodes());
  for (std::size_t n = 0; n < shapes.nodes.size(); ++n) {
    const NodeCost &a = shapes.nodes[n], &b = values.nodes[n];
    EXPECT_EQ(a.op, b.op);
    EXPECT_EQ(a.active, b.active) << a.op;
    EXPECT_EQ(a.parameters, b.parameters) << a.op;
    EXPECT_EQ(a.flops, b.flops) << a.op;
    if (a.is_head) continue;  // whose output is not made of values
    EXPECT_EQ(a.fresh_bytes, b.fresh_bytes) << n << ' ' << a.op;
    EXPECT_EQ(a.fresh_active_bytes, b.fresh_active_bytes) << n << ' ' << a.op;
  }
  ASSERT_EQ(shapes.values.size(), values.values.size());
  for (std::size_t i = 0; i < shapes.values.size(); ++i) {
    EXPECT_EQ(shapes.values[i].last_read, values.values[i].last_read);
    EXPECT_EQ(shapes.values[i].viewed, values.values[i].viewed);
    if (shapes.nodes[shapes.values[i].made].is_head) continue;
    EXPECT_EQ(shapes.values[i].bytes, values.values[i].bytes);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Shapes,
                         ::testing::Values("mlp_ce", "cnn_bn", "resnet18", "vit", "bert", "gpt2", "llama", "widedeep",
                                           "multi_output", "symint", "constants", "static_batch", "written_attention",
                                           "image_layouts", "instance_norm", "large_vocabulary", "complex_rotary"),
                         [](const auto& test) { return std::string(test.param); });

/// Where shapes do not do, the error names node and op, and cuts are found from values.
TEST(Shapes, ThatAreNotKnownAreRefused) {
  const Program program = Program::load(file_of("fourier"), {at::kDouble, at::kCPU});
  const TangentProgram tangent(program, {0});
  const auto inputs = inputs_of(program, 5);
  try {
    program_cost(tangent, inputs);
    FAIL() << "shapes of a Fourier transform were found";
  } catch (const InputError& error) {
    const std::string text = error.what();
    for (const char* part : {"fourier.pt2", "fft_fft", "is not known without values"})
      EXPECT_NE(text.find(part), std::string::npos) << text;
  }
  EXPECT_FALSE(program_cost(tangent, inputs, CostRun::kValues).nodes.empty());
  EXPECT_NO_THROW(find_cuts(tangent, inputs, ShardedSettings{}));
}

/// The parameters need have no memory.
TEST(Shapes, OfAProgramThatIsNotLaidOut) {
  const Program with = Program::load(file_of("llama"), {at::kFloat, at::kCPU});
  const Program without = Program::load(file_of("llama"), {at::kFloat, at::kCPU, /*lay_out=*/false});
  ASSERT_TRUE(without.parameters().front().is_meta());
  const TangentProgram a(with, {0}), b(without, {0});
  const ProgramCost of_a = program_cost(a, inputs_of(with, 5)), of_b = program_cost(b, inputs_of(without, 5));
  EXPECT_EQ(of_a.flops(), of_b.flops());
  EXPECT_EQ(find_cuts(of_a, {}), find_cuts(of_b, {}));
  EXPECT_EQ(find_cuts(a, inputs_of(with, 5)), find_cuts(b, inputs_of(without, 5)));
}

// linear 6 → 10, tanh, linear → 8, tanh, linear → 4, on 5 rows in double; stored in float32.
struct Mlp {
  Program program = Program::load(file_of("mlp_ce"), {at::kDouble, at::kCPU});
  TangentProgram tangent{program, {0}};
  ProgramCost cost = program_cost(tangent, inputs_of(program, 5));
};

TEST(ProgramCost, ByHand) {
  const Mlp mlp;
  ASSERT_EQ(mlp.cost.nodes.size(), 5);
  const double flops[] = {2 * 5 * 6 * 10, 0, 2 * 5 * 10 * 8, 0, 2 * 5 * 8 * 4};
  const std::int64_t bytes[] = {5 * 10 * 8, 5 * 10 * 8, 5 * 8 * 8, 5 * 8 * 8, 5 * 4 * 8};
  const std::vector<std::size_t> parameters[] = {{0, 1}, {}, {2, 3}, {}, {4, 5}};
  for (std::size_t n = 0; n < 5; ++n) {
    EXPECT_EQ(mlp.cost.nodes[n].flops, flops[n]);
    EXPECT_EQ(mlp.cost.nodes[n].fresh_bytes, bytes[n]);
    EXPECT_EQ(mlp.cost.nodes[n].fresh_active_bytes, bytes[n]);
    EXPECT_EQ(mlp.cost.nodes[n].parameters, parameters[n]);
    EXPECT_EQ(mlp.cost.nodes[n].is_head, n == 4);
    EXPECT_EQ(mlp.cost.values[n].made, n);
    EXPECT_EQ(mlp.cost.values[n].last_read, n < 4 ? n + 1 : ValueCost::kNoNode);
  }
  EXPECT_EQ(mlp.cost.flops(), 600 + 800 + 320);
  EXPECT_EQ(mlp.cost.total().numel, 70 + 88 + 36);
  EXPECT_EQ(mlp.cost.total().stored_bytes, 4 * 194);
  EXPECT_EQ(mlp.cost.total().run_bytes, 8 * 194);
  EXPECT_TRUE(mlp.cost.uncounted.empty());
}

TEST(ShardedBytes, ByHand) {
  const Mlp mlp;
  const Cuts cuts = {2};  // behind the first tanh
  const auto segments = segment_costs(mlp.cost, cuts);
  ASSERT_EQ(segments.size(), 2);
  EXPECT_EQ(segments[0].gathered.numel, 70);
  EXPECT_EQ(segments[1].gathered.numel, 88 + 36);
  EXPECT_EQ(segments[1].parameters, (std::vector<std::size_t>{2, 3, 4, 5}));
  EXPECT_EQ(segments[0].crossing_active_bytes, 400);
  EXPECT_EQ(segments[0].crossing_still_bytes, 0);
  EXPECT_EQ(segments[0].across_active_bytes, 400);
  EXPECT_EQ(segments[1].crossing_active_bytes, 0);
  EXPECT_EQ(segments[0].flops, 600);
  EXPECT_EQ(segments[0].inside_bytes(2), 800 * 2 + 2 * 800 * 2);
  EXPECT_EQ(segments[1].inside_bytes(2), 640 * 2 + 2 * 640 * 2);  // the head works in chunks

  const ShardedBytes bytes = sharded_bytes(mlp.cost, cuts, {.ranks = 4, .micro_batches = 3, .tangents = 2});
  EXPECT_EQ(bytes.gathered, 2 * (124 * 4 + 124 * 8 + 2 * 124 * 8));
  EXPECT_EQ(bytes.sums, 2 * 124 * 8);
  EXPECT_EQ(bytes.crossing, 3 * ((1 + 2) * 400 + (1 + 2) * 400));
  EXPECT_EQ(bytes.inside, 4800);
  EXPECT_EQ(bytes.total(), 6944 + 1984 + 7200 + 4800);
  const ShardedSettings narrow = {.tangents = 2, .stored_bytes = {1, 1, 1, 1, 1, 1}};
  EXPECT_EQ(sharded_bytes(mlp.cost, cuts, narrow).gathered, 2 * (4 + 124 * 8 + 2 * 124 * 8));
}

/// Against all ways to cut the list.
TEST(ShardedCuts, AreNearTheBest) {
  const Mlp mlp;
  for (const std::int64_t micro_batches : {1, 8}) {
    const ShardedSettings run = {.ranks = 2, .micro_batches = micro_batches};
    std::int64_t least = sharded_bytes(mlp.cost, {}, run).total();
    for (unsigned set = 1; set < 16; ++set) {
      Cuts cuts;
      for (std::size_t p = 1; p < 5; ++p)
        if ((set >> (p - 1) & 1U) != 0 && mlp.tangent.may_cut(p)) cuts.push_back(p);
      least = std::min(least, sharded_bytes(mlp.cost, cuts, run).total());
    }
    const std::int64_t found = sharded_bytes(mlp.cost, find_cuts(mlp.cost, run), run).total();
    EXPECT_LE(static_cast<double>(found), 1.1 * static_cast<double>(least)) << micro_batches;
  }
}

/// Layers of a transformer part where they end; a parameter's view never crosses a cut.
TEST(ShardedCuts, OfALlama) {
  const Program program = Program::load(file_of("llama"), {at::kFloat, at::kCPU});
  const TangentProgram tangent(program, {0});
  const ProgramCost cost = program_cost(tangent, inputs_of(program, 5));
  const ShardedSettings run = {.ranks = 2};
  const Cuts cuts = find_cuts(cost, run);
  ASSERT_FALSE(cuts.empty());
  EXPECT_TRUE(std::ranges::is_sorted(cuts));
  EXPECT_EQ(find_cuts(tangent, inputs_of(program, 5), run), cuts);
  for (const std::size_t p : cuts) {
    EXPECT_TRUE(tangent.may_cut(p));
    for (const ValueCost& value : cost.values)
      EXPECT_FALSE(!value.viewed.empty() && value.made < p && value.last_read != ValueCost::kNoNode &&
                   value.last_read >= p);
  }
  std::vector<bool> read(cost.parameters.size(), false);
  for (const SegmentCost& segment : segment_costs(cost, cuts))
    for (const std::size_t i : segment.parameters) read[i] = true;
  EXPECT_EQ(std::ranges::count(read, false), 0);
  EXPECT_LT(sharded_bytes(cost, cuts, run).total(), sharded_bytes(cost, {}, run).total());
}

}  // namespace
}  // namespace hesspect::program_cost_test
