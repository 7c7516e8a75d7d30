#include <limits>

#include "kernel_oracle.h"

namespace hesspect::softmax_kernels_test {
namespace {

class SoftmaxKernels : public KernelTest {};
HESSPECT_ON_ALL_MACHINES(SoftmaxKernels);

const double kInfinity = std::numeric_limits<double>::infinity();

/// −∞ above the diagonal that is `offset` to the right; rows repeat after `query_rows`.
at::Tensor causal_mask(std::int64_t rows, std::int64_t query_rows, std::int64_t columns, std::int64_t offset) {
  const at::Tensor row = at::arange(rows).remainder(query_rows).unsqueeze(1), column = at::arange(columns);
  return at::zeros({rows, columns}, at::kDouble).masked_fill(column > row + offset, -kInfinity);
}

struct Case {
  std::int64_t rows, columns, tangents;
  fused::CausalMask causal;
};
const std::vector<Case> kCases = {{1, 1, 1, {}},
                                  {6, 7, 3, {}},
                                  {67, 130, 1, {}},
                                  {2, 5000, 3, {}},
                                  {30, 10, 3, {true, 10, 0}},
                                  {96, 50, 2, {true, 48, 2}},
                                  {28, 130, 1, {true, 7, 120}}};

TEST_P(SoftmaxKernels, ValueAdjointAndTangentsAreAutograds) {
  for (const auto& [rows, d, tangents, causal] : kCases) {
    SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(d) + "x" + std::to_string(tangents));
    const double scale = 0.3;
    const at::Tensor s = 5 * random({rows, d}), s_dot = random({tangents, rows, d}), p_bar = random({rows, d});
    const at::Tensor p_bar_dot = random({tangents, rows, d}), none;
    const at::Tensor mask =
        causal.on ? causal_mask(rows, causal.query_rows, d, causal.offset) : at::zeros({rows, d}, at::kDouble);
    const Differentiable f = [&](const Tensors& in) -> Tensors { return {at::softmax(in[0] * scale + mask, -1)}; };

    const at::Tensor p = given(s), lse = room({rows});  // in place
    fused::softmax({p, p, lse, none, d, 1, 1, scale, causal, false});
    expect_close(p, f({s})[0], "p");
    expect_close(lse, at::logsumexp(s * scale + mask, {-1}), "lse");
    const at::Tensor s_bar = given(p_bar), r = room({rows});
    fused::softmax_adjoint({p, s_bar, s_bar, r, d, scale, causal});
    expect_close(s_bar, adjoint_of(f, leaves({s}), {p_bar})[0], "s_bar");
    const at::Tensor p_dot = given(s_dot), s_bar_dot = given(p_bar_dot);
    fused::softmax_tangent({p, p_dot, p_dot, d, scale, causal});
    fused::softmax_adjoint_tangent({p, p_dot, given(p_bar), r, s_bar_dot, s_bar_dot, d, scale, causal});
    // What is left out counts as zeros.
    const at::Tensor without_bar = room(s_dot.sizes()), without_p_dot = room(s_dot.sizes());
    const at::Tensor without_bar_dot = room(s_dot.sizes());
    fused::softmax_adjoint_tangent({p, p_dot, none, none, given(p_bar_dot), without_bar, d, scale, causal});
    fused::softmax_adjoint_tangent({p, none, given(p_bar), r, given(p_bar_dot), without_p_dot, d, scale, causal});
    fused::softmax_adjoint_tangent({p, p_dot, given(p_bar), r, none, without_bar_dot, d, scale, causal});
    for (std::int64_t k = 0; k < tangents; ++k) {
      expect_close(p_dot[k], tangent_of(f, {s}, {s_dot[k]})[0], "p_dot");
      const at::Tensor zero = at::zeros_like(s);
      const auto expected = [&](const at::Tensor& dot, const at::Tensor& bar, const at::Tensor& bar_dot) {
        return adjoint_tangent_of(f, {s}, {dot}, bar, bar_dot)[0];
      };
      expect_close(s_bar_dot[k], expected(s_dot[k], p_bar, p_bar_dot[k]), "s_bar_dot");
      expect_close(without_bar[k], expected(s_dot[k], zero, p_bar_dot[k]), "without p_bar");
      expect_close(without_p_dot[k], expected(zero, p_bar, p_bar_dot[k]), "without p_dot");
      expect_close(without_bar_dot[k], expected(s_dot[k], p_bar, zero), "without p_bar_dot");
    }
  }
}

TEST_P(SoftmaxKernels, MasksAreBroadcast) {
  const std::int64_t outer = 2, heads = 3, query = 4, d = 9;
  const at::Tensor s = random({outer, heads, query, d}), none;
  const std::vector<std::vector<std::int64_t>> shapes = {
      {outer, 1, 1, d}, {1, heads, query, 1}, {outer, heads, query, d}, {query, d}, {d}};
  for (const std::vector<std::int64_t>& sizes : shapes) {
    at::Tensor mask = random(sizes);
    mask.masked_fill_(mask > 1.2, -kInfinity);
    const at::Tensor p = room(s.sizes());
    fused::softmax({given(s), p, none, given(mask), d, heads, query, 0.5, {}, true});
    expect_close(p, at::_safe_softmax(s * 0.5 + mask, -1), "p");
  }
}

TEST_P(SoftmaxKernels, RowsThatAreMaskedThroughoutAndNaN) {
  const std::int64_t rows = 4, d = 20;
  at::Tensor s = random({rows, d});
  s[1].fill_(-kInfinity);
  s[2][7] = std::numeric_limits<double>::quiet_NaN();
  s[3][5] = kInfinity;
  const at::Tensor p = room({rows, d}), none;
  fused::softmax({given(s), p, none, none, d, 1, 1, 1.0, {}, true});
  expect_close(p[0], at::softmax(s[0], -1), "p");
  EXPECT_EQ(p[1].abs().max().item<double>(), 0.0);
  EXPECT_TRUE(p[2].isnan().all().item<bool>());
  EXPECT_TRUE(p[3][5].isnan().item<bool>());
  fused::softmax({given(s), p, none, none, d, 1, 1, 1.0, {}, false});
  EXPECT_TRUE(p[1].isnan().all().item<bool>());
}

TEST_P(SoftmaxKernels, LogSoftmaxIsAutograds) {
  for (const auto& [rows, d, tangents, causal] : kCases) {
    if (causal.on) continue;
    SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(d) + "x" + std::to_string(tangents));
    const at::Tensor x = 5 * random({rows, d}), x_dot = random({tangents, rows, d}), y_bar = random({rows, d});
    const at::Tensor y_bar_dot = random({tangents, rows, d}), none;
    const Differentiable f = [](const Tensors& in) -> Tensors { return {at::log_softmax(in[0], -1)}; };
    const at::Tensor y = given(x), x_bar = given(y_bar), r = room({rows});
    fused::log_softmax({y, y, d});
    expect_close(y, f({x})[0], "y");
    fused::log_softmax_adjoint({y, x_bar, x_bar, r, d});
    // exp(y) carries y's error, |y| units: the sum of ȳ is √columns.
    const double ulps = 40 * std::sqrt(static_cast<double>(d));
    expect_close(x_bar, adjoint_of(f, leaves({x}), {y_bar})[0], "x_bar", ulps);
    const at::Tensor y_dot = given(x_dot), x_bar_dot = given(y_bar_dot);
    const at::Tensor linear = room(x_dot.sizes()), second = room(x_dot.sizes());
    fused::log_softmax_tangent({y, y_dot, y_dot, d});
    fused::log_softmax_adjoint_tangent({y, y_dot, r, x_bar_dot, x_bar_dot, d});
    fused::log_softmax_adjoint_tangent({y, none, none, given(y_bar_dot), linear, d});
    fused::log_softmax_adjoint_tangent({y, y_dot, r, none, second, d});
    for (std::int64_t k = 0; k < tangents; ++k) {
      const at::Tensor zero = at::zeros_like(x);
      expect_close(y_dot[k], tangent_of(f, {x}, {x_dot[k]})[0], "y_dot");
      expect_close(x_bar_dot[k], adjoint_tangent_of(f, {x}, {x_dot[k]}, y_bar, y_bar_dot[k])[0], "x_bar_dot", ulps);
      expect_close(linear[k], adjoint_tangent_of(f, {x}, {zero}, zero, y_bar_dot[k])[0], "linear", ulps);
      expect_close(second[k], adjoint_tangent_of(f, {x}, {x_dot[k]}, y_bar, zero)[0], "second", ulps);
    }
  }
}

}  // namespace
}  // namespace hesspect::softmax_kernels_test
