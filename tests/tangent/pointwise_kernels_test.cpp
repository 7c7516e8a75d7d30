#include <ATen/Parallel.h>

#include <cmath>
#include <limits>

#include "kernel_oracle.h"

namespace hesspect::pointwise_kernels_test {
namespace {

using fused::Function;

class PointwiseKernels : public KernelTest {};
HESSPECT_ON_ALL_MACHINES(PointwiseKernels);

enum class Domain { kAll, kPositive, kAboveMinus1 };

struct FunctionCase {
  const char* name;
  Function function;
  std::array<double, 3> parameters;
  std::function<at::Tensor(const at::Tensor&)> composed;
  Domain domain = Domain::kAll;
};

std::vector<FunctionCase> function_cases() {
  using T = const at::Tensor&;
  const double selu_alpha = 1.6732632423543772848, selu_scale = 1.0507009873554804934;
  return {
      {"gelu", Function::kGelu, {}, [](T x) { return at::gelu(x, "none"); }},
      {"gelu_tanh", Function::kGeluTanh, {}, [](T x) { return at::gelu(x, "tanh"); }},
      {"silu", Function::kSilu, {}, [](T x) { return at::silu(x); }},
      {"tanh", Function::kTanh, {}, [](T x) { return at::tanh(x); }},
      {"sigmoid", Function::kSigmoid, {}, [](T x) { return at::sigmoid(x); }},
      {"relu", Function::kRelu, {}, [](T x) { return at::relu(x); }},
      {"leaky_relu", Function::kLeakyRelu, {0.1}, [](T x) { return at::leaky_relu(x, 0.1); }},
      {"elu", Function::kElu, {1.3, 0.7, 1.9}, [](T x) { return at::elu(x, 1.3, 0.7, 1.9); }},
      {"selu", Function::kElu, {selu_alpha, selu_scale, 1}, [](T x) { return at::selu(x); }},
      {"softplus", Function::kSoftplus, {2, 4}, [](T x) { return at::softplus(x, 2, 4); }},
      {"exp", Function::kExp, {}, [](T x) { return at::exp(x); }},
      {"log", Function::kLog, {}, [](T x) { return at::log(x); }, Domain::kPositive},
      {"sqrt", Function::kSqrt, {}, [](T x) { return at::sqrt(x); }, Domain::kPositive},
      {"rsqrt", Function::kRsqrt, {}, [](T x) { return at::rsqrt(x); }, Domain::kPositive},
      {"sin", Function::kSin, {}, [](T x) { return at::sin(x); }},
      {"cos", Function::kCos, {}, [](T x) { return at::cos(x); }},
      {"square", Function::kSquare, {}, [](T x) { return at::pow(x, 2); }},
      {"cube", Function::kCube, {}, [](T x) { return at::pow(x, 3); }},
      {"reciprocal", Function::kReciprocal, {}, [](T x) { return at::reciprocal(x); }, Domain::kPositive},
      {"pow", Function::kPow, {2.5}, [](T x) { return at::pow(x, 2.5); }, Domain::kPositive},
      {"pow_1", Function::kPow, {1}, [](T x) { return at::pow(x, 1); }},
      {"pow_4", Function::kPow, {4}, [](T x) { return at::pow(x, 4); }},
      {"log1p", Function::kLog1p, {}, [](T x) { return at::log1p(x); }, Domain::kAboveMinus1},
      {"expm1", Function::kExpm1, {}, [](T x) { return at::expm1(x); }},
      {"erf", Function::kErf, {}, [](T x) { return at::erf(x); }},
      {"mish", Function::kMish, {}, [](T x) { return at::mish(x); }},
      {"hardswish", Function::kHardswish, {}, [](T x) { return at::hardswish(x); }},
      {"hardsigmoid", Function::kHardsigmoid, {}, [](T x) { return at::hardtanh(x + 3, 0, 6) / 6; }},
      {"hardtanh", Function::kHardtanh, {-2, 3}, [](T x) { return at::hardtanh(x, -2, 3); }},
      {"clamp", Function::kClamp, {-2, 3}, [](T x) { return at::clamp(x, -2, 3); }},
      {"log_sigmoid", Function::kLogSigmoid, {}, [](T x) { return at::log_sigmoid(x); }},
      {"abs", Function::kAbs, {}, [](T x) { return at::abs(x); }},
  };
}

at::Tensor inputs_of(Domain domain) {
  // Odd counts, beyond a unit of 4096; the integers from −6 to 6 are among them, and so all kinks.
  const at::Tensor x = at::cat({at::linspace(-6, 6, 13, at::kDouble), at::linspace(-9.7, 9.3, 5000, at::kDouble)});
  if (domain == Domain::kPositive) return x.abs() + 0.25;
  if (domain == Domain::kAboveMinus1) return x.abs() - 0.875;
  return x;
}

TEST_P(PointwiseKernels, ValuesAndDerivativesAreAutograds) {
  for (const FunctionCase& each : function_cases()) {
    SCOPED_TRACE(each.name);
    const at::Tensor values = inputs_of(each.domain).to(GetParam().type).to(at::kDouble);
    const at::Tensor x = values.clone().requires_grad_(), y_bar = random(values.sizes());
    const at::Tensor expected_y = each.composed(x);
    const at::Tensor f1 =
        adjoint_of([&](const Tensors& in) { return Tensors{each.composed(in[0])}; }, {x}, {at::ones_like(x)})[0];
    const at::Tensor f2 =
        f1.requires_grad()
            ? zeros_where_undefined(torch::autograd::grad({f1}, {x}, {y_bar}, false, false, true), {x})[0]
            : at::zeros_like(x);
    const at::Tensor got_y = room(x.sizes()), got_f1 = room(x.sizes()), got_f2 = room(x.sizes()), none;
    const at::Tensor got_x_bar = given(y_bar);  // in place
    fused::pointwise({each.function, given(x), none, got_y, got_f1, none, none, each.parameters});
    fused::pointwise({each.function, given(x), got_x_bar, none, none, got_f2, got_x_bar, each.parameters});
    expect_close(got_y, expected_y.detach(), "y", 8);
    expect_close(got_f1, f1.detach(), "f1", 16);
    expect_close(got_f2, f2, "f2", 32);
    expect_close(got_x_bar, y_bar * f1.detach(), "x_bar", 16);

    // Any subset of the results.
    const at::Tensor y = given(x), only_f1 = room(x.sizes()), only_f2 = room(x.sizes()), only_x_bar = room(x.sizes());
    fused::pointwise({each.function, given(x), none, none, only_f1, none, none, each.parameters});
    fused::pointwise({each.function, given(x), given(y_bar), none, none, only_f2, none, each.parameters});
    fused::pointwise({each.function, given(x), given(y_bar), none, none, none, only_x_bar, each.parameters});
    fused::pointwise({each.function, y, none, y, none, none, none, each.parameters});
    expect_close(y, expected_y.detach(), "y alone", 8);
    expect_close(only_f1, f1.detach(), "f1 alone", 16);
    expect_close(only_f2, f2, "f2 alone", 32);
    expect_close(only_x_bar, y_bar * f1.detach(), "x_bar alone", 16);
  }
}

/// At each element, over the whole range: within a few units in the last place.
TEST_P(PointwiseKernels, ElementaryFunctionsAreRightEverywhere) {
  const std::pair<double, double> ranges[] = {{-86, 88}, {-1, 1}, {-1e-3, 1e-3}, {-1e-20, 1e-20}, {-20, 20}};
  for (const FunctionCase& each : function_cases()) {
    const bool elementary = each.function == Function::kExp || each.function == Function::kExpm1 ||
                            each.function == Function::kTanh || each.function == Function::kErf ||
                            each.function == Function::kLog || each.function == Function::kLog1p ||
                            each.function == Function::kSigmoid;
    if (!elementary) continue;
    for (const auto& [low, high] : ranges) {
      at::Tensor x = at::linspace(low, high, 30011, at::kDouble);
      if (each.domain == Domain::kPositive) x = at::exp(x);  // to the smallest and largest normal numbers
      if (each.domain == Domain::kAboveMinus1) x = low < -1 ? at::exp(x) : x.clamp_min(-0.999999);
      const at::Tensor value = given(x), y = room(x.sizes()), none;
      fused::pointwise({each.function, value, none, y, none, none, none, each.parameters});
      const at::Tensor expected = each.composed(value.to(at::kCPU, at::kDouble));
      const at::Tensor error = (y.to(at::kCPU, at::kDouble) - expected).abs() / expected.abs().clamp_min(1e-37);
      EXPECT_LT(error.max().item<double>(), GetParam().type == at::kDouble ? 1e-15 : 4 * 6e-8)
          << each.name << " at " << value.flatten()[error.argmax().item<std::int64_t>()].item<double>();
    }
  }
}

TEST_P(PointwiseKernels, WhatIsNotFiniteIsPassedOn) {
  const double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  const at::Tensor x =
      at::tensor({infinity, -infinity, nan, 0.0, -0.0, -1.0, -1000.0, 1000.0, 1e30, -1e30, nan}, at::kDouble);
  for (const FunctionCase& each : function_cases()) {
    if (each.function == Function::kHardswish) continue;  // ATen has NaN at −∞, we have 0
    const at::Tensor y = room(x.sizes()), f1 = room(x.sizes()), none;
    fused::pointwise({each.function, given(x), none, y, f1, none, none, each.parameters});
    const at::Tensor expected = each.composed(given(x).to(at::kCPU, at::kDouble)).to(GetParam().type).to(at::kDouble);
    EXPECT_TRUE(at::allclose(y.to(at::kCPU, at::kDouble), expected, 1e-5, 1e-30, /*equal_nan=*/true))
        << each.name << '\n'
        << y << '\n'
        << expected;
  }
}

TEST_P(PointwiseKernels, TangentsAreSumsOfProducts) {
  for (const std::int64_t n : {1, 4096, 9001})
    for (const std::int64_t tangents : {1, 3}) {
      const at::Tensor f = random({n}), g = random({n}), a = random({tangents, n}), b = random({tangents, n}), none;
      const at::Tensor before = random({tangents, n});
      for (const bool add : {false, true}) {
        at::Tensor out = given(before);
        const at::Tensor base = add ? before : at::zeros_like(before);
        fused::pointwise_tangent({given(f), given(a), given(g), given(b), out, add});
        expect_close(out, base + f * a + g * b, "both", 4);
        out = given(before);
        fused::pointwise_tangent({given(f), given(a), none, none, out, add});
        expect_close(out, base + f * a, "first", 4);
        out = given(before);
        fused::pointwise_tangent({given(f), none, given(g), given(b), out, add});
        expect_close(out, base + g * b, "second", 4);
        out = given(before);
        fused::pointwise_tangent({none, none, none, none, out, add});
        expect_close(out, base, "none", 4);
      }
      const at::Tensor in_place = given(b);
      fused::pointwise_tangent({given(f), given(a), given(g), in_place, in_place, false});
      expect_close(in_place, f * a + g * b, "in place", 4);
    }
}

TEST_P(PointwiseKernels, OneAndTwoThreadsGiveTheSameBits) {
  if (GetParam().device != at::kCPU) GTEST_SKIP() << "of CPUs";
  const at::Tensor x = given(random({100'003})), none;
  const auto values = [&](int threads) {
    at::set_num_threads(threads);
    const at::Tensor y = at::empty_like(x);
    fused::pointwise({Function::kGelu, x, none, y, none, none, none, {}});
    at::set_num_threads(1);
    return y;
  };
  EXPECT_TRUE(at::equal(values(1), values(2)));
}

}  // namespace
}  // namespace hesspect::pointwise_kernels_test
