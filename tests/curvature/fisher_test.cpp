// The Fisher and the empirical Fisher matrix against their definitions: sums of outer products of gradients, each taken
// by LibTorch's autograd alone, term by term and, for the Fisher, target by target that the model could draw.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <map>

#include "../../src/curvature/local_loss.h"
#include "hesspect/core/errors.h"
#include "hesspect/curvature/hessian.h"
#include "support/fixture.h"

namespace hesspect::fisher_test {
namespace {

using test::Fixture;
using test::relative_error;

at::Tensor gradient(const at::Tensor& of, const at::Tensor& in) {
  return torch::autograd::grad({of}, {in}, {}, /*retain_graph=*/true, false, /*allow_unused=*/true)[0];
}

bool is_classes(LossKind kind) {
  return kind == LossKind::kCrossEntropy || kind == LossKind::kCausalLm || kind == LossKind::kMaskedLm ||
         kind == LossKind::kNll;
}

/// All rows of a fixture, and what its loss takes.
struct Problem {
  Fixture fixture;
  Program program;
  LocalLoss local;
  MicroBatch batch;
  LossOptions loss;
  at::Tensor z, leaf;  // the output, of the parameters, and for itself
  at::AutoGradMode grad{true};

  explicit Problem(const std::string& name)
      : fixture(name),
        program(Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU})),
        local(program, fixture.shard(program), fixture.loss(), fixture.output_index()),
        batch(local.batch({0, local.rows()})) {
    z = local.output(batch);
    leaf = z.detach().requires_grad_(true);
    loss = fit_loss(fixture.loss(), leaf);
  }

  bool is_language() const { return loss.kind == LossKind::kCausalLm || loss.kind == LossKind::kMaskedLm; }
  /// With the classes last: [terms, C].
  at::Tensor by_classes(const at::Tensor& t) const {
    return t.movedim(is_language() ? t.dim() - 1 : 1, -1).flatten(0, -2);
  }
  std::vector<std::int64_t> term_shape() const {
    std::vector<std::int64_t> shape = z.sizes().vec();
    if (is_classes(loss.kind)) shape.erase(shape.begin() + (is_language() ? z.dim() - 1 : 1));
    return shape;
  }
  /// Of the terms, flat; a causal target of a position lies `shift` later, and the last positions have none.
  at::Tensor at_position(const at::Tensor& t, double none) const {
    if (loss.kind != LossKind::kCausalLm) return t.flatten();
    const std::int64_t length = t.size(1) - loss.shift;
    return at::cat({t.narrow(1, loss.shift, length), at::full_like(t.narrow(1, 0, loss.shift), none)}, 1).flatten();
  }
  at::Tensor term_weights() const {
    const at::Tensor weight = batch.weight.defined() ? batch.weight.expand(term_shape()).contiguous()
                                                     : at::ones(term_shape(), z.options().requires_grad(false));
    at::Tensor u = at_position(weight, 0);
    if (has_classes()) u = u * (classes() != loss.ignore_index);
    return u;
  }
  bool has_classes() const { return is_classes(loss.kind) && !at::isFloatingType(batch.target.scalar_type()); }
  at::Tensor classes() const { return at_position(batch.target, static_cast<double>(loss.ignore_index)); }
  at::Tensor class_weights() const {
    return loss.class_weights.defined() ? loss.class_weights
                                        : at::ones({by_classes(z).size(1)}, z.options().requires_grad(false));
  }

  /// What term t's log-likelihood of each of its targets weighs in the loss, summed: what the loss has of log Σ exp z.
  double mass(std::int64_t t) const {
    const double u = term_weights()[t].item<double>();
    if (loss.kind == LossKind::kBceWithLogits && loss.pos_weight.defined()) {
      const at::Tensor target = batch.target;
      return u * (target * loss.pos_weight + (1 - target)).flatten()[t].item<double>();
    }
    if (!is_classes(loss.kind)) return u;
    const at::Tensor w = class_weights();
    at::Tensor q;
    if (has_classes()) {
      const std::int64_t c = classes()[t].item<std::int64_t>();
      if (c == loss.ignore_index) return 0;
      q = at::zeros_like(w);
      q[c] = 1;
    } else {
      q = by_classes(batch.target)[t];
    }
    const double smoothing = loss.kind == LossKind::kNll ? 0 : loss.label_smoothing;
    q = q * (1 - smoothing) + smoothing / static_cast<double>(w.numel());
    return u * (q * w).sum().item<double>();
  }

  /// The gradient in the outputs of term t alone, by PyTorch's loss.
  at::Tensor of_term(std::int64_t t) const {
    at::Tensor only = at::zeros_like(term_weights());
    only[t] = term_weights()[t];
    at::Tensor weight = only.view(term_shape());
    if (loss.kind == LossKind::kCausalLm)  // back to where targets lie
      weight = at::cat(
          {at::zeros_like(weight.narrow(1, 0, loss.shift)), weight.narrow(1, 0, weight.size(1) - loss.shift)}, 1);
    return gradient(loss_sum(loss, leaf, batch.target, weight), leaf).flatten();
  }

  at::Tensor empirical_in_outputs(FisherUnit unit) const {
    const std::int64_t terms = term_weights().numel(), per_row = terms / z.size(0);
    std::map<std::int64_t, at::Tensor> scores;  // of units
    for (std::int64_t t = 0; t < terms; ++t) {
      const double a = mass(t);
      if (a == 0) continue;
      at::Tensor& score = scores[unit == FisherUnit::kRow ? t / per_row : t];
      const at::Tensor own = of_term(t) / std::sqrt(a);
      score = score.defined() ? score + own : own;
    }
    const at::Tensor m = at::zeros({z.numel(), z.numel()}, at::kDouble);
    for (const auto& [number, score] : scores) m.add_(at::outer(score, score));
    return m;
  }

  /// Σ_t u_t Σ_y p(y) w_y s sᵀ, s = ∇ log p(y).
  at::Tensor fisher_in_outputs() const {
    const at::Tensor m = at::zeros({z.numel(), z.numel()}, at::kDouble), u = term_weights();
    const auto add = [&](const at::Tensor& log_p, double weight) {
      const at::Tensor s = gradient(log_p, leaf).flatten();
      m.add_(at::outer(s, s), weight * std::exp(log_p.item<double>()));
    };
    if (is_classes(loss.kind)) {
      const at::Tensor rows = by_classes(leaf), log_p = loss.kind == LossKind::kNll ? rows : rows.log_softmax(1);
      for (std::int64_t t = 0; t < u.numel(); ++t)
        for (std::int64_t c = 0; c < rows.size(1); ++c)
          add(log_p[t][c], u[t].item<double>() * class_weights()[c].item<double>());
      return m;
    }
    const bool of_logits = loss.kind == LossKind::kBceWithLogits;
    if (of_logits || loss.kind == LossKind::kBce) {
      const at::Tensor one = (of_logits ? at::log_sigmoid(leaf) : leaf.log()).flatten();
      const at::Tensor zero = (of_logits ? at::log_sigmoid(leaf.neg()) : (1 - leaf).log()).flatten();
      const at::Tensor positive =
          loss.pos_weight.defined() ? loss.pos_weight.expand(z.sizes()).flatten() : at::ones_like(u);
      for (std::int64_t t = 0; t < u.numel(); ++t) {
        add(one[t], u[t].item<double>() * positive[t].item<double>());
        add(zero[t], u[t].item<double>());
      }
      return m;
    }
    return at::diag(u * expected_square());
  }

  /// E f'² over targets of density e⁻ᶠ / ∫ e⁻ᶠ, f a loss of z - y: by Simpson's rule between its kinks.
  double expected_square() const {
    const double kink = loss.kind == LossKind::kSmoothL1 ? loss.beta : loss.kind == LossKind::kHuber ? loss.delta : 1;
    double all = 0, square = 0;
    for (const auto& [from, to] : {std::pair{1e-12, kink}, std::pair{kink * (1 + 1e-12), kink + 80}}) {
      const std::int64_t count = 200'001;
      const at::Tensor d = at::linspace(from, to, count, at::kDouble).requires_grad_(true);
      const at::Tensor zero = at::zeros_like(d), one = at::ones_like(d);
      // The terms are those of loss_sum with a weight for each.
      const at::Tensor weights = one.detach().clone().requires_grad_(true);
      const at::Tensor sum = loss_sum(loss, d, zero.detach(), weights);
      const at::Tensor f = gradient(sum, weights), slope = gradient(sum, d);
      at::Tensor simpson = at::full({count}, 2, at::kDouble);
      simpson.slice(0, 1, count, 2).fill_(4);
      simpson[0] = simpson[-1] = 1;
      const at::Tensor density = f.neg().exp() * simpson * ((to - from) / static_cast<double>(count - 1) / 3);
      all += density.sum().item<double>();
      square += (density * slope.square()).sum().item<double>();
    }
    return square / all;
  }

  /// Rows of J, one backward pass an entry of the output.
  at::Tensor jacobian() const {
    const at::Tensor j = at::zeros({z.numel(), program.layout().size()}, at::kDouble), flat = z.flatten();
    for (std::int64_t i = 0; i < z.numel(); ++i) {
      const std::vector<at::Tensor> row = torch::autograd::grad({flat[i]}, program.parameters(), {}, true, false, true);
      const std::vector<at::Tensor> parts = program.layout().views(j[i]);
      for (std::size_t p = 0; p < row.size(); ++p)
        if (row[p].defined()) parts[p].copy_(row[p]);
    }
    return j;
  }
  at::Tensor dense(const at::Tensor& in_outputs) const {
    const at::Tensor j = jacobian();
    return at::mm(j.t(), at::mm(in_outputs, j)) / loss_count(loss, batch.target, batch.weight);
  }
};

/// By products with unit vectors.
at::Tensor dense(HessianOperator& op) {
  const std::int64_t n = op.shard().n;
  at::Tensor matrix = at::empty({n, n}, at::kDouble);
  for (std::int64_t i = 0; i < n; ++i) {
    at::Tensor e = at::zeros({n}, at::kDouble), column = matrix[i];
    e[i] = 1.0;
    op.apply(e, column);
  }
  return matrix;
}

HessianOptions options_of(const Fixture& fixture, Curvature curvature, FisherUnit unit = FisherUnit::kTerm) {
  HessianOptions options;
  options.loss = fixture.loss();
  options.output_index = fixture.output_index();
  options.curvature = curvature;
  options.fisher_unit = unit;
  options.micro_batch = 5;
  return options;
}

class FisherOf : public ::testing::TestWithParam<const char*> {
 protected:
  /// Products of all modes, and of several vectors at once, against J v by the dense matrix.
  void check(const at::Tensor& expected, Curvature curvature, FisherUnit unit) {
    LocalCommunicator comm;
    at::manual_seed(11);
    const std::int64_t n = expected.size(0);
    const at::Tensor v = at::randn({3, n}, at::kDouble), exact = at::mm(v, expected);
    for (const ProductMode mode : {ProductMode::kKept, ProductMode::kRebuilt, ProductMode::kSegments}) {
      HessianOptions options = options_of(problem_.fixture, curvature, unit);
      options.product = mode;
      HessianOperator op(problem_.program, problem_.fixture.shard(problem_.program), comm, options);
      const at::Tensor found = at::zeros_like(v);
      std::vector<at::Tensor> x{v[0], v[1], v[2]}, y{found[0], found[1], found[2]};
      op.apply_block(x, y);
      EXPECT_LE(relative_error(found, exact), 1e-10) << to_string(curvature) << " " << to_string(mode);
      op.apply(x[1], y[0]);
      EXPECT_LE(relative_error(y[0], exact[1]), 1e-10) << to_string(curvature) << " " << to_string(mode) << ", one";
    }
  }
  Problem problem_{GetParam()};
};

TEST_P(FisherOf, IsExpectedOuterProduct) {
  check(problem_.dense(problem_.fisher_in_outputs()), Curvature::kFisher, FisherUnit::kTerm);
}

TEST_P(FisherOf, EmpiricalIsOuterProductOfTerms) {
  check(problem_.dense(problem_.empirical_in_outputs(FisherUnit::kTerm)), Curvature::kEmpiricalFisher,
        FisherUnit::kTerm);
}

TEST_P(FisherOf, EmpiricalIsOuterProductOfRows) {
  check(problem_.dense(problem_.empirical_in_outputs(FisherUnit::kRow)), Curvature::kEmpiricalFisher, FisherUnit::kRow);
}

INSTANTIATE_TEST_SUITE_P(Models, FisherOf,
                         ::testing::Values("mlp_ce", "mlp_mse", "mlp_bce", "ce_ignore", "ce_weights", "ce_row_weights",
                                           "ce_spatial_weights", "ce_soft", "ce_soft_spatial", "masked_lm",
                                           "masked_lm_weights", "causal_lm_weights", "nll", "mse_weights", "l1",
                                           "smooth_l1", "huber", "bce", "bce_pos_weight", "bce_pos_weight_spatial"),
                         [](const auto& test) { return std::string(test.param); });

// Without weights of classes the model's own distribution is that of which the loss is the negative logarithm.
class FisherIsGaussNewton : public ::testing::TestWithParam<const char*> {};

TEST_P(FisherIsGaussNewton, ToRounding) {
  const Fixture fixture(GetParam());
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  LocalCommunicator comm;
  HessianOperator ggn(program, fixture.shard(program), comm, options_of(fixture, Curvature::kGgn));
  HessianOperator fisher(program, fixture.shard(program), comm, options_of(fixture, Curvature::kFisher));
  const at::Tensor v = at::randn({program.layout().size()}, at::kDouble);
  at::Tensor x = at::zeros_like(v), y = at::zeros_like(v);
  ggn.apply(v, x);
  fisher.apply(v, y);
  EXPECT_GT(x.norm().item<double>(), 0);
  EXPECT_LE(relative_error(y, x), 1e-14);
}

INSTANTIATE_TEST_SUITE_P(Models, FisherIsGaussNewton,
                         ::testing::Values("mlp_ce", "mlp_mse", "mlp_bce", "masked_lm", "gpt2"),
                         [](const auto& test) { return std::string(test.param); });

/// The first rows alone.
DataShard head(DataShard shard, std::int64_t rows) {
  for (at::Tensor& input : shard.inputs) input = input.narrow(0, 0, rows);
  shard.target = shard.target.narrow(0, 0, rows);
  shard.rows = {0, rows};
  shard.global_rows = rows;
  return shard;
}

// Each of N rows adds C - 1 dimensions to the GGN, one to the empirical Fisher; no eigenvalue is negative.
/// v ↦ Jᵀ Σ_t s_t ⟨s_t, J v⟩ / count by autograd alone, J v by the double-vjp trick: of outputs too large for J. Terms
/// are rows of classes.
at::Tensor empirical_by_autograd(const Problem& problem, const at::Tensor& v) {
  const std::vector<at::Tensor>& parameters = problem.program.parameters();
  const at::Tensor u = at::zeros_like(problem.z).requires_grad_(true);
  const std::vector<at::Tensor> pulled = torch::autograd::grad({problem.z}, parameters, {u}, true, true, true);
  const std::vector<at::Tensor> parts = problem.program.layout().views(v);
  std::vector<at::Tensor> of, weights;
  for (std::size_t i = 0; i < pulled.size(); ++i)
    if (pulled[i].defined()) {
      of.push_back(pulled[i]);
      weights.push_back(parts[i]);
    }
  const at::Tensor z_dot = problem.by_classes(torch::autograd::grad(of, {u}, weights, true, false)[0].detach());
  const at::Tensor sum = loss_sum(problem.loss, problem.leaf, problem.batch.target, problem.batch.weight);
  const at::Tensor z_bar = problem.by_classes(gradient(sum, problem.leaf));
  at::Tensor scales = at::zeros({z_bar.size(0), 1}, at::kDouble);
  for (std::int64_t t = 0; t < scales.size(0); ++t) {
    const double mass = problem.mass(t);
    if (mass > 0) scales[t] = 1 / mass;
  }
  const at::Tensor z_bar_dot = (z_bar * (z_bar * z_dot).sum(1, true) * scales).view(problem.z.sizes());
  at::Tensor product = at::zeros_like(v);
  const std::vector<at::Tensor> pulled_back =
      torch::autograd::grad({problem.z}, parameters, {z_bar_dot}, true, false, true);
  const std::vector<at::Tensor> to = problem.program.layout().views(product);
  for (std::size_t i = 0; i < to.size(); ++i)
    if (pulled_back[i].defined()) to[i].copy_(pulled_back[i]);
  return product / loss_count(problem.loss, problem.batch.target, problem.batch.weight);
}

// The head that makes no tangents of the output, over several tiles of rows and of classes.
TEST(Fisher, EmpiricalOfMoreRowsAndClassesThanATile) {
  for (const char* name : {"large_vocabulary", "large_vocabulary_smoothed"}) {
    Problem problem(name);
    LocalCommunicator comm;
    at::manual_seed(5);
    const at::Tensor v = at::randn({2, problem.program.layout().size()}, at::kDouble);
    const at::Tensor exact = at::stack({empirical_by_autograd(problem, v[0]), empirical_by_autograd(problem, v[1])});
    for (const ProductMode mode : {ProductMode::kKept, ProductMode::kRebuilt}) {
      HessianOptions options = options_of(problem.fixture, Curvature::kEmpiricalFisher);
      options.micro_batch = 7;
      options.product = mode;
      HessianOperator op(problem.program, problem.fixture.shard(problem.program), comm, options);
      const at::Tensor found = at::zeros_like(v);
      std::vector<at::Tensor> x{v[0], v[1]}, y{found[0], found[1]};
      op.apply_block(x, y);
      EXPECT_LE(relative_error(found, exact), 1e-11) << name << " " << to_string(mode);
    }
  }
}

TEST(Fisher, RankIsThatOfItsSum) {
  const Fixture fixture("mlp_ce");
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  LocalCommunicator comm;
  const std::int64_t rows = 5, classes = 4;
  for (const auto& [curvature, rank] :
       {std::pair{Curvature::kGgn, rows * (classes - 1)}, std::pair{Curvature::kFisher, rows * (classes - 1)},
        std::pair{Curvature::kEmpiricalFisher, rows}}) {
    HessianOperator op(program, head(fixture.shard(program), rows), comm, options_of(fixture, curvature));
    const at::Tensor values = at::linalg_eigvalsh(dense(op)).flip(0);
    const double largest = values[0].item<double>();
    EXPECT_GT(values[rank - 1].item<double>(), 1e-6 * largest) << to_string(curvature);
    EXPECT_LT(values[rank].item<double>(), 1e-13 * largest) << to_string(curvature);
    EXPECT_GT(values[-1].item<double>(), -1e-13 * largest) << to_string(curvature);
  }
}

// The empirical Fisher of a loss that the program computes itself: each row's gradient, one row at a time by autograd.
TEST(Fisher, EmpiricalOfTheProgramsOwnLoss) {
  const Fixture fixture("own_loss");
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  const std::int64_t n = program.layout().size();
  const at::Tensor expected = at::zeros({n, n}, at::kDouble);
  {
    at::AutoGradMode grad(true);
    LocalLoss local(program, fixture.shard(program), fixture.loss(), 0);
    for (std::int64_t row = 0; row < local.rows(); ++row) {
      const at::Tensor g = at::zeros({n}, at::kDouble);
      local.add_gradient(local.batch({row, row + 1}), program.layout().views(g));
      expected.add_(at::outer(g, g), 1.0 / static_cast<double>(local.rows()));
    }
  }
  LocalCommunicator comm;
  HessianOptions options = options_of(fixture, Curvature::kEmpiricalFisher);
  options.micro_batch = 0;
  HessianOperator op(program, fixture.shard(program), comm, options);
  EXPECT_EQ(op.stats().micro_batch, 1);
  EXPECT_LE(relative_error(dense(op), expected), 1e-10);

  options.micro_batch = 5;
  EXPECT_THROW(HessianOperator(program, fixture.shard(program), comm, options), UsageError);
}

TEST(Fisher, WhatHasNoneIsRefused) {
  const Fixture own("own_loss"), fixture("mlp_ce");
  Program own_program = Program::load(own.path(".pt2"), {at::kDouble, at::kCPU});
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  LocalCommunicator comm;
  const auto message = [&](Program& of, const Fixture& data, HessianOptions options) {
    try {
      HessianOperator(of, data.shard(of), comm, options);
    } catch (const UsageError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(message(own_program, own, options_of(own, Curvature::kFisher)).find("tells no distribution"),
            std::string::npos);
  for (const Curvature curvature : {Curvature::kGgn, Curvature::kFisher, Curvature::kEmpiricalFisher}) {
    HessianOptions options = options_of(fixture, curvature);
    options.product = ProductMode::kAutograd;
    EXPECT_EQ(
        message(program, fixture, options),
        "--curvature " + to_string(curvature) + " with --product autograd: only the tangent program has its products");
  }
}

}  // namespace
}  // namespace hesspect::fisher_test
