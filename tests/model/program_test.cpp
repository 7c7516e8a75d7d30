// What a program tells of itself, what it refuses and how it says so. The numbers are tests/curvature's business.
#include "hesspect/model/program.h"

#include <ATen/ATen.h>
#include <ATen/functorch/DynamicLayer.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "hesspect/core/errors.h"
#include "support/fixture.h"

namespace hesspect::program_test {
namespace {

using test::fixtures_dir;

Program load(const std::string& name, at::ScalarType dtype = at::kFloat) {
  return Program::load(fixtures_dir() + "/" + name + ".pt2", {dtype, at::kCPU});
}

/// Made-up inputs that fit: small floats, zeros (a valid index) for integers, true; `rows` rows where the batch is
/// symbolic.
std::vector<at::Tensor> example_inputs(const Program& program, std::int64_t rows) {
  std::map<std::string, std::int64_t> symbols;
  std::vector<at::Tensor> inputs;
  for (const InputSpec& spec : program.inputs()) {
    std::vector<std::int64_t> shape;
    for (std::size_t d = 0; d < spec.shape.size(); ++d) {
      const Dimension& dimension = spec.shape[d];
      std::int64_t size = dimension.size;
      if (!dimension.is_static()) {
        const bool is_rows = static_cast<std::int64_t>(d) == spec.batch_dim;
        size = std::max<std::int64_t>(dimension.min, is_rows ? rows : 2);
        if (dimension.max >= 0) size = std::min(size, dimension.max);
        size = symbols.emplace(dimension.symbol, size).first->second;
      }
      shape.push_back(size);
    }
    at::Tensor input = spec.dtype == at::kBool ? at::ones(shape, spec.dtype) : at::zeros(shape, spec.dtype);
    if (at::isFloatingType(spec.dtype) || at::isComplexType(spec.dtype))
      input = at::sin(at::arange(1, input.numel() + 1, at::kDouble)).reshape(shape).to(spec.dtype);
    inputs.push_back(shape.empty() ? input : input.movedim(spec.batch_dim, 0));
  }
  return program.prepare_inputs(inputs);
}

/// The one line of the error that `action` ends in.
template <class F>
std::string refusal(F&& action) {
  try {
    action();
  } catch (const InputError& e) {
    return e.what();
  }
  return "";
}

std::vector<std::string> strings(const nlohmann::json& values) { return values.get<std::vector<std::string>>(); }

bool contains_any(const std::string& text, const std::vector<std::string>& words) {
  for (const std::string& word : words)
    if (text.find(word) != std::string::npos) return true;
  return false;
}

class Refused : public ::testing::TestWithParam<const char*> {};

// Each file holds one thing that cannot be run; the line names its op, the line of the model and the reason.
TEST_P(Refused, NamesOpLineAndReason) {
  std::ifstream file(fixtures_dir() + "/" + GetParam() + ".expect.json");
  const nlohmann::json expected = nlohmann::json::parse(file);
  const std::string line = refusal([] {
    const Program program = load(GetParam());
    program.check_twice_differentiable(example_inputs(program, 2));
  });
  ASSERT_FALSE(line.empty()) << "was not refused";
  EXPECT_TRUE(contains_any(line, strings(expected["op_any"]))) << line;
  EXPECT_TRUE(contains_any(line, strings(expected["reason_any"]))) << line;
  EXPECT_NE(line.find(expected["user_line_contains"].get<std::string>()), std::string::npos) << line;
  EXPECT_NE(line.find("node '"), std::string::npos) << line;
  EXPECT_EQ(line.find('\n'), std::string::npos) << line;
}

INSTANTIATE_TEST_SUITE_P(Models, Refused,
                         ::testing::Values("bad_bn_train", "bad_in_train", "bad_buffer_copy", "bad_buffer_mutation",
                                           "bad_dropout_train", "bad_random", "bad_cond", "bad_while", "bad_strides",
                                           "bad_double_backward"),
                         [](const auto& test) { return std::string(test.param); });

TEST(Program, TiedWeightsAreOneParameter) {
  const Program program = load("gpt2");
  const ParameterEntry* embedding = program.layout().find("transformer.wte.weight");
  const ParameterEntry* head = program.layout().find("lm_head.weight");
  ASSERT_NE(embedding, nullptr);
  EXPECT_EQ(embedding, head);
  std::int64_t n = 0;
  for (const ParameterEntry& entry : program.layout().entries()) {
    EXPECT_EQ(entry.offset, n);
    n += entry.numel;
  }
  EXPECT_EQ(program.layout().size(), n);
}

TEST(Program, LeavesAliasTheFlatVector) {
  Program program = load("mlp_ce");
  program.flat_parameters().fill_(3.0);
  for (const at::Tensor& leaf : program.parameters()) {
    EXPECT_TRUE(leaf.is_leaf() && leaf.requires_grad());
    EXPECT_EQ(leaf.min().item<double>(), 3.0);
  }
}

TEST(Program, TellsInputsAndOutputs) {
  const Program program = load("bert");
  ASSERT_EQ(program.inputs().size(), 2u);
  EXPECT_EQ(program.inputs()[0].name, "input_ids");
  EXPECT_EQ(program.inputs()[0].dtype, at::kLong);
  EXPECT_FALSE(program.inputs()[0].shape.at(0).is_static());
  EXPECT_FALSE(program.static_batch());
  EXPECT_EQ(load("static_batch").static_batch(), 4);
  EXPECT_GT(load("multi_output").outputs().size(), 1u);
}

TEST(Program, DtypeOfTheRunReachesEveryFloatingTensor) {
  const Program program = load("constants", at::kDouble);
  const at::Tensor output = program.run(example_inputs(program, 3)).at(0);
  EXPECT_EQ(output.scalar_type(), at::kDouble);
}

// Each complex parameter is two reals, interleaved; the program's own dtype and the run's may differ.
TEST(Program, ComplexParametersArePairsOfReals) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    Program program = load("complex_parameters", dtype);
    const ParameterEntry* modes = program.layout().find("modes");
    ASSERT_NE(modes, nullptr);
    EXPECT_TRUE(modes->is_complex());
    EXPECT_EQ(modes->shape, (std::vector<std::int64_t>{4, 4, 3, 2}));
    EXPECT_EQ(modes->numel, 2 * 48);
    EXPECT_EQ(program.layout().complex_count(), 48 + 1 + 6 + 2);
    EXPECT_EQ(program.run(example_inputs(program, 3)).at(0).scalar_type(), dtype);
    program.flat_parameters()[modes->offset + 1] = std::nan("");
    EXPECT_NE(refusal([&] { program.check_finite(); }).find("'modes'"), std::string::npos);
  }
}

TEST(Program, ComplexNumbersOfAStateDict) {
  Program program = load("complex_parameters");
  StateDict state_dict;
  for (const ParameterEntry& entry : program.layout().entries()) {
    const at::Tensor pairs = at::sin(at::arange(entry.numel, at::kFloat) + static_cast<double>(entry.offset));
    const at::Tensor reals = pairs.reshape(entry.shape);
    const at::Tensor tensor = entry.is_complex() ? at::view_as_complex(reals) : reals;
    state_dict.tensors.push_back({entry.name, tensor.scalar_type(), tensor.sizes().vec(), tensor});
  }
  const at::Tensor phase = at::view_as_complex(at::ones({3, 2}));
  state_dict.tensors.push_back({"phase", phase.scalar_type(), {3}, phase});
  program.overlay(state_dict);
  for (const ParameterEntry& entry : program.layout().entries()) {
    const at::Tensor expected = at::sin(at::arange(entry.numel, at::kFloat) + static_cast<double>(entry.offset));
    EXPECT_TRUE(program.flat_parameters().narrow(0, entry.offset, entry.numel).equal(expected)) << entry.name;
  }
  at::Tensor broken = state_dict.tensors.front().tensor.clone();
  broken.fill_(INFINITY);
  state_dict.tensors.front().tensor = broken;
  EXPECT_NE(refusal([&] { program.overlay(state_dict); }).find("infinite"), std::string::npos);
}

// A node that fails inside of a torch.vmap is named, and leaves no level of functorch behind.
TEST(Program, FailureInsideOfAVmap) {
  const Program program = load("vmap_rows");
  const std::string line = refusal([&] { program.run({at::ones({3, 2, 5})}); });
  EXPECT_NE(line.find("node 'matmul' (aten.matmul.default"), std::string::npos) << line;
  EXPECT_FALSE(at::functorch::maybeCurrentDynamicLayer());
  EXPECT_EQ(program.run(example_inputs(program, 3)).at(0).sizes(), at::IntArrayRef({3, 3}));
}

// A batch norm without running statistics changes no buffer: it runs, and whether its rows may be parted is another
// question.
TEST(Program, NormsThatChangeNoBuffersRun) {
  const Program program = load("bn_of_batch");
  EXPECT_NO_THROW(program.check_twice_differentiable(example_inputs(program, 4)));
}

TEST(Program, InputsThatDoNotFitAreNamed) {
  const Program program = load("bert");
  const at::Tensor ids = at::zeros({3, 7}, at::kLong);
  const std::vector<at::Tensor> good = example_inputs(program, 3);
  const std::string missing = refusal([&] { program.prepare_inputs({good[0]}); });
  EXPECT_NE(missing.find("takes 2 inputs"), std::string::npos) << missing;
  const std::string floating = refusal([&] { program.prepare_inputs({good[0].to(at::kFloat), good[1]}); });
  EXPECT_NE(floating.find("input 'input_ids'"), std::string::npos) << floating;
  const std::string rank = refusal([&] { program.prepare_inputs({good[0].flatten(), good[1]}); });
  EXPECT_NE(rank.find("number of dimensions"), std::string::npos) << rank;
  const std::string unequal = refusal([&] { program.prepare_inputs({good[0].narrow(0, 0, 2), good[1]}); });
  EXPECT_NE(unequal.find("is 2 in input 'input_ids'"), std::string::npos) << unequal;
}

TEST(Program, NonFiniteWeightsAreNamed) {
  Program program = load("mlp_ce");
  EXPECT_NO_THROW(program.check_finite());
  const ParameterEntry& last = program.layout().entries().back();
  program.flat_parameters()[last.offset] = std::nan("");
  const std::string line = refusal([&] { program.check_finite(); });
  EXPECT_NE(line.find("'" + last.name + "'"), std::string::npos) << line;
}

TEST(Archive, NoFileDirectoryAndOtherFiles) {
  const auto line = [](const std::string& path) { return refusal([&] { Program::load(path, {}); }); };
  EXPECT_NE(line("/nonexistent/model.pt2").find("no such file"), std::string::npos);
  EXPECT_NE(line(fixtures_dir()).find("is a directory"), std::string::npos);
  EXPECT_NE(line(fixtures_dir() + "/mlp_ce.data.h5").find("not a readable .pt2"), std::string::npos);
  EXPECT_NE(line(fixtures_dir() + "/ckpt/state.pt").find("--weights"), std::string::npos);
}

// Cut at many lengths, or with bytes changed, a file is either refused in one line or still runs; it never crashes.
TEST(Archive, DamagedFilesAreRefused) {
  std::ifstream in(fixtures_dir() + "/mlp_ce.pt2", std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), {});
  ASSERT_GT(bytes.size(), 1000u);
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("hesspect_damaged_" + std::to_string(getpid()) + ".pt2");
  const auto try_load = [&](const std::string& content) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
    try {
      const Program program = Program::load(path, {});
      return std::string("ran");
    } catch (const Error& e) {
      EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
      return std::string("refused");
    }
  };
  EXPECT_EQ(try_load(bytes), "ran");
  for (std::size_t length = 0; length < bytes.size(); length += bytes.size() / 60)
    EXPECT_EQ(try_load(bytes.substr(0, length)), "refused");
  std::mt19937 random(7);
  for (int i = 0; i < 300; ++i) {
    std::string damaged = bytes;
    for (int k = 0; k < 1 + i % 4; ++k) damaged[random() % damaged.size()] = static_cast<char>(random());
    try_load(damaged);
  }
  std::string noise(5000, '\0');
  for (char& c : noise) c = static_cast<char>(random());
  EXPECT_EQ(try_load(noise), "refused");
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace hesspect::program_test
