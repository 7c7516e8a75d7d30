// The check that the loss is a sum over rows: no right model is refused, in either precision, and the units that are
// tried differ as the data do. Models that must be refused are in tests/app/rows.py.
#include "hesspect/curvature/row_check.h"

#include <gtest/gtest.h>

#include "support/fixture.h"

namespace hesspect {
namespace {

using test::Fixture;

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
    const auto file = ArrayFile::open(spec.path);
    const RowCheck check = check_rows(program, *file, spec, fixture.loss(), fixture.output_index());
    EXPECT_TRUE(check.passed) << check.finding;
    // Rounding, measured, explains what is seen with room to spare.
    EXPECT_LT(check.deviation, 0.1);
    EXPECT_TRUE(program.flat_parameters().equal(before)) << "the parameters were not set back";
  }
}

INSTANTIATE_TEST_SUITE_P(Models, RightModels,
                         ::testing::Values("mlp_mse", "mlp_ce", "mlp_bce", "relu_mse", "linreg", "softmax_zero",
                                           "deep_scalar", "softmax_shift", "cnn_bn", "resnet18", "vit", "bert", "gpt2",
                                           "gpt2_shifted", "llama", "widedeep", "multi_output", "symint", "constants",
                                           "ce_ignore", "ce_spatial", "static_batch", "mlp_f64", "own_loss"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace hesspect
