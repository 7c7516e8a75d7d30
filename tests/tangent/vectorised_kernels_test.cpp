// That the kernels' loops are still vectorised. Once an innocent conditional in the exponential had kept GCC from it:
// all results were right, and a GELU took 25 times as long.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>

#include "hesspect/tangent/kernels.h"

namespace hesspect::vectorised_kernels_test {
namespace {

constexpr std::int64_t kRows = 128, kColumns = 256, kElements = kRows * kColumns;

/// The best of many, so that other processes don't count.
double best_seconds(const std::function<void()>& call) {
  double best = 1e9;
  for (int i = 0; i < 100; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    call();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

/// The C library's exponential, one number at a time. Vectorised loops mostly take less, others eight times as long.
double scalar_seconds() {
  const at::Tensor x = at::randn({kElements}), y = at::empty_like(x);
  const float* from = x.const_data_ptr<float>();
  float* to = y.mutable_data_ptr<float>();
  return best_seconds([&] {
    for (std::int64_t i = 0; i < kElements; ++i) {
      volatile float each = from[i];  // keeps the compiler from taking several at once
      to[i] = std::exp(each);
    }
  });
}

class VectorisedKernels : public ::testing::TestWithParam<fused::InstructionSet> {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_ADDRESS__) || !defined(__GNUC__) || defined(__clang__)
    GTEST_SKIP() << "of optimised builds by GCC";
#endif
    if (!fused::has(GetParam())) GTEST_SKIP() << "this machine lacks the instruction set";
    fused::use_instruction_set(GetParam());
  }
};
INSTANTIATE_TEST_SUITE_P(Sets, VectorisedKernels,
                         ::testing::Values(fused::InstructionSet::kAvx2, fused::InstructionSet::kAvx512));

TEST_P(VectorisedKernels, FunctionsOfFloat) {
  const double scalar = scalar_seconds();
  const at::Tensor x = at::rand({kElements}) + 0.5, y = at::empty_like(x), f1 = at::empty_like(x), none;
  for (int i = 0; i < static_cast<int>(fused::Function::kCount); ++i) {
    const auto function = static_cast<fused::Function>(i);
#if !defined(__GLIBC__)
    if (function == fused::Function::kSin || function == fused::Function::kCos) continue;
#endif
    if (function == fused::Function::kPow) continue;  // three powers each
    // Two exponentials, a logarithm and divisions.
    const bool long_one = function == fused::Function::kSoftplus || function == fused::Function::kMish ||
                          function == fused::Function::kLogSigmoid;
    const double limit = scalar * (long_one ? 4 : 1.5);
    const fused::Pointwise values{function, x, none, y, f1, none, none, {1, 2, 1}};
    const fused::Pointwise adjoints{function, x, y, none, none, f1, none, {1, 2, 1}};
    EXPECT_LT(best_seconds([&] { fused::pointwise(values); }), limit) << "function " << i;
    EXPECT_LT(best_seconds([&] { fused::pointwise(adjoints); }), limit) << "f'' of function " << i;
  }
}

TEST_P(VectorisedKernels, Rows) {
  const double scalar = scalar_seconds();
  const at::Tensor x = at::randn({kRows, kColumns}), y = at::empty_like(x), x_hat = at::empty_like(x), none;
  const at::Tensor r = at::empty({kRows}), m = at::zeros({kRows}), w = at::randn({kColumns}), lse = r.to(at::kDouble);
  const at::Tensor w_bar = at::zeros({kColumns}), sums = at::empty_like(lse);
  const auto quick = [&](const char* name, const std::function<void()>& call, double limit = 1.3) {
    EXPECT_LT(best_seconds(call), limit * scalar) << name;
  };
  quick("layer norm", [&] { fused::layer_norm({x, w, w, y, x_hat, r, kColumns, 1e-5, true}); });
  quick("its adjoint", [&] {
    fused::layer_norm_adjoint({x, w, x_hat, r, y, m, m, w_bar, none, kColumns, true, false});
  });
  for (const bool gauss_newton : {false, true})
    for (const bool add : {false, true})
      quick("its adjoint's tangent", [&] {
        fused::layer_norm_adjoint_tangent({x, gauss_newton ? none : x, gauss_newton ? none : x, m, m, w, none, x_hat, r,
                                           m, m, y, w_bar, w_bar, kColumns, 1, true, add});
      });
  quick(
      "softmax",
      [&] {
        fused::softmax({x, y, none, none, kColumns, 1, 1, 1.0, {}, false});
      },
      2.5);
  quick(
      "causal softmax",
      [&] {
        fused::softmax({x, y, none, none, kColumns, 1, 1, 1.0, {true, kRows, 0}, false});
      },
      2.5);
  quick(
      "its adjoint's tangent",
      [&] {
        fused::softmax_adjoint_tangent({x, x, x, r, x, y, kColumns, 1.0, {}});
      },
      2.5);
  quick(
      "cross entropy",
      [&] {
        fused::cross_entropy({x, none, none, none, y, lse, sums, none, none, kColumns});
      },
      2.5);
}

}  // namespace
}  // namespace hesspect::vectorised_kernels_test
