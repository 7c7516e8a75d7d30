#include <ATen/Parallel.h>

#include <stdexcept>

#include "kernel_oracle.h"

namespace hesspect::sums_kernels_test {
namespace {

class SumsKernels : public KernelTest {};
HESSPECT_ON_ALL_MACHINES(SumsKernels);

TEST_P(SumsKernels, ColumnsAreSummed) {
  for (const std::int64_t rows : {1, 5, 64, 1000})
    for (const std::int64_t d : {1, 130, 1030})
      for (const std::int64_t tangents : {1, 3}) {
        const at::Tensor a = random({tangents, rows, d}), before = random({tangents, d});
        const at::Tensor wide = at::zeros({tangents, d + 7}, options()), out = wide.narrow(1, 3, d);
        out.copy_(before);
        fused::column_sums({given(a), out, d});
        expect_close(out, before + a.sum(1), "sums", 400);
        EXPECT_EQ(wide.narrow(1, 0, 3).abs().sum().item<double>(), 0.0);
        EXPECT_EQ(wide.narrow(1, d + 3, 4).abs().sum().item<double>(), 0.0);
      }
}

TEST_P(SumsKernels, RowsAreAddedWhereTheIndexSays) {
  const std::int64_t rows = 300, targets = 11, d = 70;
  for (const std::int64_t tangents : {1, 3})
    for (const std::int64_t padding : {-1, 4}) {
      const at::Tensor index = at::randint(targets - 1, {rows}, at::kLong), src = random({tangents, rows, d});
      const at::Tensor before = random({tangents, targets, d}), out = given(before);
      fused::rows_add({fused::order_rows(index.to(GetParam().device)), given(src), out, d, padding});
      const at::Tensor kept = src * (index != padding).unsqueeze(1);
      expect_close(out, before.index_add(1, index, kept), "out");
    }
}

TEST_P(SumsKernels, ChannelsAreAutograds) {
  for (const auto& [batch, c, d] :
       {std::array<std::int64_t, 3>{5, 3, 49}, {70, 7, 1}, {9, 3, 4}, {1, 1, 2000}, {70, 3, 1}, {200, 16, 1}})
    for (const std::int64_t tangents : {1, 3}) {
      const at::Tensor x = random({batch, c, d}), s = random({c}), t = random({c}), y_bar = random({batch, c, d}), none;
      const at::Tensor x_dot = random({tangents, batch, c, d}), s_dot = random({tangents, c}),
                       t_dot = random({tangents, c});
      const at::Tensor y_bar_dot = random({tangents, batch, c, d});
      const Differentiable f = [](const Tensors& in) -> Tensors {
        return {in[0] * in[1].unsqueeze(-1) + in[2].unsqueeze(-1)};
      };
      const at::Tensor y = given(x);
      fused::channels({y, given(s), given(t), y, c, d});
      expect_close(y, f({x, s, t})[0], "y");
      const at::Tensor x_bar = room(x.sizes()), s_bar = at::zeros({1, c}, options()),
                       t_bar = at::zeros({1, c}, options());
      fused::channels_adjoint_tangent(
          {given(y_bar), none, none, given(x), given(s), none, x_bar, s_bar, t_bar, c, d, 1, false});
      const Tensors adjoint = adjoint_of(f, leaves({x, s, t}), {y_bar});
      expect_close(x_bar, adjoint[0], "x_bar");
      expect_close(s_bar[0], adjoint[1], "s_bar", 400);
      expect_close(t_bar[0], adjoint[2], "t_bar", 400);

      const at::Tensor y_dot = given(x_dot), plain = room(x_dot.sizes());
      fused::channels_tangent({y_dot, given(x), given(s), given(s_dot), given(t_dot), y_dot, c, d, tangents});
      fused::channels_tangent({given(x_dot), none, given(s), none, none, plain, c, d, tangents});
      const at::Tensor before = random(x_dot.sizes()), x_bar_dot = given(before), in_place = given(y_bar_dot);
      const at::Tensor s_sums = at::zeros({tangents, c}, options()), t_sums = at::zeros({tangents, c}, options());
      const at::Tensor gauss_newton = at::zeros({tangents, c}, options());
      fused::channels_adjoint_tangent({given(y_bar_dot), given(y_bar), given(x_dot), given(x), given(s), given(s_dot),
                                       x_bar_dot, s_sums, t_sums, c, d, tangents, true});
      fused::channels_adjoint_tangent(
          {in_place, none, none, given(x), given(s), none, in_place, gauss_newton, none, c, d, tangents, false});
      for (std::int64_t k = 0; k < tangents; ++k) {
        const Tensors dots = {x_dot[k], s_dot[k], t_dot[k]};
        expect_close(y_dot[k], tangent_of(f, {x, s, t}, dots)[0], "y_dot");
        expect_close(plain[k], x_dot[k] * s.unsqueeze(-1), "without s_dot");
        const Tensors expected = adjoint_tangent_of(f, {x, s, t}, dots, y_bar, y_bar_dot[k]);
        expect_close(x_bar_dot[k], before[k] + expected[0], "x_bar_dot");
        expect_close(s_sums[k], expected[1], "s_bar_dot", 400);
        expect_close(t_sums[k], expected[2], "t_bar_dot", 400);
        expect_close(in_place[k], y_bar_dot[k] * s.unsqueeze(-1), "in place");
        expect_close(gauss_newton[k], (y_bar_dot[k] * x).sum(at::IntArrayRef{0, 2}), "Gauss-Newton", 400);
      }
    }
}

TEST_P(SumsKernels, OneAndTwoThreadsGiveTheSameBits) {
  if (GetParam().device != at::kCPU) GTEST_SKIP() << "of CPUs";
  const at::Tensor a = given(random({2, 3000, 130}));
  const fused::RowOrder order = fused::order_rows(at::randint(40, {3000}, at::kLong));
  const auto sums = [&](int threads) {
    at::set_num_threads(threads);
    const at::Tensor out = at::zeros({2, 130}, options()), rows = at::zeros({2, 40, 130}, options());
    fused::column_sums({a, out, 130});
    fused::rows_add({order, a, rows, 130, -1});
    at::set_num_threads(1);
    return at::cat({out.flatten(), rows.flatten()});
  };
  EXPECT_TRUE(at::equal(sums(1), sums(2)));
}

TEST(KernelArguments, WhatDoesNotFitIsRefused) {
  const at::Tensor a = at::zeros({4, 6}), out = at::zeros({6});
  fused::column_sums({a, out, 6});
  EXPECT_THROW(fused::column_sums({a, out, 5}), std::logic_error);
  EXPECT_THROW(fused::column_sums({a.t(), at::zeros({4}), 4}), std::logic_error);
  EXPECT_THROW(fused::column_sums({a, out.to(at::kDouble), 6}), std::logic_error);
  EXPECT_THROW(fused::column_sums({a.to(at::kLong), out.to(at::kLong), 6}), std::logic_error);
  EXPECT_THROW(fused::column_sums({a, at::Tensor(), 6}), std::logic_error);
  const fused::RowOrder order = fused::order_rows(at::tensor({0, 1, 7, 2}, at::kLong));
  EXPECT_THROW(fused::rows_add({order, a, at::zeros({7, 6}), 6, -1}), std::logic_error);
}

}  // namespace
}  // namespace hesspect::sums_kernels_test
