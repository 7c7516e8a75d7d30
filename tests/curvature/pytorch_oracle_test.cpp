// Loss, gradient and Hessian-vector product against PyTorch's own, on every kind of model, in float64 and float32.
#include <gtest/gtest.h>

#include "hesspect/core/errors.h"
#include "hesspect/curvature/hessian.h"
#include "support/fixture.h"

namespace hesspect::pytorch_oracle_test {
namespace {

using test::Fixture;
using test::relative_error;

class PyTorchOracle : public ::testing::TestWithParam<const char*> {};

struct Measured {
  double loss;
  at::Tensor gradient, product;
};

Measured measure(const Fixture& fixture, Program& program, const HessianOptions& given, const at::Tensor& v) {
  LocalCommunicator comm;
  HessianOptions options = given;
  options.loss = fixture.loss();
  options.output_index = fixture.output_index();
  HessianOperator hessian(program, fixture.shard(program), comm, options);
  at::Tensor y = at::empty_like(v);
  hessian.apply(v, y);
  return {hessian.loss(), hessian.gradient(), y};
}

void expect_reference(const std::string& name, at::ScalarType dtype, std::int64_t micro_batch, std::int64_t budget,
                      double tolerance) {
  const Fixture fixture(name);
  Program program = Program::load(fixture.path(".pt2"), {dtype, at::kCPU});
  ASSERT_EQ(program.layout().size(), fixture.n_params());
  HessianOptions options;
  options.micro_batch = program.static_batch() ? 0 : micro_batch;
  options.graph_budget_bytes = budget;
  const at::Tensor v = fixture.flat(program, dtype, "v").to(dtype);
  const Measured measured = measure(fixture, program, options, v);
  const double loss = fixture.reference(Fixture::group(dtype) + "/loss").item<double>();
  EXPECT_NEAR(measured.loss, loss, tolerance * std::max(1.0, std::abs(loss)));
  const at::Tensor gradient = fixture.flat(program, dtype, "grad");
  // A gradient may vanish (a minimum): then it is compared with the size of the product.
  const at::Tensor product = fixture.flat(program, dtype, "hv");
  const double scale = std::max(gradient.norm().item<double>(), 1e-3 * product.norm().item<double>());
  EXPECT_LE((measured.gradient.to(at::kDouble) - gradient).norm().item<double>(), tolerance * scale);
  EXPECT_LE(relative_error(measured.product, product), tolerance);
}

TEST_P(PyTorchOracle, Float64WholeBatch) { expect_reference(GetParam(), at::kDouble, 1000, 0, 1e-10); }
TEST_P(PyTorchOracle, Float64MicroBatchesGraphsKept) { expect_reference(GetParam(), at::kDouble, 3, 1 << 30, 1e-10); }
TEST_P(PyTorchOracle, Float32) { expect_reference(GetParam(), at::kFloat, 4, 0, 2e-4); }

INSTANTIATE_TEST_SUITE_P(Models, PyTorchOracle,
                         ::testing::Values("mlp_mse", "mlp_ce", "mlp_bce", "relu_mse", "linreg", "softmax_zero",
                                           "deep_scalar", "softmax_shift", "cnn_bn", "resnet18", "vit", "bert", "gpt2",
                                           "gpt2_shifted", "llama", "widedeep", "multi_output", "symint", "constants",
                                           "ce_ignore", "ce_spatial", "static_batch", "mlp_f64", "no_double_backward",
                                           "complex_rotary", "written_attention", "fourier", "complex_parameters",
                                           "complex_decomposed", "complex_input", "mixture", "vmap_rows",
                                           "vmap_ensemble", "instance_norm", "instance_norm_decomposed",
                                           "image_layouts"),
                         [](const auto& test) { return std::string(test.param); });

// Every loss with its options and weights; in micro-batches, some of which have no term that counts.
INSTANTIATE_TEST_SUITE_P(Losses, PyTorchOracle, ::testing::ValuesIn(test::kLossCases),
                         [](const auto& test) { return std::string(test.param); });

// A program that returns its own mean loss needs micro-batches that weigh it by rows; unequal ones are allowed.
TEST(OwnLoss, MeanOfRows) {
  expect_reference("own_loss", at::kDouble, 1000, 0, 1e-10);
  expect_reference("own_loss", at::kDouble, 3, 0, 1e-10);
}

// Each row's own loss, by torch.vmap around it, is a mean over eight rows that are exported for good.
TEST(OwnLoss, MapOverRows) { expect_reference("vmap_loss", at::kDouble, 8, 0, 1e-10); }

// A batch norm over its own batch, which is the one batch that there is.
TEST(BatchNorm, OfItsOwnBatch) { expect_reference("bn_of_batch", at::kDouble, 8, 0, 1e-10); }

// Nine rows of a program that takes two to eight at once: the size is chosen within its bounds, and no row is left
// alone.
TEST(Edges, BoundedBatchMaskOfInfinitiesSparseEmbedding) {
  expect_reference("edges", at::kDouble, 0, 0, 1e-10);
  expect_reference("edges", at::kDouble, 4, 1 << 30, 1e-10);
  const Fixture fixture("edges");
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  EXPECT_NO_THROW(program.check_finite());
  EXPECT_THROW(expect_reference("edges", at::kDouble, 9, 0, 1e-10), InputError);
}

}  // namespace
}  // namespace hesspect::pytorch_oracle_test
