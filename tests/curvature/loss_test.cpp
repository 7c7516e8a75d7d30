// What a loss refuses, and in which words; its terms at the edges, where PyTorch's fixtures don't come.
#include "hesspect/curvature/loss.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <limits>

#include "hesspect/core/errors.h"

namespace hesspect::loss_test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

LossOptions options(const char* name) {
  LossOptions loss;
  loss.kind = loss_kind_from(name);
  return loss;
}

at::Tensor values(std::vector<double> numbers) { return at::tensor(numbers, at::kDouble); }
at::Tensor classes(std::vector<std::int64_t> numbers) { return at::tensor(numbers, at::kLong); }
at::Tensor output(std::vector<std::int64_t> shape) { return at::zeros(shape, at::kDouble); }

/// The line of the InputError that an action ends with; "" where it ends well.
template <class Action>
std::string input_error(Action&& action) {
  try {
    action();
  } catch (const InputError& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.what();
  }
  return "";
}

/// The line that check_target ends with for rows 100 and on; "" where it takes the target.
std::string refused_target(const LossOptions& loss, const at::Tensor& output, const at::Tensor& target) {
  return input_error([&] { check_target(loss, output, target, 100); });
}
std::string refused_weight(const LossOptions& loss, const at::Tensor& output, const at::Tensor& weight) {
  return input_error([&] { check_weight(loss, output, weight, 100); });
}

TEST(LossNames, KnownAndNear) {
  for (const char* name : {"cross_entropy", "causal_lm", "masked_lm", "nll", "mse", "l1", "smooth_l1", "huber", "bce",
                           "bce_with_logits", "output"})
    EXPECT_EQ(to_string(loss_kind_from(name)), name);
  EXPECT_THROW(loss_kind_from("smooth_l2"), UsageError);
}

TEST(Targets, Probabilities) {
  const LossOptions loss = options("cross_entropy");
  const auto rows = [](double a, double b, double c) {
    return at::stack({values({0.5, 0.25, 0.25}), values({a, b, c})});
  };
  const std::string expected = "; expected probabilities: not negative, and 1 in sum over the classes";
  EXPECT_EQ(refused_target(loss, output({2, 3}), rows(0, 1, 0)), "");
  EXPECT_EQ(refused_target(loss, output({2, 3}), rows(0.2, 0.3, 0.5005)), "");
  EXPECT_EQ(refused_target(loss, output({2, 3}), rows(0.2, -0.25, 1.05)),
            "cross_entropy: a target in row 101 is -0.25" + expected);
  EXPECT_EQ(refused_target(loss, output({2, 3}), rows(0.2, kNan, 0.8)),
            "cross_entropy: a target in row 101 is nan" + expected);
  EXPECT_EQ(
      refused_target(loss, output({2, 3}), rows(0.2, 0.3, 0.4)),
      "cross_entropy: targets in row 101 sum to 0.9 over the classes" + expected + " (--loss-weight weighs rows)");
  // Over the classes, which are in dimension 1, not last.
  EXPECT_EQ(refused_target(loss, output({2, 2, 3}), at::full({2, 2, 3}, 0.5)), "");
  // What bfloat16 makes of 1/3 and 2/3 sums to 1.00195.
  const at::Tensor rounded = values({1.0 / 3, 2.0 / 3}).unsqueeze(0).to(at::kBFloat16);
  EXPECT_EQ(refused_target(loss, output({1, 2}), rounded), "");
  EXPECT_NE(refused_target(loss, output({1, 2}), rounded.to(at::kDouble)), "");
}

TEST(Targets, ProbabilitiesWhereTheyDontBelong) {
  EXPECT_EQ(
      refused_target(options("cross_entropy"), output({2, 3}), values({0, 1})),
      "cross_entropy: targets have shape [2] and the model's output [2, 3], and targets are Double; expected integer "
      "class indices [N, …], or probabilities of the output's shape");
  EXPECT_EQ(
      refused_target(options("cross_entropy"), output({2, 3}), at::eye(3, at::kLong).narrow(0, 0, 2)),
      "cross_entropy: targets have shape [2, 3] and the model's output [2, 3]; expected output [N, C, …] with the "
      "classes in dimension 1 and targets [N, …] of class indices, or floating targets [N, C, …] of probabilities");
  EXPECT_EQ(refused_target(options("nll"), output({1, 2}), values({0.5, 0.5}).unsqueeze(0)),
            "nll: targets are Double; expected integer class indices (cross_entropy takes probabilities, and logits)");
  EXPECT_EQ(refused_target(options("masked_lm"), output({1, 1, 2}), at::full({1, 1, 2}, 0.5)),
            "masked_lm: targets are Float; expected integer class indices (cross_entropy takes probabilities, with the "
            "classes in dimension 1)");
  LossOptions ignoring = options("cross_entropy");
  ignoring.ignore_index = 0;
  EXPECT_EQ(refused_target(ignoring, output({1, 2}), values({0.5, 0.5}).unsqueeze(0)),
            "cross_entropy: --ignore-index 0 is for targets that are class indices; these are probabilities "
            "(--loss-weight leaves rows out)");
}

TEST(Targets, ClassesAndElements) {
  EXPECT_EQ(refused_target(options("masked_lm"), output({2, 2, 3}), classes({0, 1, 2, 3}).view({2, 2})),
            "target in row 101 is 3, but the model has 3 classes: expected 0 to 2, or the ignored index -100");
  EXPECT_EQ(refused_target(options("masked_lm"), output({2, 3}), classes({0, 1})),
            "masked_lm: the model's output has shape [2, 3]; expected [N, T, C] with the classes last");
  EXPECT_EQ(refused_target(options("masked_lm"), output({2, 4, 3}), classes({0, 1})),
            "masked_lm: targets have shape [2] and the model's output [2, 4, 3]; expected targets [N, T] and output "
            "[N, T, C]");
  EXPECT_EQ(refused_target(options("nll"), output({2}), classes({0, 1})),
            "nll: the model's output has shape [2]; expected [N, C, …] with the classes in dimension 1");
  EXPECT_EQ(refused_target(options("bce"), output({2}), values({0.5, 1.5})),
            "bce: targets lie outside [0, 1]: one in row 101 is 1.5");
  EXPECT_EQ(refused_target(options("huber"), output({2, 2}), values({0, 1})),
            "huber: targets have shape [2] and the model's output [2, 2]; expected the same shape");
  EXPECT_EQ(refused_target(options("huber"), output({2, 1}), values({0, 1})), "");
}

TEST(Weights, OfRowsAndTerms) {
  const LossOptions loss = options("cross_entropy");
  const at::Tensor logits = output({2, 5, 3, 4});  // terms [2, 3, 4]
  const at::Tensor rows = check_weight(loss, logits, values({1, 2}), 0);
  EXPECT_EQ(rows.sizes(), (at::IntArrayRef{2, 3, 4}));
  EXPECT_TRUE(rows[1].eq(2).all().item<bool>());
  EXPECT_EQ(check_weight(loss, logits, at::ones({2, 3}), 0).sizes(), (at::IntArrayRef{2, 3, 4}));
  EXPECT_EQ(check_weight(loss, logits, at::ones({2, 1, 4}), 0).sizes(), (at::IntArrayRef{2, 3, 4}));
  EXPECT_EQ(check_weight(options("mse"), output({2}), at::ones({2, 1}), 0).sizes(), (at::IntArrayRef{2}));
  EXPECT_EQ(
      refused_weight(loss, logits, at::ones({2, 4})),
      "cross_entropy: weights have shape [2, 4] and the loss has terms [2, 3, 4]; expected a weight for each row, "
      "[N], or for each term");
  EXPECT_NE(refused_weight(loss, logits, at::ones({2, 5, 3, 4})), "");
  EXPECT_EQ(refused_weight(loss, logits, values({1, -2})),
            "a weight of the loss in row 101 is -2; expected finite weights that are not negative");
  EXPECT_NE(refused_weight(loss, logits, values({kNan, 1})), "");
  // Infinite as float32, where the model runs in that.
  EXPECT_EQ(refused_weight(loss, logits, values({1e60, 1})), "");
  EXPECT_NE(refused_weight(loss, logits.to(at::kFloat), values({1e60, 1})), "");
}

TEST(Weights, OfClassesAndPositives) {
  LossOptions loss = options("nll");
  loss.class_weights = values({1, 2});
  EXPECT_EQ(input_error([&] {
              fit_loss(loss, output({4, 3}));
            }),
            "--class-weights has shape [2], but the model has 3 classes: expected a weight for each, [3]");
  EXPECT_EQ(fit_loss(loss, output({4, 2}).to(at::kFloat)).class_weights.scalar_type(), at::kFloat);

  LossOptions positive = options("bce_with_logits");
  const auto refused = [&](std::vector<std::int64_t> output_shape, std::vector<std::int64_t> shape) {
    positive.pos_weight = at::ones(shape, at::kDouble);
    return input_error([&] { fit_loss(positive, output(output_shape)); });
  };
  EXPECT_EQ(refused({4, 3}, {3}), "");
  EXPECT_EQ(refused({4, 3}, {1}), "");
  EXPECT_EQ(refused({4}, {1}), "");
  EXPECT_EQ(refused({4, 3, 2, 2}, {3, 1, 1}), "");
  EXPECT_EQ(refused({4, 3}, {1, 3}), "");
  const std::string why =
      "; expected the shape of its last dimensions, or 1 in place of any, without the rows "
      "(--loss-weight weighs rows)";
  EXPECT_EQ(refused({4, 3}, {2}), "--pos-weight has shape [2] and the model's output [4, 3]" + why);
  EXPECT_EQ(refused({4}, {4}), "--pos-weight has shape [4] and the model's output [4]" + why);
  EXPECT_EQ(refused({4, 3}, {4, 3}), "--pos-weight has shape [4, 3] and the model's output [4, 3]" + why);
  EXPECT_EQ(refused({4}, {4, 1}), "--pos-weight has shape [4, 1] and the model's output [4]" + why);
}

TEST(Outputs, ThatAreNotWhatTheLossTakes) {
  const auto refused = [](const char* name, const at::Tensor& values) {
    return input_error([&] { check_output(options(name), values, 100); });
  };
  EXPECT_EQ(refused("bce", values({0, 0.5, 1})), "");
  EXPECT_EQ(refused("bce", values({0, 1.25})),
            "bce: the model's output in row 101 is 1.25; expected probabilities in [0, 1] (for logits, --loss "
            "bce_with_logits)");
  EXPECT_NE(refused("bce", values({kNan})), "");
  EXPECT_EQ(refused("nll", at::log_softmax(at::randn({4, 3}), 1)), "");
  EXPECT_EQ(
      refused("nll", values({-1, 2, -1, -2}).view({2, 2})),
      "nll: the model's output in row 100 is 2; expected log-probabilities, none above 0, as log_softmax gives (for "
      "logits, --loss cross_entropy)");
  EXPECT_EQ(refused("mse", values({1e9})), "");
}

/// Value, first and second derivative of a one-row loss in a scalar z that the output is a function of.
struct Derivatives {
  double value, first, second;
};
template <class Function>
Derivatives derivatives(const char* loss, double z, double target, Function output) {
  at::AutoGradMode grad(true);
  const at::Tensor x = values({z}).requires_grad_(true);
  const at::Tensor value = loss_sum(options(loss), output(x), values({target}), {});
  const at::Tensor first = torch::autograd::grad({value}, {x}, {}, true, true)[0];
  const at::Tensor second = torch::autograd::grad({first}, {x}, {}, {}, false, true)[0];
  return {value.item<double>(), first.item<double>(), second.defined() ? second.item<double>() : 0};
}
const auto kItself = [](const at::Tensor& x) { return x; };

/// A network that is sure of the wrong class: in z it is the loss of logits. PyTorch's own second derivative of bce is
/// -0.75 here.
TEST(Bce, SureOfTheWrongClass) {
  const auto sigmoid = [](const at::Tensor& x) { return x.sigmoid(); };
  for (const double z : {-28.0, -20.0, -3.0, 0.5, 6.0})
    for (const double target : {0.0, 0.3, 1.0}) {
      const Derivatives found = derivatives("bce", z, target, sigmoid);
      const double p = 1 / (1 + std::exp(-z));
      EXPECT_NEAR(found.first, p - target, 1e-12) << z << " " << target;
      EXPECT_NEAR(found.second, p * (1 - p), 1e-12) << z << " " << target;
    }
}

/// Logarithms of no less than -100, as PyTorch has them, and no derivative that is 0 · inf.
TEST(Bce, ProbabilitiesOfZeroAndOne) {
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat})
    for (const double p : {0.0, 1.0})
      for (const double target : {0.0, 0.5, 1.0}) {
        const at::Tensor output = values({p}).to(dtype), t = values({target}).to(dtype);
        EXPECT_EQ(loss_sum(options("bce"), output, t, {}).item<double>(),
                  at::binary_cross_entropy(output, t).item<double>());
        const Derivatives found = derivatives("bce", p, target, kItself);
        EXPECT_TRUE(std::isfinite(found.first) && std::isfinite(found.second)) << p << " " << target;
      }
}

TEST(Elements, BothSidesOfTheKink) {
  LossOptions loss = options("smooth_l1");
  EXPECT_EQ(derivatives("smooth_l1", 0.5, 0, kItself).second, 1);
  EXPECT_EQ(derivatives("smooth_l1", 1.5, 0, kItself).second, 0);
  EXPECT_EQ(derivatives("huber", 0.5, 0, kItself).second, 1);
  EXPECT_EQ(derivatives("huber", 1.5, 0, kItself).second, 0);
  EXPECT_EQ(derivatives("l1", 0.5, 0, kItself).second, 0);
  loss.beta = 0.25;
  EXPECT_EQ(loss_sum(loss, values({0.5, 0.125}), values({0, 0}), {}).item<double>(), 0.375 + 0.03125);
}

/// Programs that cast their outputs: every loss, with all that it takes, twice differentiable.
TEST(Outputs, OfHalfPrecision) {
  at::AutoGradMode grad(true);
  for (const char* name : {"cross_entropy", "nll", "mse", "l1", "smooth_l1", "huber", "bce", "bce_with_logits"})
    for (const at::ScalarType dtype : {at::kHalf, at::kBFloat16}) {
      LossOptions loss = options(name);
      const bool of_classes = loss.kind == LossKind::kCrossEntropy || loss.kind == LossKind::kNll;
      const at::Tensor exact = at::linspace(0.1, 0.9, 12, at::kDouble).view({4, 3});
      const at::Tensor target = of_classes ? classes({0, 2, 1, -100}) : at::full({4, 3}, 0.25, at::kDouble);
      if (of_classes) loss.class_weights = values({0.5, 2, 1});
      if (loss.kind == LossKind::kCrossEntropy) loss.label_smoothing = 0.125;
      if (loss.kind == LossKind::kBceWithLogits) loss.pos_weight = values({0.5, 2, 1});
      const auto mean = [&](const at::Tensor& output) {
        const LossOptions fitted = fit_loss(loss, output);
        const at::Tensor t = check_target(fitted, output, target, 0);
        const at::Tensor w = check_weight(fitted, output, values({1, 0.25, 2, 1}), 0);
        return loss_sum(fitted, output, t, w) / loss_count(fitted, t, w);
      };
      const at::Tensor x = exact.to(dtype).requires_grad_(true);
      const at::Tensor value = mean(x);
      const double expected = mean(exact).item<double>();
      EXPECT_NEAR(value.item<double>(), expected, 0.02 * std::abs(expected)) << name;
      const at::Tensor first = torch::autograd::grad({value}, {x}, {}, true, true)[0];
      EXPECT_EQ(first.scalar_type(), dtype);
      if (first.requires_grad()) {
        EXPECT_NO_THROW(torch::autograd::grad({first.sum()}, {x}, {}, {}, false, true)) << name;
      }
    }
}

/// Weights that float32 rounds: all equal, they must not change the mean.
TEST(Counts, AreOfTheWeightsThatTheSumHas) {
  const at::Tensor x = at::randn({50, 3}, at::kBFloat16), t = at::randn({50, 3}, at::kBFloat16);
  const at::Tensor w = check_weight(options("mse"), x, at::full({50}, 0.1, at::kDouble), 0);
  EXPECT_EQ(loss_count(options("mse"), t, w), 150 * w[0][0].item<double>());
  // More ones than float32 can count.
  const at::Tensor many = at::ones({1}).expand({20'000'001});
  EXPECT_EQ(loss_count(options("mse"), many, many), 20'000'001);
}

}  // namespace
}  // namespace hesspect::loss_test
