// The check that the loss is a sum over rows: no right model is refused, in either precision, and the units that are
// tried differ as the data do. Models that must be refused are in tests/app/rows.py.
#include "hesspect/curvature/row_check.h"

#include <gtest/gtest.h>

#include "support/fixture.h"

namespace hesspect::row_check_test {
namespace {

using test::Fixture;

RowCheck check(const Fixture& fixture, Program& program, const DatasetSpec& spec) {
  const auto file = ArrayFile::open(spec.path);
  return check_rows(program, *file, spec, fixture.loss(), fixture.output_index());
}

class RightModels : public ::testing::TestWithParam<const char*> {};

TEST_P(RightModels, AreNotRefused) {
  const Fixture fixture(GetParam());
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    Program program = Program::load(fixture.path(".pt2"), {dtype, at::kCPU});
    const at::Tensor before = program.flat_parameters().clone();
    DatasetSpec spec;
    spec.path = fixture.path(".data.h5");
    for (const InputSpec& input : program.inputs()) spec.inputs.push_back(input.name);
    if (needs_target(fixture.loss().kind)) spec.target = "target";
    const RowCheck found = check(fixture, program, spec);
    EXPECT_TRUE(found.passed) << found.finding;
    // Rounding, measured, explains what is seen with room to spare.
    EXPECT_LT(found.deviation, 0.1);
    EXPECT_TRUE(program.flat_parameters().equal(before)) << "the parameters were not set back";
  }
}

INSTANTIATE_TEST_SUITE_P(Models, RightModels,
                         ::testing::Values("mlp_mse", "mlp_ce", "mlp_bce", "relu_mse", "linreg", "softmax_zero",
                                           "deep_scalar", "softmax_shift", "cnn_bn", "resnet18", "vit", "bert", "gpt2",
                                           "gpt2_shifted", "llama", "widedeep", "multi_output", "symint", "constants",
                                           "ce_ignore", "ce_spatial", "static_batch", "mlp_f64", "own_loss", "ce_soft",
                                           "ce_weights", "masked_lm", "causal_lm_weights", "nll", "bce", "huber",
                                           "complex_rotary", "fourier", "complex_parameters", "complex_input",
                                           "mixture", "vmap_rows", "vmap_ensemble", "vmap_loss", "instance_norm",
                                           "instance_norm_decomposed", "edges"),
                         [](const auto& test) { return std::string(test.param); });

// Of a fixed batch, by its own statistics: no buffer shows it, its rows do.
TEST(WrongModels, AreRefused) {
  const Fixture fixture("bn_of_batch");
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    Program program = Program::load(fixture.path(".pt2"), {dtype, at::kCPU});
    DatasetSpec spec{fixture.path(".data.h5"), {"x"}, "target", 0};
    const RowCheck found = check(fixture, program, spec);
    EXPECT_FALSE(found.passed);
    EXPECT_GT(found.deviation, 100);
    EXPECT_NE(found.finding.find("changes by"), std::string::npos) << found.finding;
    EXPECT_NE(found.advice.find("--unit-rows"), std::string::npos) << found.advice;
  }
}

}  // namespace
}  // namespace hesspect::row_check_test
