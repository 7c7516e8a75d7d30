#include "kernel_oracle.h"

namespace hesspect::cross_entropy_kernels_test {
namespace {

class CrossEntropyKernels : public KernelTest {};
HESSPECT_ON_ALL_MACHINES(CrossEntropyKernels);

constexpr std::int64_t kIgnored = -100;

/// The sum of PyTorch's losses of all rows, with label smoothing and, where defined, weights.
Differentiable summed_loss(const at::Tensor& target, const at::Tensor& weights, double smoothing) {
  return [=](const Tensors& in) -> Tensors {
    return {at::cross_entropy_loss(in[0], target, weights, at::Reduction::Sum, kIgnored, smoothing)};
  };
}

/// Loss, adjoint and its tangent from the kernels, for any kind of targets, against PyTorch's loss.
struct Setting {
  std::int64_t rows, columns, tangents;
  bool probabilities, weighted;
  double smoothing;
};
const std::vector<Setting> kSettings = {{5, 7, 3, false, false, 0.0},   {33, 130, 1, false, true, 0.0},
                                        {33, 130, 3, false, true, 0.2}, {4, 2100, 1, false, false, 0.1},
                                        {33, 130, 3, true, false, 0.0}, {9, 50, 1, true, true, 0.3}};

TEST_P(CrossEntropyKernels, LossAdjointAndItsTangentAreAutograds) {
  for (const auto& [rows, d, tangents, probabilities, weighted, smoothing] : kSettings) {
    SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(d));
    const at::Tensor z = 4 * random({rows, d}), z_dot = random({tangents, rows, d}), none;
    at::Tensor target = at::randint(d, {rows}, at::kLong), counts = at::ones({rows}, at::kDouble);
    if (!probabilities) {
      target[1] = kIgnored;
      counts[1] = 0;
    }
    const at::Tensor weights = weighted ? random({d}).abs() + 0.5 : at::ones({d}, at::kDouble);
    const at::Tensor target_p = at::softmax(random({rows, d}), -1).to(GetParam().type).to(at::kDouble);
    const Differentiable f =
        summed_loss(probabilities ? target_p : target, weighted ? weights : at::Tensor(), smoothing);

    const at::Tensor p = given(z), lse = room({rows}).to(at::kDouble), target_sum = lse.clone(), all_sum = lse.clone();
    const at::Tensor target_weight = lse.clone(), index = probabilities ? none : target.to(GetParam().device);
    const at::Tensor t = probabilities ? given(target_p) : none, w = weighted ? given(weights) : none;
    fused::cross_entropy({p, index, t, w, p, lse, target_sum, all_sum, target_weight, d});
    expect_close(p, at::softmax(z, -1), "p");

    // A row's loss is (1−ε)·(a_t lse − target) + ε/C·(Σw lse − all), with the weight of its target as a_t.
    const at::Tensor target_w = probabilities ? target_weight.cpu() : weights.index({target.clamp_min(0)}) * counts;
    const at::Tensor picked = probabilities ? target_sum.cpu() : target_w * target_sum.cpu();
    const at::Tensor spread = counts * (smoothing / static_cast<double>(d));
    const at::Tensor loss =
        (1 - smoothing) * (target_w * lse.cpu() - picked) + spread * (weights.sum() * lse.cpu() - all_sum.cpu());
    expect_close(loss.sum().to(GetParam().type), f({z})[0], "loss");

    const at::Tensor b = probabilities ? at::full({rows}, 1 - smoothing, at::kDouble) : (1 - smoothing) * target_w;
    const at::Tensor a = (1 - smoothing) * target_w + spread * weights.sum();
    const at::Tensor z_bar = room({rows, d});
    fused::cross_entropy_adjoint({p, index, t, w, given(a), given(b), smoothing > 0 ? given(spread) : none, z_bar, d});
    const at::Tensor one = at::ones({}, at::kDouble);
    expect_close(z_bar, adjoint_of(f, leaves({z}), {one})[0], "z_bar");
    const at::Tensor z_bar_dot = given(z_dot);
    fused::cross_entropy_adjoint_tangent({p, z_bar_dot, given(a), z_bar_dot, d});
    Tensors exact;
    for (std::int64_t k = 0; k < tangents; ++k) {
      exact.push_back(adjoint_tangent_of(f, {z}, {z_dot[k]}, one, at::zeros({}, at::kDouble))[0]);
      expect_close(z_bar_dot[k], exact.back(), "z_bar_dot");
    }
    // Of some columns alone, with the sum of all given.
    const at::Tensor r = given((at::softmax(z, -1) * z_dot).sum(-1));
    for (const auto& [begin, n] : {std::pair<std::int64_t, std::int64_t>{0, d / 2}, {d / 2, d - d / 2}}) {
      const at::Tensor part = given(z_dot.narrow(2, begin, n)), some = p.narrow(1, begin, n).contiguous();
      fused::cross_entropy_adjoint_tangent({some, part, given(a), part, n, r});
      for (std::int64_t k = 0; k < tangents; ++k)
        expect_close(part[k], exact[static_cast<std::size_t>(k)].narrow(1, begin, n), "part of z_bar_dot");
    }
  }
}

/// Logits far from zero: in float32 a log Σ exp rounded to float would cost p its last three digits.
TEST_P(CrossEntropyKernels, LargeLogitsKeepTheirProbabilities) {
  const at::Tensor z = (random({4, 300}) + 3000).to(GetParam().type).to(at::kDouble);
  const at::Tensor p = room({4, 300}), lse = room({4}).to(at::kDouble), sum = lse.clone(), none;
  fused::cross_entropy({given(z), none, none, none, p, lse, sum, none, none, 300});
  expect_close(p, at::softmax(z, -1), "p");
}

TEST_P(CrossEntropyKernels, WhatIsNotANumberStaysSo) {
  at::Tensor z = random({2, 50});
  z[1][3] = std::numeric_limits<double>::quiet_NaN();
  const at::Tensor p = room({2, 50}), lse = room({2}).to(at::kDouble), sum = lse.clone(), none;
  fused::cross_entropy({given(z), none, none, none, p, lse, sum, none, none, 50});
  EXPECT_TRUE(p[0].isfinite().all().item<bool>() && lse[0].isfinite().item<bool>());
  EXPECT_TRUE(p[1].isnan().all().item<bool>() && lse[1].isnan().item<bool>());
}

}  // namespace
}  // namespace hesspect::cross_entropy_kernels_test
