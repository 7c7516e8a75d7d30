// What the kernels' results should be: PyTorch's autograd in float64, of the op as ATen composes it.
//
// A kernel's four passes are y = f(x…), its tangent, its adjoint, and the adjoint's tangent. The last is the tangent of
// the function (x…, ȳ) → f's gradients; tangents come from two reverse passes.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <string>
#include <vector>

#include "hesspect/tangent/kernels.h"

namespace hesspect {

using Tensors = std::vector<at::Tensor>;
using Differentiable = std::function<Tensors(const Tensors& inputs)>;

inline Tensors leaves(const Tensors& values) {
  Tensors copies;
  for (const at::Tensor& value : values) copies.push_back(value.detach().clone().requires_grad_());
  return copies;
}

inline Tensors zeros_where_undefined(Tensors gradients, const Tensors& inputs) {
  for (std::size_t i = 0; i < gradients.size(); ++i)
    if (!gradients[i].defined()) gradients[i] = at::zeros_like(inputs[i]);
  return gradients;
}

/// J ᵀ ȳ, with a graph of its own.
inline Tensors adjoint_of(const Differentiable& f, const Tensors& inputs, const Tensors& y_bar) {
  return zeros_where_undefined(torch::autograd::grad(f(inputs), inputs, y_bar, true, true, true), inputs);
}

/// J ẋ: the derivative of ⟨Jᵀu, ẋ⟩ by u.
inline Tensors tangent_of(const Differentiable& f, const Tensors& at, const Tensors& x_dot) {
  const Tensors x = leaves(at), y = f(x);
  Tensors u;
  for (const at::Tensor& each : y) u.push_back(at::zeros_like(each).requires_grad_());
  const Tensors gradients = zeros_where_undefined(torch::autograd::grad(y, x, u, true, true, true), x);
  at::Tensor sum = at::zeros({}, at::kDouble);
  for (std::size_t i = 0; i < x.size(); ++i) sum = sum + (gradients[i] * x_dot[i]).sum();
  if (!sum.requires_grad()) return zeros_where_undefined(Tensors(u.size()), u);
  return zeros_where_undefined(torch::autograd::grad({sum}, u, {}, false, false, true), u);
}

inline Tensors with(Tensors all, const at::Tensor& last) {
  all.push_back(last);
  return all;
}

/// (d/dε) of J(x)ᵀ ȳ along ẋ and ȳ̇; f has one output.
inline Tensors adjoint_tangent_of(const Differentiable& f, const Tensors& x, const Tensors& x_dot,
                                  const at::Tensor& y_bar, const at::Tensor& y_bar_dot) {
  const Differentiable gradient = [&f](const Tensors& all) {
    return adjoint_of(f, Tensors(all.begin(), all.end() - 1), {all.back()});
  };
  return tangent_of(gradient, with(x, y_bar), with(x_dot, y_bar_dot));
}

/// Where kernels run, and in which type. One test runs on all of them that this machine has.
struct Machine {
  std::string name;
  at::DeviceType device;
  fused::InstructionSet set;
  at::ScalarType type;
};
inline std::ostream& operator<<(std::ostream& out, const Machine& machine) { return out << machine.name; }

inline std::vector<Machine> machines() {
  using fused::InstructionSet;
  std::vector<Machine> all;
  for (const auto& [set, name] :
       {std::pair{InstructionSet::kBaseline, "baseline"}, std::pair{InstructionSet::kAvx2, "avx2"},
        std::pair{InstructionSet::kAvx512, "avx512"}}) {
    all.push_back({std::string(name) + "_float", at::kCPU, set, at::kFloat});
    all.push_back({std::string(name) + "_double", at::kCPU, set, at::kDouble});
  }
  all.push_back({"cuda_float", at::kCUDA, InstructionSet::kBaseline, at::kFloat});
  all.push_back({"cuda_double", at::kCUDA, InstructionSet::kBaseline, at::kDouble});
  return all;
}

class KernelTest : public ::testing::TestWithParam<Machine> {
 protected:
  void SetUp() override {
    at::manual_seed(1);
    if (GetParam().device == at::kCUDA) {
      if (!at::hasCUDA()) GTEST_SKIP() << "no GPU";
    } else if (!fused::has(GetParam().set)) {
      GTEST_SKIP() << "this machine lacks the instruction set";
    } else {
      fused::use_instruction_set(GetParam().set);
    }
  }

  at::TensorOptions options() const { return at::TensorOptions().dtype(GetParam().type).device(GetParam().device); }

  /// Random values that the kernels' type can hold, in float64 on the CPU.
  at::Tensor random(at::IntArrayRef sizes) const {
    return at::randn(sizes, at::kDouble).to(GetParam().type).to(at::kDouble);
  }

  /// As the kernels take it, contiguous.
  at::Tensor given(const at::Tensor& value) const {
    return value.defined() ? value.detach().to(options()).contiguous().clone() : value;
  }
  at::Tensor room(at::IntArrayRef sizes) const { return at::full(sizes, 1e30, options()); }

  /// Compares with float64's, relative to the largest: to 1e-12, or 40 half-units of float32, where `ulps` is 40.
  void expect_close(const at::Tensor& got, const at::Tensor& expected, const std::string& what,
                    double ulps = 40) const {
    const at::Tensor on_cpu = got.detach().to(at::kCPU, at::kDouble).reshape(expected.sizes());
    ASSERT_TRUE(on_cpu.isfinite().all().item<bool>()) << what;
    const double scale = std::max(expected.numel() > 0 ? expected.abs().max().item<double>() : 0.0, 1e-3);
    const double error = expected.numel() > 0 ? (on_cpu - expected).abs().max().item<double>() : 0.0;
    EXPECT_LE(error, scale * ulps * (GetParam().type == at::kDouble ? 2.5e-14 : 6e-8)) << what;
  }
};

#define HESSPECT_ON_ALL_MACHINES(Test)                                      \
  INSTANTIATE_TEST_SUITE_P(Machines, Test, ::testing::ValuesIn(machines()), \
                           [](const ::testing::TestParamInfo<Machine>& test) { return test.param.name; })

}  // namespace hesspect
