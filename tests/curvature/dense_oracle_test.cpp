// The whole Hessian, column by column, against dense Hessians from PyTorch and against closed forms, in float64.
#include <gtest/gtest.h>

#include <ATen/ops/linalg_eigvalsh.h>
#include <cmath>

#include "hesspect/curvature/hessian.h"
#include "support/fixture.h"

namespace hesspect::dense_oracle_test {
namespace {

using test::Fixture;

/// H [n, n], from n products with unit vectors.
at::Tensor dense_hessian(const Fixture& fixture, Program& program) {
  LocalCommunicator comm;
  HessianOptions options;
  options.loss = fixture.loss();
  options.output_index = fixture.output_index();
  options.micro_batch = program.static_batch() ? 0 : 7;
  HessianOperator hessian(program, fixture.shard(program), comm, options);
  const std::int64_t n = program.layout().size();
  at::Tensor h = at::empty({n, n}, at::kDouble);
  for (std::int64_t i = 0; i < n; ++i) {
    at::Tensor e = at::zeros({n}, at::kDouble);
    e[i] = 1.0;
    at::Tensor column = h[i];
    hessian.apply(e, column);
  }
  return h;
}

class DenseOracle : public ::testing::TestWithParam<const char*> {
 protected:
  DenseOracle() : fixture_(GetParam()), program_(Program::load(fixture_.path(".pt2"), {at::kDouble, at::kCPU})) {}
  Fixture fixture_;
  Program program_;
};

TEST_P(DenseOracle, MatrixEigenvaluesAndTrace) {
  const at::Tensor h = dense_hessian(fixture_, program_);
  const double scale = h.abs().max().item<double>();
  EXPECT_LE((h - h.t()).abs().max().item<double>(), 1e-12 * std::max(scale, 1e-3)) << "not symmetric";
  if (fixture_.has("f64/eigenvalues")) {
    const at::Tensor expected = fixture_.reference("f64/eigenvalues");
    ASSERT_EQ(expected.numel(), h.size(0));
    EXPECT_LE((at::linalg_eigvalsh(h) - expected).abs().max().item<double>(), 1e-9 * std::max(1.0, scale));
  }
  if (fixture_.has("f64/trace")) {
    const double expected = fixture_.reference("f64/trace").item<double>();
    EXPECT_NEAR(h.trace().item<double>(), expected, 1e-10 * std::max(1.0, std::abs(expected)));
  }
}

// Piecewise linear networks: the Hessian's part from the network's own curvature has no diagonal (Botev et al. 2017).
TEST(DenseOracleClosedForms, ReluTraceIsGaussNewtonTrace) {
  const Fixture fixture("relu_mse");
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  const double ggn = fixture.reference("f64/dense_ggn_trace").item<double>();
  EXPECT_NEAR(dense_hessian(fixture, program).trace().item<double>(), ggn, 1e-10 * ggn);
}

// w_i = y^(1/L): one eigenvalue L·y^(2 − 2/L), the rest zero.
TEST(DenseOracleClosedForms, DeepScalarNetAtItsBalancedMinimum) {
  const Fixture fixture("deep_scalar");
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  const auto layers = static_cast<double>(program.layout().size());
  const double y = at::prod(program.flat_parameters()).item<double>();
  const at::Tensor values = at::linalg_eigvalsh(dense_hessian(fixture, program));
  EXPECT_NEAR(values[-1].item<double>(), layers * std::pow(y, 2 - 2 / layers), 1e-6 * y * y);
  EXPECT_LE(values.narrow(0, 0, values.size(0) - 1).abs().max().item<double>(), 1e-5 * y * y);
}

// Adding one number to all logits changes nothing: H · 1 on the last bias vanishes.
TEST(DenseOracleClosedForms, SoftmaxDoesNotSeeAShiftOfTheLastBias) {
  const Fixture fixture("softmax_shift");
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  const ParameterEntry& bias = program.layout().entries().back();
  ASSERT_EQ(bias.shape.size(), 1u);
  LocalCommunicator comm;
  HessianOptions options;
  options.loss = fixture.loss();
  HessianOperator hessian(program, fixture.shard(program), comm, options);
  at::Tensor v = at::zeros({program.layout().size()}, at::kDouble), y = at::empty_like(v);
  v.narrow(0, bias.offset, bias.numel).fill_(1.0);
  hessian.apply(v, y);
  EXPECT_LE(y.abs().max().item<double>(), 1e-15);
  v[bias.offset] = 2.0;  // no longer a shift
  hessian.apply(v, y);
  EXPECT_GT(y.abs().max().item<double>(), 1e-3);
}

INSTANTIATE_TEST_SUITE_P(Models, DenseOracle,
                         ::testing::Values("mlp_mse", "mlp_ce", "mlp_bce", "relu_mse", "linreg", "softmax_zero",
                                           "deep_scalar"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace hesspect::dense_oracle_test
