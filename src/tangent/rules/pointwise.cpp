// Functions of each entry alone: y_dot = f'(x) x_dot, x_bar_dot = f'(x) y_bar_dot + f''(x) y_bar x_dot.
#include <ATen/ATen.h>

#include <array>
#include <limits>
#include <map>
#include <optional>

#include "../registry.h"
#include "../stacked.h"
#include "fused_sum.h"
#include "hesspect/tangent/kernels.h"

namespace hesspect {
namespace {

using fused::Function;

struct Known {
  Function function;
  std::array<double, 3> parameters{};
};

double number(const Arguments& arguments, std::size_t i, double otherwise) {
  return i < arguments.values.size() && arguments.values[i].isScalar() ? arguments.values[i].toScalar().toDouble()
                                                                       : otherwise;
}

std::optional<Known> power(double exponent) {
  if (exponent == 2) return Known{Function::kSquare};
  if (exponent == 3) return Known{Function::kCube};
  if (exponent == -1) return Known{Function::kReciprocal};
  if (exponent == 0.5) return Known{Function::kSqrt};
  if (exponent == -0.5) return Known{Function::kRsqrt};
  return Known{Function::kPow, {exponent}};
}

/// The function that an op is, with its parameters; nothing where these are not numbers.
std::optional<Known> function_of(const Arguments& arguments) {
  static const std::map<std::string, Function, std::less<>> plain = {{"silu", Function::kSilu},
                                                                     {"tanh", Function::kTanh},
                                                                     {"sigmoid", Function::kSigmoid},
                                                                     {"exp", Function::kExp},
                                                                     {"log", Function::kLog},
                                                                     {"sqrt", Function::kSqrt},
                                                                     {"rsqrt", Function::kRsqrt},
                                                                     {"sin", Function::kSin},
                                                                     {"cos", Function::kCos},
                                                                     {"square", Function::kSquare},
                                                                     {"log1p", Function::kLog1p},
                                                                     {"reciprocal", Function::kReciprocal},
                                                                     {"expm1", Function::kExpm1},
                                                                     {"erf", Function::kErf},
                                                                     {"mish", Function::kMish},
                                                                     {"hardswish", Function::kHardswish},
                                                                     {"abs", Function::kAbs},
                                                                     {"hardsigmoid", Function::kHardsigmoid},
                                                                     {"log_sigmoid", Function::kLogSigmoid}};
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const c10::FunctionSchema& schema = arguments.instruction.op->schema();
  std::string name = schema.name().substr(6);
  if (name.ends_with('_')) name.pop_back();
  const auto at = [&](std::size_t i, double otherwise) { return number(arguments, i, otherwise); };
  if (const auto found = plain.find(name); found != plain.end()) return Known{found->second};
  if (name == "gelu") return Known{arguments.values[1].toStringRef() == "tanh" ? Function::kGeluTanh : Function::kGelu};
  if (name == "leaky_relu") return Known{Function::kLeakyRelu, {at(1, 0.01)}};
  if (name == "elu") return Known{Function::kElu, {at(1, 1), at(2, 1), at(3, 1)}};
  if (name == "celu") return Known{Function::kElu, {at(1, 1), 1, 1 / at(1, 1)}};
  if (name == "selu") return Known{Function::kElu, {1.6732632423543772, 1.0507009873554805, 1}};
  if (name == "softplus") return Known{Function::kSoftplus, {at(1, 1), at(2, 20)}};
  if (name == "hardtanh") return Known{Function::kHardtanh, {at(1, -1), at(2, 1)}};
  if (name == "relu6") return Known{Function::kHardtanh, {0, 6}};
  if (name == "pow" && arguments.values[1].isScalar()) return power(at(1, 1));
  const bool is_clamp = schema.overload_name().empty();  // others have tensors as bounds
  if (name == "clamp" && is_clamp) return Known{Function::kClamp, {at(1, -kInfinity), at(2, kInfinity)}};
  if (name == "clamp_min" && is_clamp) return Known{Function::kClamp, {at(1, 0), kInfinity}};
  if (name == "clamp_max" && is_clamp) return Known{Function::kClamp, {-kInfinity, at(1, 0)}};
  return std::nullopt;
}

bool takes_real(const Arguments& arguments) {
  if (!arguments.values[0].isTensor() || arguments.active_beyond({0})) return false;
  const at::ScalarType type = arguments.tensor(0).scalar_type();
  return type == at::kFloat || type == at::kDouble;
}

class Pointwise final : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) { return takes_real(arguments) && function_of(arguments).has_value(); }

  explicit Pointwise(Arguments arguments)
      : layout_(arguments.tensor(0)), x_(layout_.flat(arguments.tensor(0))), known_(*function_of(arguments)) {}

  std::vector<at::Tensor> value() override {
    at::Tensor y = at::empty_like(x_);
    f1_ = at::empty_like(x_);
    fused::pointwise({.function = known_.function, .x = x_, .y = y, .f1 = f1_, .parameters = known_.parameters});
    return {layout_.shaped(y)};
  }

  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    x_dot_ = layout_.flat(dots.at(0));
    const at::Tensor y_dot = at::empty_like(x_dot_);
    fused::pointwise_tangent({.f = f1_, .a = x_dot_, .out = y_dot});
    return {layout_.shaped(y_dot)};
  }

  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override {
    f2_ = at::empty_like(x_);
    const at::Tensor x_bar = at::empty_like(x_);
    fused::pointwise({.function = known_.function,
                      .x = x_,
                      .y_bar = layout_.flat(part(y_bar[0], 0)),
                      .f2 = f2_,
                      .x_bar = x_bar,
                      .parameters = known_.parameters});
    x_ = at::Tensor();
    sink.add(0, layout_.shaped(stacked_alone(x_bar)));
  }

  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    const at::Tensor x_dot = std::exchange(x_dot_, {});
    if (!y_bar_dot[0].defined() && !(x_dot.defined() && f2_.defined())) return;
    const at::Tensor q = layout_.flat(y_bar_dot[0]);
    const at::Tensor bend = f2_.defined() ? x_dot : at::Tensor();
    LaidSum sum(sink, 0, layout_, (q.defined() ? q : bend).sizes(), f1_.options());
    if (!sum.tensor().defined()) return;
    fused::pointwise_tangent({.f = f1_, .a = q, .g = f2_, .b = bend, .out = sum.tensor(), .add = sum.adds()});
    sum.close();
  }

 private:
  ImageLayout layout_;
  at::Tensor x_;
  Known known_;
  at::Tensor f1_, f2_, x_dot_;
};

/// relu(x): linear on either side of zero, which its value tells apart.
class Relu final : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) { return takes_real(arguments); }

  explicit Relu(Arguments arguments) : y_(at::relu(arguments.tensor(0))) {}

  std::vector<at::Tensor> value() override { return {y_}; }
  std::vector<at::Tensor> tangent(const Tangents& x_dot) override { return {passed(x_dot.at(0))}; }
  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override { sink.add(0, passed(y_bar[0])); }
  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    if (y_bar_dot[0].defined()) sink.add(0, passed(y_bar_dot[0]));
  }

 private:
  at::Tensor passed(const at::Tensor& t) const { return at::threshold_backward(t, y_, 0); }

  at::Tensor y_;
};

}  // namespace

const RuleTable& pointwise_rules() {
  static const RuleTable rules = {
      {{"silu",  "tanh",      "sigmoid",  "exp",         "log",         "sqrt",  "rsqrt",
        "sin",   "cos",       "square",   "log1p",       "reciprocal",  "expm1", "erf",
        "mish",  "hardswish", "abs",      "hardsigmoid", "log_sigmoid", "gelu",  "leaky_relu",
        "elu",   "celu",      "selu",     "softplus",    "hardtanh",    "relu6", "pow.Tensor_Scalar",
        "clamp", "clamp_min", "clamp_max"},
       make_rule<Pointwise>},
      {{"relu"}, make_rule<Relu>},
  };
  return rules;
}

}  // namespace hesspect
