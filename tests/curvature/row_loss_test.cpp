// The losses in closed form against autograd of loss_sum: value, gradient, and products with the Hessian by double
// reverse mode.
#include "../../src/curvature/row_loss.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "../../src/curvature/allocation_meter.h"
#include "../../src/curvature/local_loss.h"
#include "../../src/curvature/output_loss.h"
#include "hesspect/core/errors.h"
#include "support/fixture.h"

namespace hesspect::row_loss_test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::int64_t kAll = 1'000'000;  // rows in a chunk

struct Case {
  std::string name;
  LossOptions loss;
  at::Tensor output, target;  // in float64; made to fit
  at::Tensor weight = {};
};

LossOptions options(const char* name) {
  LossOptions loss;
  loss.kind = loss_kind_from(name);
  return loss;
}

at::Tensor values(std::vector<double> numbers) { return at::tensor(numbers, at::kDouble); }

struct Derivatives {
  double value = 0;
  at::Tensor adjoint, adjoint_tangent;  // of the output's shape, and [K, …]
};

/// By autograd.
Derivatives expected(const LossOptions& loss, const at::Tensor& output, const at::Tensor& target,
                     const at::Tensor& weight, const at::Tensor& tangents) {
  at::AutoGradMode grad(true);
  const at::Tensor z = output.detach().clone().requires_grad_(true);
  const at::Tensor sum = loss_sum(loss, z, target, weight);
  const at::Tensor gradient = torch::autograd::grad({sum}, {z}, {}, true, true)[0];
  Derivatives out{sum.item<double>(), gradient.detach(), at::zeros_like(tangents)};
  if (!gradient.requires_grad()) return out;
  for (std::int64_t k = 0; k < tangents.size(0); ++k) {
    const at::Tensor product = torch::autograd::grad({gradient}, {z}, {tangents[k]}, true, false, true)[0];
    if (product.defined()) out.adjoint_tangent[k].copy_(product);
  }
  return out;
}

/// By rows, in chunks; the tangents' adjoints take the tangents' place.
/// @param gap  columns between one row and the next, in memory: fused kernels take none
Derivatives by_rows(const RowObjective& objective, const at::Tensor& output, const at::Tensor& tangents,
                    std::int64_t chunk, std::int64_t gap = 0) {
  at::NoGradGuard no_grad;
  const auto rows_of = [&](const at::Tensor& stacked) {
    const std::int64_t columns = objective.columns();
    const at::Tensor rows = at::full({stacked.size(0), objective.rows(), columns + gap}, 7, stacked.options());
    return rows.narrow(2, 0, columns).copy_(objective.as_rows(stacked));
  };
  const at::Tensor z = rows_of(output.unsqueeze(0))[0], z_dot = rows_of(tangents);
  const at::Tensor z_bar = rows_of(at::ones_like(output).unsqueeze(0))[0];
  Derivatives out;
  for (std::int64_t begin = 0; begin < objective.rows(); begin += chunk) {
    const std::int64_t r = std::min(chunk, objective.rows() - begin);
    const at::Tensor state = z.narrow(0, begin, r), tangent = z_dot.narrow(1, begin, r);
    out.value += objective.prepare(state, begin);
    objective.adjoint(state, begin, z_bar.narrow(0, begin, r));
    objective.adjoint_tangent(state, begin, tangent, tangent);
  }
  out.adjoint = objective.from_rows(z_bar.unsqueeze(0))[0];
  out.adjoint_tangent = objective.from_rows(z_dot);
  return out;
}

void expect_near(const at::Tensor& found, const at::Tensor& exact, double tolerance, const std::string& what) {
  ASSERT_EQ(found.sizes(), exact.sizes()) << what;
  const double scale = std::max(1.0, exact.abs().max().item<double>());
  const double error = (found.to(at::kDouble) - exact).abs().max().item<double>();
  EXPECT_LE(error, tolerance * scale) << what;  // false of NaN, too
}

/// Compares with autograd in float64, of the very numbers that the loss was given.
void check(const Case& c, at::ScalarType dtype, std::int64_t chunk, std::int64_t tangent_count, std::int64_t gap = 0) {
  const std::string what = c.name + " " + c10::toString(dtype) + ", chunks of " + std::to_string(chunk) +
                           ", K = " + std::to_string(tangent_count) + (gap > 0 ? ", with gaps" : "");
  const at::Tensor output = c.output.to(dtype);
  const LossOptions loss = fit_loss(c.loss, output);
  const at::Tensor target = check_target(loss, output, c.target, 0), weight = check_weight(loss, output, c.weight, 0);
  std::vector<std::int64_t> stacked = output.sizes().vec();
  stacked.insert(stacked.begin(), tangent_count);
  const at::Tensor tangents = at::randn(stacked, output.options());

  const auto exact = [](const at::Tensor& tensor) {
    return tensor.defined() && tensor.is_floating_point() ? tensor.to(at::kDouble) : tensor;
  };
  LossOptions exact_loss = loss;
  exact_loss.class_weights = exact(loss.class_weights);
  exact_loss.pos_weight = exact(loss.pos_weight);
  const Derivatives reference = expected(exact_loss, exact(output), exact(target), exact(weight), exact(tangents));
  // Of the output, its shape is all that is known beforehand.
  const auto objective = row_loss(loss, at::empty({}, output.options()).expand(output.sizes()), target, weight);
  ASSERT_EQ(objective->rows() * objective->columns(), output.numel());
  const Derivatives found = by_rows(*objective, output, tangents, chunk, gap);

  const double tolerance = dtype == at::kDouble ? 1e-12 : dtype == at::kFloat ? 2e-6 : 0.02;
  EXPECT_NEAR(found.value, reference.value, tolerance * std::max(1.0, std::abs(reference.value))) << what;
  expect_near(found.adjoint, reference.adjoint, tolerance, what + ": adjoint");
  expect_near(found.adjoint_tangent, reference.adjoint_tangent, tolerance, what + ": its tangent");
  EXPECT_EQ(objective->is_curved(), c.loss.kind != LossKind::kL1 && c.loss.kind != LossKind::kNll);
}

void check(const std::vector<Case>& cases) {
  for (const Case& c : cases)
    for (const at::ScalarType dtype : {at::kDouble, at::kFloat})
      for (const std::int64_t chunk : {std::int64_t{1}, std::int64_t{7}, kAll})
        for (const std::int64_t tangents : {1, 3})
          for (const std::int64_t gap : {0, 1}) check(c, dtype, chunk, tangents, gap);
}

// --- classes ------------------------------------------------------------------------------------------------------

/// Classes of a shape, every fifth one ignored.
at::Tensor some_classes(std::vector<std::int64_t> shape, std::int64_t classes, std::int64_t ignore_index = -100) {
  const at::Tensor target = at::randint(classes, shape, at::kLong);
  return target.masked_fill(at::arange(target.numel()).view(shape).remainder(5) == 1, ignore_index);
}
at::Tensor some_probabilities(std::vector<std::int64_t> shape) { return at::randn(shape, at::kDouble).softmax(1); }
/// Some of them zero.
at::Tensor some_weights(std::vector<std::int64_t> shape) {
  return at::rand(shape, at::kDouble).mul_(3).sub_(0.5).clamp_min_(0);
}

/// A loss as it is, and with each of its options and all of them.
std::vector<Case> with_options(const Case& plain, std::int64_t classes, std::vector<std::int64_t> terms) {
  std::vector<Case> cases{plain};
  const auto add = [&](const std::string& name, bool smooth, bool class_weights, std::vector<std::int64_t> weights) {
    Case c = plain;
    c.name += " " + name;
    if (smooth) c.loss.label_smoothing = 0.15;
    if (class_weights) c.loss.class_weights = some_weights({classes});
    if (!weights.empty()) c.weight = some_weights(weights);
    cases.push_back(c);
  };
  if (plain.loss.kind != LossKind::kNll) add("smoothed", true, false, {});
  add("class weights", false, true, {});
  add("row weights", false, false, {terms[0]});
  add("term weights", false, false, terms);
  if (plain.loss.kind != LossKind::kNll) add("smoothed, class weights", true, true, {});
  add("all", plain.loss.kind != LossKind::kNll, true, terms);
  return cases;
}

TEST(Classes, CrossEntropy) {
  const LossOptions loss = options("cross_entropy");
  check(with_options({"plain", loss, at::randn({15, 6}, at::kDouble), some_classes({15}, 6)}, 6, {15}));
  check(with_options({"image", loss, at::randn({8, 5, 3, 2}, at::kDouble), some_classes({8, 3, 2}, 5)}, 5, {8, 3, 2}));
  LossOptions within = loss;
  within.ignore_index = 2;
  check(with_options({"ignored class", within, at::randn({15, 6}, at::kDouble), some_classes({15}, 6, 2)}, 6, {15}));
}

TEST(Classes, CrossEntropyOfProbabilities) {
  const LossOptions loss = options("cross_entropy");
  check(with_options({"plain", loss, at::randn({15, 6}, at::kDouble), some_probabilities({15, 6})}, 6, {15}));
  check(with_options({"image", loss, at::randn({8, 5, 3, 2}, at::kDouble), some_probabilities({8, 5, 3, 2})}, 5,
                     {8, 3, 2}));
}

TEST(Classes, LanguageModels) {
  for (const std::int64_t shift : {0, 1, 3}) {
    LossOptions loss = options("causal_lm");
    loss.shift = shift;
    const std::string name = "shift " + std::to_string(shift);
    check(with_options({name, loss, at::randn({4, 5, 6}, at::kDouble), some_classes({4, 5}, 6)}, 6, {4, 5}));
  }
  check(with_options({"masked", options("masked_lm"), at::randn({4, 5, 6}, at::kDouble), some_classes({4, 5}, 6)}, 6,
                     {4, 5}));
}

TEST(Classes, Nll) {
  const LossOptions loss = options("nll");
  check(with_options({"plain", loss, at::randn({15, 6}, at::kDouble).log_softmax(1), some_classes({15}, 6)}, 6, {15}));
  check(with_options({"image", loss, at::randn({8, 5, 3, 2}, at::kDouble).log_softmax(1), some_classes({8, 3, 2}, 5)},
                     5, {8, 3, 2}));
}

/// Rows and classes where the op that makes the output can work in chunks of rows.
TEST(Classes, Shapes) {
  const at::Tensor tokens = at::zeros({4, 5, 6}), image = at::zeros({8, 5, 3, 2});
  const auto of_tokens = row_loss(options("causal_lm"), tokens, some_classes({4, 5}, 6), {});
  EXPECT_EQ(of_tokens->rows(), 20);
  EXPECT_EQ(of_tokens->columns(), 6);
  EXPECT_TRUE(of_tokens->rows_are_leading());
  const auto of_image = row_loss(options("cross_entropy"), image, some_classes({8, 3, 2}, 5), {});
  EXPECT_EQ(of_image->rows(), 8);
  EXPECT_EQ(of_image->columns(), 30);
  EXPECT_FALSE(of_image->rows_are_leading());
  // Views, so that what is done to rows is done to the output.
  const at::Tensor stacked = at::zeros({3, 8, 5, 3, 2});
  EXPECT_TRUE(of_image->as_rows(stacked).is_alias_of(stacked));
  EXPECT_TRUE(of_image->from_rows(of_image->as_rows(stacked)).is_alias_of(stacked));
}

/// Positions without a target, ignored ones and those of weight zero have derivatives of exactly zero.
TEST(Classes, WhatDoesNotCountIsZero) {
  LossOptions loss = options("causal_lm");
  loss.label_smoothing = 0.1;
  const at::Tensor output = at::randn({2, 4, 6}, at::kDouble), weight = at::ones({2, 4}, at::kDouble);
  at::Tensor target = at::randint(6, {2, 4}, at::kLong);
  target[0][1] = -100;
  weight[1][2] = 0;
  const auto objective = row_loss(loss, output, target, check_weight(loss, output, weight, 0));
  const Derivatives found = by_rows(*objective, output, at::randn({2, 2, 4, 6}, at::kDouble), 3);
  const at::Tensor zero = found.adjoint.eq(0).all(-1);
  EXPECT_TRUE(zero.equal(at::tensor({1, 0, 0, 1, 0, 1, 0, 1}).view({2, 4}).to(at::kBool)));
  EXPECT_TRUE(found.adjoint_tangent.eq(0).all(-1).eq(zero).all().item<bool>());
}

/// Logits that overflow exp, and vocabularies masked by -∞.
TEST(Classes, HugeLogits) {
  const at::Tensor huge = at::randn({15, 6}, at::kDouble).mul_(1e4);
  check({{"huge", options("cross_entropy"), huge, some_classes({15}, 6)},
         {"probabilities", options("cross_entropy"), huge, some_probabilities({15, 6})}});
  LossOptions smooth = options("cross_entropy");
  smooth.label_smoothing = 0.1;
  check({{"smoothed", smooth, huge, some_classes({15}, 6)}});

  // A class of -∞ is as good as none, and as the stand-in for the target of an ignored row it changes nothing.
  const at::Tensor masked = at::randn({15, 6}, at::kDouble), tangents = at::randn({2, 15, 6}, at::kDouble);
  masked.select(1, 0).fill_(-kInfinity);
  const at::Tensor rest = some_classes({15}, 5), target = at::where(rest == -100, rest, rest + 1);
  const LossOptions loss = options("cross_entropy");
  const Derivatives found = by_rows(*row_loss(loss, masked, target, {}), masked, tangents, 7);
  const Derivatives exact = expected(loss, masked.narrow(1, 1, 5), rest, {}, tangents.narrow(2, 1, 5));
  EXPECT_NEAR(found.value, exact.value, 1e-12 * exact.value);
  expect_near(found.adjoint, at::constant_pad_nd(exact.adjoint, {1, 0}), 1e-12, "adjoint");
  expect_near(found.adjoint_tangent, at::constant_pad_nd(exact.adjoint_tangent, {1, 0}), 1e-12, "its tangent");
}

/// No array of the output's size beside the state and the results, by the kernels or without them.
void check_memory(const std::vector<std::int64_t>& shape, const at::Tensor& target, std::int64_t gap) {
  LossOptions loss = options("cross_entropy");
  loss.label_smoothing = 0.1;
  loss.class_weights = at::rand({shape[1]});
  const at::Tensor output = at::randn(shape), weight = check_weight(loss, output, at::ones({shape[0]}), 0);
  const std::int64_t columns = output.numel() / shape[0];
  const at::Tensor state = at::empty({shape[0], columns + gap}).narrow(1, 0, columns).copy_(output.flatten(1));
  const at::Tensor z_bar = at::empty({shape[0], columns}), z_dot = at::randn({2, shape[0], columns});
  const AllocationMeter meter(at::kCPU);
  const auto objective = row_loss(loss, output, target, weight);
  objective->prepare(state, 0);
  objective->adjoint(state, 0, z_bar);
  objective->adjoint_tangent(state, 0, z_dot, z_dot);
  EXPECT_GT(meter.peak_bytes(), 0);
  EXPECT_LT(meter.peak_bytes(), output.numel() * 4 / 3);
}

TEST(Classes, Memory) {
  for (const std::int64_t gap : {0, 1}) {
    check_memory({48, 20'000}, some_classes({48}, 20'000), gap);
    check_memory({48, 20'000}, at::rand({48, 20'000}), gap);
  }
  check_memory({24, 200, 200}, some_classes({24, 200}, 200), 0);
  check_memory({24, 200, 200}, at::rand({24, 200, 200}), 0);
}

// --- elements -----------------------------------------------------------------------------------------------------

std::vector<Case> with_weights(const Case& plain) {
  std::vector<Case> cases{plain, plain, plain};
  cases[1].name += ", row weights";
  cases[1].weight = some_weights({plain.output.size(0)});
  cases[2].name += ", term weights";
  cases[2].weight = some_weights(plain.output.sizes().vec());
  return cases;
}

TEST(Elements, OfEveryShape) {
  for (const std::vector<std::int64_t>& shape :
       {std::vector<std::int64_t>{15}, std::vector<std::int64_t>{15, 4}, std::vector<std::int64_t>{8, 3, 2}}) {
    const at::Tensor output = at::randn(shape, at::kDouble), target = at::randn(shape, at::kDouble);
    for (const char* name : {"mse", "l1", "smooth_l1", "huber"})
      check(with_weights({name, options(name), output, target}));
    check(with_weights({"bce", options("bce"), output.sigmoid(), target.sigmoid()}));
    check(with_weights({"bce_with_logits", options("bce_with_logits"), output, target.sigmoid()}));
  }
}

TEST(Elements, Kinks) {
  // On both sides of a kink and on it; all of these are exact in float32.
  const at::Tensor output = at::arange(-16, 17, at::kDouble).mul_(0.125).view({11, 3}), zero = at::zeros_like(output);
  for (const double bound : {0.25, 1.5}) {
    LossOptions smooth = options("smooth_l1"), huber = options("huber");
    smooth.beta = huber.delta = bound;
    check({{"smooth_l1", smooth, output, zero}, {"huber", huber, output, zero}});
  }
  check({{"l1", options("l1"), output, zero}});
}

TEST(Elements, PositiveWeights) {
  const at::Tensor output = at::randn({8, 3, 4}, at::kDouble), target = at::rand({8, 3, 4}, at::kDouble);
  for (const std::vector<std::int64_t>& shape :
       {std::vector<std::int64_t>{}, std::vector<std::int64_t>{1}, std::vector<std::int64_t>{4},
        std::vector<std::int64_t>{3, 1}, std::vector<std::int64_t>{1, 1, 4}, std::vector<std::int64_t>{3, 4}}) {
    LossOptions loss = options("bce_with_logits");
    loss.pos_weight = at::rand(shape, at::kDouble).add_(0.5);
    check(with_weights({"pos_weight", loss, output, target}));
  }
  LossOptions loss = options("bce_with_logits");
  loss.pos_weight = values({2.5});
  check(with_weights({"pos_weight", loss, output.view({-1}), target.view({-1})}));
}

TEST(Elements, LogitsFarOut) {
  const at::Tensor output = values({-1e4, -100, -30, -1, 0, 1, 30, 100, 1e4}).repeat({3}).view({27, 1});
  const at::Tensor target = values({0, 0.5, 1}).repeat_interleave(9).view({27, 1});
  check({{"bce_with_logits", options("bce_with_logits"), output, target}});
  // Where the loss is small its float32 has all its digits: PyTorch's sum of two that cancel has not.
  const at::Tensor z = at::full({1, 1}, -20, at::kFloat);
  EXPECT_NEAR(row_loss(options("bce_with_logits"), z, at::zeros_like(z), {})->prepare(z.clone(), 0),
              std::log1p(std::exp(-20.0)), 1e-15);
}

/// Logarithms are at least -100, and constant there. Autograd's own numbers stand beside these where they are finite.
TEST(Elements, ProbabilitiesOfZeroAndOne) {
  const at::Tensor p = values({0, 1e-300, 1e-44, 1e-43, 1e-20, 1e-10, 0.5, 1 - 1e-16, 1}).repeat({3}).view({27, 1});
  const at::Tensor t = values({0, 0.5, 1}).repeat_interleave(9).view({27, 1});
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    const at::Tensor output = p.to(dtype), target = t.to(dtype), tangents = at::ones({1, 27, 1}, output.options());
    const Derivatives exact = expected(options("bce"), output, target, {}, tangents);
    const Derivatives found = by_rows(*row_loss(options("bce"), output, target, {}), output, tangents, 7);
    const double relative = dtype == at::kDouble ? 1e-13 : 1e-6;
    EXPECT_NEAR(found.value, exact.value, relative * exact.value);
    EXPECT_TRUE(at::allclose(found.adjoint, exact.adjoint, relative, 0)) << at::cat({found.adjoint, exact.adjoint}, 1);
    EXPECT_TRUE(at::allclose(found.adjoint_tangent, exact.adjoint_tangent, relative, 0))
        << at::cat({found.adjoint_tangent[0], exact.adjoint_tangent[0]}, 1);
  }
}

/// Programs that cast their outputs.
TEST(Outputs, OfHalfPrecision) {
  const at::Tensor output = at::randn({15, 6}, at::kDouble), target = at::rand({15, 6}, at::kDouble);
  LossOptions smooth = options("cross_entropy");
  smooth.label_smoothing = 0.125;
  smooth.class_weights = values({0.5, 1, 2, 1, 1, 0.25});
  std::vector<Case> cases{{"classes", smooth, output, some_classes({15}, 6)},
                          {"probabilities", smooth, output, some_probabilities({15, 6})},
                          {"nll", options("nll"), output.log_softmax(1), some_classes({15}, 6)},
                          {"bce", options("bce"), target * 0.8 + 0.1, target},
                          {"bce_with_logits", options("bce_with_logits"), output, target}};
  for (const char* name : {"mse", "l1", "smooth_l1", "huber"})
    cases.push_back({name, options(name), output, target + output.sign()});
  for (Case& c : cases) {
    c.weight = values({1, 0.25, 2}).repeat({5});
    for (const at::ScalarType dtype : {at::kHalf, at::kBFloat16}) check(c, dtype, 7, 2);
  }
}

TEST(Outputs, AloneHaveNoTarget) { EXPECT_THROW(row_loss(options("output"), at::zeros({1}), {}, {}), UsageError); }

/// Loss `output` of a program's first output: the sum, and the gradient with respect to the parameters.
void check_output_rows(const char* fixture_name, Reduction reduction, std::int64_t rows) {
  const test::Fixture fixture(fixture_name);
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  LossOptions loss = options("output");
  loss.reduction = reduction;
  const LocalLoss local(program, fixture.shard(program), loss, 0);
  const MicroBatch batch = local.unchecked_batch({0, rows});
  at::AutoGradMode grad(true);
  const auto gradient = [&](const at::Tensor& sum) {
    std::vector<at::Tensor> flat;
    for (const at::Tensor& g : torch::autograd::grad({sum}, program.parameters())) flat.push_back(g.reshape({-1}));
    return at::cat(flat);
  };
  const LossSum sum = output_loss(program, loss, 0, batch);
  const at::Tensor exact = gradient(sum.sum);
  const std::vector<at::Tensor> outputs = program.run(batch.inputs);
  const at::Tensor output = output_of(program, outputs, 0, batch, true);
  const double count = output_count(program, loss, outputs, batch);
  EXPECT_EQ(count, sum.count);
  const at::Tensor tangents = at::randn_like(output.detach()).unsqueeze(0);
  const auto objective = output_rows(program, loss, 0, output.detach(), count);
  const Derivatives found = by_rows(*objective, output.detach(), tangents, kAll);
  EXPECT_NEAR(found.value, sum.sum.item<double>(), 1e-12 * std::abs(found.value));
  expect_near(gradient((output * found.adjoint).sum()), exact, 1e-12, fixture_name);
  EXPECT_TRUE(found.adjoint_tangent.eq(0).all().item<bool>());
  EXPECT_FALSE(objective->is_curved());
}

TEST(Outputs, ThatAreTheLoss) {
  check_output_rows("own_loss", Reduction::kMean, 7);
  check_output_rows("own_loss", Reduction::kSum, 7);
  // One loss a row, of fewer rows than the program takes.
  check_output_rows("static_batch", Reduction::kMean, 3);
}

}  // namespace
}  // namespace hesspect::row_loss_test
