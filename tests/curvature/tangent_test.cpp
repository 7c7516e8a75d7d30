// The tangent program against LibTorch's autograd on every kind of model: gradient, products kept, rebuilt and in
// segments, one vector or several, and Gauss-Newton products.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>

#include "../../src/curvature/local_loss.h"
#include "support/fixture.h"

namespace hesspect::tangent_test {
namespace {

using test::Fixture;
using test::relative_error;

struct Problem {
  Fixture fixture;
  Program program;
  LocalLoss local;
  std::vector<MicroBatch> batches;

  Problem(const std::string& name, at::ScalarType dtype, std::int64_t micro_batch)
      : fixture(name),
        program(Program::load(fixture.path(".pt2"), {dtype, at::kCPU})),
        local(program, fixture.shard(program), fixture.loss(), fixture.output_index()) {
    const std::int64_t size =
        program.static_batch().value_or(std::min(micro_batch, program.most_rows().value_or(micro_batch)));
    for (const RowRange range : local.micro_batches(size)) batches.push_back(local.batch(range));
  }

  std::vector<at::Tensor> views(const at::Tensor& flat) const { return program.layout().views(flat); }
  at::Tensor zeros() const { return at::zeros({program.layout().size()}, local.tensor_options()); }
  /// K random vectors [K, n].
  at::Tensor vectors(std::int64_t k) const {
    at::manual_seed(7);
    return at::randn({k, program.layout().size()}, local.tensor_options());
  }
  /// Each parameter's entries of [K, n]: [K, shape].
  std::vector<at::Tensor> stacked(const at::Tensor& flat) const {
    std::vector<at::Tensor> parts;
    for (const ParameterEntry& entry : program.layout().entries()) {
      std::vector<std::int64_t> shape{flat.size(0)};
      shape.insert(shape.end(), entry.shape.begin(), entry.shape.end());
      parts.push_back(flat.narrow(1, entry.offset, entry.numel).view(shape));
    }
    return parts;
  }

  at::Tensor gradient_by_autograd() {
    at::AutoGradMode grad(true);
    const at::Tensor sum = zeros();
    for (const MicroBatch& batch : batches) local.add_gradient(batch, views(sum));
    return sum;
  }
  at::Tensor products_by_autograd(const at::Tensor& v) {
    at::AutoGradMode grad(true);
    const at::Tensor sums = at::zeros_like(v);
    for (const MicroBatch& batch : batches)
      for (std::int64_t k = 0; k < v.size(0); ++k)
        local.add_product(local.gradient_graph(batch), views(v[k]), false, views(sums[k]));
    return sums;
  }
  /// @param kept  each micro-batch's sweeps are kept, and used twice
  at::Tensor products_by_sweeps(const at::Tensor& v, bool kept, const Cuts& cuts, bool gauss_newton = false) {
    const at::Tensor sums = at::zeros_like(v);
    for (const MicroBatch& batch : batches) {
      Sweeps sweeps = local.sweeps(batch);
      if (kept) {
        sweeps.keep(gauss_newton);
        sweeps.add_products(stacked(at::ones_like(v)), stacked(at::zeros_like(v)), gauss_newton);
      }
      sweeps.add_products(stacked(v), stacked(sums), gauss_newton, cuts);
    }
    return sums;
  }
};

/// Jᵀ H_L J v by autograd: J of the outputs by the double-vjp trick, H_L of the loss in them by double reverse mode.
at::Tensor gauss_newton_by_autograd(Problem& problem, const at::Tensor& v) {
  const at::AutoGradMode grad(true);
  const std::vector<at::Tensor>& parameters = problem.program.parameters();
  const auto gradient = [&](const at::Tensor& of, const std::vector<at::Tensor>& in, const at::Tensor& weight,
                            bool again) {
    return torch::autograd::grad({of}, in, {weight}, /*retain_graph=*/true, again, /*allow_unused=*/true);
  };
  const at::Tensor sum = problem.zeros();
  for (const MicroBatch& batch : problem.batches) {
    const at::Tensor z = problem.local.output(batch);
    const at::Tensor u = at::zeros_like(z).requires_grad_(true);
    std::vector<at::Tensor> of, weights;
    const std::vector<at::Tensor> pulled = gradient(z, parameters, u, true), parts = problem.views(v);
    for (std::size_t i = 0; i < pulled.size(); ++i)
      if (pulled[i].defined()) {
        of.push_back(pulled[i]);
        weights.push_back(parts[i]);
      }
    const at::Tensor z_dot = torch::autograd::grad(of, {u}, weights, true, false)[0].detach();
    const at::Tensor leaf = z.detach().requires_grad_(true);
    const LossOptions loss = fit_loss(problem.fixture.loss(), leaf);
    const at::Tensor z_bar = gradient(loss_sum(loss, leaf, batch.target, batch.weight), {leaf}, {}, true)[0];
    const std::vector<at::Tensor> product = gradient(z, parameters, gradient(z_bar, {leaf}, z_dot, false)[0], false);
    const std::vector<at::Tensor> sums = problem.views(sum);
    for (std::size_t i = 0; i < product.size(); ++i)
      if (product[i].defined()) sums[i].add_(product[i].detach());
  }
  return sum;
}

Cuts every(std::size_t nodes, const TangentProgram& program) {
  Cuts cuts;
  for (std::size_t p = nodes; p < program.nodes(); p += nodes)
    if (program.may_cut(p)) cuts.push_back(p);
  return cuts;
}

class TangentProgramTest : public ::testing::TestWithParam<const char*> {};

TEST_P(TangentProgramTest, AsAutograd) {
  // Of ResNet-18, whose products take the longest, in small batches alone.
  std::vector<std::int64_t> micro_batches{3};
  if (std::string(GetParam()) != "resnet18") micro_batches.push_back(1000);
  for (const std::int64_t micro_batch : micro_batches) {
    Problem problem(GetParam(), at::kDouble, micro_batch);
    const at::Tensor gradient = problem.zeros();
    for (const MicroBatch& batch : problem.batches) problem.local.sweeps(batch).add_gradient(problem.views(gradient));
    EXPECT_LE(relative_error(gradient, problem.gradient_by_autograd()), 1e-12);

    const at::Tensor v = problem.vectors(3), exact = problem.products_by_autograd(v);
    const Cuts cuts = every(3, problem.local.tangent_program());
    EXPECT_LE(relative_error(problem.products_by_sweeps(v, true, {}), exact), 1e-12) << "kept";
    EXPECT_LE(relative_error(problem.products_by_sweeps(v, false, {}), exact), 1e-12) << "rebuilt";
    EXPECT_LE(relative_error(problem.products_by_sweeps(v, false, cuts), exact), 1e-12) << "segments";
    // One cut near the end: nearly all of the program is run twice.
    Cuts late{problem.local.tangent_program().nodes() - 1};
    while (late[0] > 0 && !problem.local.tangent_program().may_cut(late[0])) --late[0];
    if (late[0] > 0) {
      EXPECT_LE(relative_error(problem.products_by_sweeps(v, false, late), exact), 1e-12) << "one cut";
    }
    const at::Tensor one = v.narrow(0, 1, 1).contiguous();
    EXPECT_LE(relative_error(problem.products_by_sweeps(one, true, {}), exact.narrow(0, 1, 1)), 1e-12) << "one";
  }
}

// The Gauss-Newton matrix, of what is kept, rebuilt and cut; it is symmetric, and positive semi-definite.
class GaussNewton : public ::testing::TestWithParam<const char*> {};

TEST_P(GaussNewton, IsJacobianLossHessianJacobian) {
  Problem problem(GetParam(), at::kDouble, 3);
  const at::Tensor v = problem.vectors(2);
  const at::Tensor exact =
      at::stack({gauss_newton_by_autograd(problem, v[0]), gauss_newton_by_autograd(problem, v[1])});
  const at::Tensor kept = problem.products_by_sweeps(v, true, {}, true);
  EXPECT_LE(relative_error(kept, exact), 1e-10);
  EXPECT_LE(relative_error(problem.products_by_sweeps(v, false, {}, true), exact), 1e-10);
  EXPECT_LE(
      relative_error(problem.products_by_sweeps(v, false, every(4, problem.local.tangent_program()), true), exact),
      1e-10);
  const double scale = (v[0].norm() * kept[1].norm()).item<double>();
  EXPECT_LE(std::abs((v[0].dot(kept[1]) - v[1].dot(kept[0])).item<double>()), 1e-12 * scale);
  EXPECT_GE(v[0].dot(kept[0]).item<double>(), 0);
}

INSTANTIATE_TEST_SUITE_P(Models, GaussNewton,
                         ::testing::Values("mlp_ce", "mlp_mse", "mlp_bce", "cnn_bn", "gpt2", "llama", "ce_soft",
                                           "causal_lm_weights", "large_vocabulary", "bce_pos_weight", "complex_rotary",
                                           "written_attention", "mixture"),
                         [](const auto& test) { return std::string(test.param); });

// In float32 the tangent program is no further from the exact product than autograd is.
class Float32 : public ::testing::TestWithParam<const char*> {};

TEST_P(Float32, ErrsNoMoreThanAutograd) {
  Problem exact_problem(GetParam(), at::kDouble, 4), problem(GetParam(), at::kFloat, 4);
  const at::Tensor v = problem.vectors(2), exact = exact_problem.products_by_autograd(v.to(at::kDouble));
  const double autograd = relative_error(problem.products_by_autograd(v).to(at::kDouble), exact);
  const Cuts cuts = every(3, problem.local.tangent_program());
  // Both are sums of roundings: one may be luckier than the other.
  EXPECT_LE(relative_error(problem.products_by_sweeps(v, true, {}).to(at::kDouble), exact), 2 * autograd + 1e-7);
  EXPECT_LE(relative_error(problem.products_by_sweeps(v, false, cuts).to(at::kDouble), exact), 2 * autograd + 1e-7);
}

INSTANTIATE_TEST_SUITE_P(Models, Float32,
                         ::testing::Values("mlp_ce", "cnn_bn", "resnet18", "vit", "bert", "gpt2", "llama", "widedeep",
                                           "mixture", "large_vocabulary"),
                         [](const auto& test) { return std::string(test.param); });

// Cuts that are chosen lie where they may, and leave a product what it is.
/// What the asked output does not need is no part of a derivative: that it is no node does not make it autograd's. A
/// whole product by autograd was once taken at each start for it.
TEST(LeftToAutograd, IsNothingThatTheOutputDoesNotNeed) {
  const Fixture fixture("multi_output");
  const Program program = Program::load(fixture.path(".pt2"), {at::kFloat, at::kCPU});
  const std::vector<at::Tensor> inputs = program.prepare_inputs(fixture.shard(program).inputs);
  EXPECT_TRUE(program.check_twice_differentiable(inputs));
  for (const std::size_t output : {0, 1}) {
    const TangentProgram tangent(program, {output});
    int left = 0, asked = 0;
    EXPECT_FALSE(program.check_twice_differentiable(inputs, [&](const Instruction& instruction) {
      ++asked;
      left += tangent.leaves_to_autograd(instruction) ? 1 : 0;
      return tangent.leaves_to_autograd(instruction);
    }));
    EXPECT_GE(asked, 4);
    EXPECT_EQ(left, 0) << "output " << output;
  }
}

TEST(Cuts, AreChosenByTheBytesThatCross) {
  Problem problem("gpt2", at::kDouble, 4);
  const TangentProgram& program = problem.local.tangent_program();
  const Cuts cuts = find_cuts(program, problem.batches.front().inputs);
  ASSERT_FALSE(cuts.empty());
  for (const std::size_t p : cuts) EXPECT_TRUE(program.may_cut(p));
  EXPECT_TRUE(std::is_sorted(cuts.begin(), cuts.end()));
  const at::Tensor v = problem.vectors(1);
  EXPECT_LE(relative_error(problem.products_by_sweeps(v, false, cuts), problem.products_by_autograd(v)), 1e-12);
}

INSTANTIATE_TEST_SUITE_P(Models, TangentProgramTest,
                         ::testing::Values("own_loss", "mlp_mse", "mlp_ce", "mlp_bce", "relu_mse", "linreg",
                                           "softmax_zero", "deep_scalar", "softmax_shift", "cnn_bn", "resnet18", "vit",
                                           "bert", "gpt2", "gpt2_shifted", "llama", "widedeep", "multi_output",
                                           "symint", "constants", "ce_ignore", "ce_spatial", "static_batch", "mlp_f64",
                                           "no_double_backward", "complex_rotary", "written_attention", "fourier",
                                           "complex_parameters", "complex_decomposed", "complex_input", "mixture",
                                           "vmap_rows", "vmap_ensemble", "instance_norm", "instance_norm_decomposed",
                                           "image_layouts", "large_vocabulary", "large_vocabulary_smoothed"),
                         [](const auto& test) { return std::string(test.param); });
INSTANTIATE_TEST_SUITE_P(Losses, TangentProgramTest, ::testing::ValuesIn(test::kLossCases),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace hesspect::tangent_test
