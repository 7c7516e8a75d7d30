#include <ATen/Parallel.h>

#include <limits>

#include "kernel_oracle.h"

namespace hesspect::norm_kernels_test {
namespace {

class NormKernels : public KernelTest {};
HESSPECT_ON_ALL_MACHINES(NormKernels);

constexpr double kEps = 1e-5;

/// Layer norm or RMS norm of x, w, b as ATen composes them.
Differentiable composed(bool centred) {
  return [centred](const Tensors& in) -> Tensors {
    const at::Tensor c = centred ? in[0] - in[0].mean(-1, true) : in[0];
    return {c * (c.pow(2).mean(-1, true) + kEps).rsqrt() * in[1] + in[2]};
  };
}

struct Case {
  std::int64_t rows, columns, tangents;
  bool centred;
};
const std::vector<Case> kCases = {{1, 1, 1, true},    {5, 7, 3, true},      {70, 64, 1, true}, {129, 130, 3, true},
                                  {3, 2500, 3, true}, {129, 130, 3, false}, {4, 33, 1, false}};

TEST_P(NormKernels, ValueAdjointAndTangentsAreAutograds) {
  for (const auto& [rows, d, tangents, centred] : kCases) {
    SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(d) + "x" + std::to_string(tangents));
    const at::Tensor x = random({rows, d}), w = random({d}), b = random({d}), y_bar = random({rows, d});
    const at::Tensor x_dot = random({tangents, rows, d}), w_dot = random({tangents, d}), b_dot = random({tangents, d});
    const at::Tensor y_bar_dot = random({tangents, rows, d});
    const Differentiable f = composed(centred);
    // A single column's variance is zero: r is eps^-½, large, and each difference that should vanish counts as much.
    const double ulps = d == 1 ? 1e6 : 40;

    const at::Tensor y = room({rows, d}), x_hat = room({rows, d}), rstd = room({rows});
    fused::layer_norm({given(x), given(w), given(b), y, x_hat, rstd, d, kEps, centred});
    expect_close(y, f({x, w, b})[0], "y", ulps);

    const at::Tensor x_bar = room({rows, d}), m1 = room({rows}), m2 = room({rows});
    const at::Tensor w_before = random({d}), b_before = random({d});
    const at::Tensor w_bar = given(w_before), b_bar = given(b_before);
    fused::layer_norm_adjoint({given(y_bar), given(w), x_hat, rstd, x_bar, m1, m2, w_bar, b_bar, d, centred, false});
    const Tensors adjoint = adjoint_of(f, leaves({x, w, b}), {y_bar});
    expect_close(x_bar, adjoint[0], "x_bar", ulps);
    expect_close(w_bar, w_before + adjoint[1], "w_bar", ulps);
    expect_close(b_bar, b_before + adjoint[2], "b_bar");

    // Tangents of the parameters lie in longer rows, as where they are parts of a flat vector.
    const at::Tensor w_wide = room({tangents, d + 5}), b_wide = room({tangents, d + 3});
    w_wide.narrow(1, 2, d).copy_(w_dot);
    b_wide.narrow(1, 1, d).copy_(b_dot);
    const at::Tensor y_dot = given(x_dot), mean_dot = room({tangents, rows}), projection_dot = room({tangents, rows});
    fused::layer_norm_tangent({y_dot, given(w), w_wide.narrow(1, 2, d), b_wide.narrow(1, 1, d), x_hat, rstd, y_dot,
                               mean_dot, projection_dot, d, centred});
    const at::Tensor x_bar_before = random({tangents, rows, d});
    const at::Tensor x_bar_dot = given(x_bar_before), w_sums = at::zeros({tangents, d + 5}, options());
    const at::Tensor b_sums = at::zeros({tangents, d}, options());
    fused::layer_norm_adjoint_tangent({given(y_bar_dot), given(y_bar), given(x_dot), mean_dot, projection_dot, given(w),
                                       w_wide.narrow(1, 2, d), x_hat, rstd, m1, m2, x_bar_dot, w_sums.narrow(1, 4, d),
                                       b_sums, d, tangents, centred, true});
    for (std::int64_t k = 0; k < tangents; ++k) {
      const Tensors dots = {x_dot[k], w_dot[k], b_dot[k]};
      expect_close(y_dot[k], tangent_of(f, {x, w, b}, dots)[0], "y_dot", ulps);
      const Tensors expected = adjoint_tangent_of(f, {x, w, b}, dots, y_bar, y_bar_dot[k]);
      expect_close(x_bar_dot[k], x_bar_before[k] + expected[0], "x_bar_dot", ulps);
      expect_close(w_sums[k].narrow(0, 4, d), expected[1], "w_bar_dot", ulps);
      expect_close(b_sums[k], expected[2], "b_bar_dot");
    }
    EXPECT_EQ(w_sums.narrow(1, 0, 4).abs().sum().item<double>(), 0.0);
  }
}

/// Each nullable input left out must count as zeros (w: ones), and results that are not wanted must not change the
/// others.
TEST_P(NormKernels, WhatIsLeftOutIsZero) {
  const std::int64_t rows = 66, d = 37, tangents = 2;
  const Differentiable f = composed(true);
  const at::Tensor x = random({rows, d}), w = random({d}), b = at::zeros({d}, at::kDouble), y_bar = random({rows, d});
  const at::Tensor x_dot = random({tangents, rows, d}), w_dot = random({tangents, d}), none;
  const at::Tensor y_bar_dot = random({tangents, rows, d});
  for (int left_out = 0; left_out < 32; ++left_out) {
    SCOPED_TRACE(left_out);
    const auto part = [&](int bit, const at::Tensor& t) { return (left_out >> bit) & 1 ? at::Tensor() : given(t); };
    const auto full = [&](int bit, const at::Tensor& t) { return (left_out >> bit) & 1 ? at::zeros_like(t) : t; };
    const at::Tensor w_of = (left_out >> 4) & 1 ? at::ones_like(w) : w;
    const at::Tensor y = room({rows, d}), x_hat = room({rows, d}), rstd = room({rows});
    fused::layer_norm({given(x), part(4, w), none, y, x_hat, rstd, d, kEps, true});
    expect_close(y, f({x, w_of, b})[0], "y");
    const at::Tensor m1 = room({rows}), m2 = room({rows}), w_bar = at::zeros({d}, options());
    fused::layer_norm_adjoint({given(y_bar), part(4, w), x_hat, rstd, none, m1, m2, w_bar, none, d, true, false});
    expect_close(w_bar, adjoint_of(f, leaves({x, w_of, b}), {y_bar})[1], "w_bar");
    const at::Tensor y_dot = room({tangents, rows, d}), mean_dot = room({tangents, rows});
    const at::Tensor projection_dot = room({tangents, rows});
    fused::layer_norm_tangent(
        {part(0, x_dot), part(4, w), part(1, w_dot), none, x_hat, rstd, y_dot, mean_dot, projection_dot, d, true});
    const at::Tensor x_bar_dot = room({tangents, rows, d}), sums = at::zeros({tangents, d}, options());
    fused::layer_norm_adjoint_tangent({part(2, y_bar_dot), part(3, y_bar), part(0, x_dot), mean_dot, projection_dot,
                                       part(4, w), part(1, w_dot), x_hat, rstd, m1, m2, x_bar_dot, sums, none, d,
                                       tangents, true, false});
    for (std::int64_t k = 0; k < tangents; ++k) {
      const Tensors dots = {full(0, x_dot)[k], full(1, w_dot)[k], b};
      expect_close(y_dot[k], tangent_of(f, {x, w_of, b}, dots)[0], "y_dot");
      const Tensors expected = adjoint_tangent_of(f, {x, w_of, b}, dots, full(3, y_bar), full(2, y_bar_dot)[k]);
      expect_close(x_bar_dot[k], expected[0], "x_bar_dot");
      expect_close(sums[k], expected[1], "w_bar_dot");
    }
  }
}

TEST_P(NormKernels, OneAndTwoThreadsGiveTheSameBits) {
  if (GetParam().device != at::kCPU) GTEST_SKIP() << "of CPUs";
  const std::int64_t rows = 1000, d = 130, tangents = 3;
  const at::Tensor x = given(random({rows, d})), w = given(random({d})), y_bar = given(random({rows, d}));
  const at::Tensor x_dot = given(random({tangents, rows, d})), y_bar_dot = given(random({tangents, rows, d})), none;
  const auto sums = [&](int threads) {
    at::set_num_threads(threads);
    const at::Tensor y = at::empty_like(x), x_hat = at::empty_like(x), rstd = at::empty({rows}, options());
    fused::layer_norm({x, w, none, y, x_hat, rstd, d, kEps, true});
    const at::Tensor m1 = at::empty_like(rstd), m2 = at::empty_like(rstd);
    const at::Tensor w_bar = at::zeros({tangents, d}, options()), b_bar = at::zeros_like(w_bar);
    fused::layer_norm_adjoint({y_bar, w, x_hat, rstd, none, m1, m2, none, none, d, true, false});
    const at::Tensor y_dot = at::empty_like(x_dot), mean = at::empty({tangents, rows}, options());
    const at::Tensor projection = at::empty_like(mean), x_bar_dot = at::empty_like(x_dot);
    fused::layer_norm_tangent({x_dot, w, none, none, x_hat, rstd, y_dot, mean, projection, d, true});
    fused::layer_norm_adjoint_tangent({y_bar_dot, y_bar, x_dot, mean, projection, w, none, x_hat, rstd, m1, m2,
                                       x_bar_dot, w_bar, b_bar, d, tangents, true, false});
    at::set_num_threads(1);
    return at::cat({y.flatten(), y_dot.flatten(), x_bar_dot.flatten(), w_bar.flatten(), b_bar.flatten()});
  };
  EXPECT_TRUE(at::equal(sums(1), sums(2)));
}

TEST_P(NormKernels, WhatIsNotANumberStaysSo) {
  const std::int64_t rows = 3, d = 40;
  at::Tensor x = random({rows, d});
  x[1][17] = std::numeric_limits<double>::quiet_NaN();
  x[2][3] = std::numeric_limits<double>::infinity();
  const at::Tensor y = room({rows, d}), none;
  fused::layer_norm({given(x), none, none, y, room({rows, d}), room({rows}), d, kEps, true});
  EXPECT_TRUE(y[0].isfinite().all().item<bool>());
  EXPECT_TRUE(y[1].isnan().all().item<bool>());
  EXPECT_TRUE(y[2][3].isnan().item<bool>());
}

}  // namespace
}  // namespace hesspect::norm_kernels_test
