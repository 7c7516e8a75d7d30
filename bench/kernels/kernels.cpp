// Seconds of the fused kernels beside ATen's compositions of the same formulas. README.md says how to run it.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <vector>

#include "hesspect/tangent/kernels.h"

namespace {

using namespace hesspect;

/// Microseconds of a call: the median of many.
double microseconds(const std::function<void()>& call) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> all;
  call();
  const auto start = Clock::now();
  while (all.size() < 5 || (Clock::now() - start < std::chrono::milliseconds(300) && all.size() < 2000)) {
    const auto begin = Clock::now();
    call();
    all.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
  }
  std::nth_element(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2), all.end());
  return all[all.size() / 2];
}

/// `arrays` is how many [rows, columns] arrays the kernel reads and writes at least: for the bytes per second.
void row(const char* name, const at::Tensor& x, double arrays, const std::function<void()>& fused,
         const std::function<void()>& composed) {
  const double ours = microseconds(fused), atens = microseconds(composed);
  const double gigabytes = arrays * static_cast<double>(x.numel() * x.element_size()) / 1e9;
  std::printf("| %s | %.0f | %.1f | %.0f | %.1f |\n", name, ours, gigabytes / (ours * 1e-6), atens, atens / ours);
  std::fflush(stdout);
}

void norms(std::int64_t rows, std::int64_t d) {
  const at::Tensor x = at::randn({rows, d}), w = at::randn({d}), b = at::randn({d}), y = at::empty_like(x), none;
  const at::Tensor x_hat = at::empty_like(x), rstd = at::empty({rows}), y_bar = at::randn({rows, d});
  const at::Tensor x_bar = at::empty_like(x), m1 = at::empty({rows}), m2 = at::empty({rows});
  const at::Tensor w_bar = at::zeros({d}), b_bar = at::zeros({d}), x_dot = at::randn({1, rows, d});
  const at::Tensor w_dot = at::randn({1, d}), b_dot = at::randn({1, d}), y_dot = at::empty_like(x_dot);
  const at::Tensor a = at::empty({1, rows}), p = at::empty({1, rows}), y_bar_dot = at::randn({1, rows, d});
  const at::Tensor x_bar_dot = at::empty_like(x_dot), w_bar_dot = at::zeros({1, d}), b_bar_dot = at::zeros({1, d});
  const auto value = [&] { fused::layer_norm({x, w, b, y, x_hat, rstd, d, 1e-5, true}); };
  row("layer norm", x, 3, value, [&] { at::native_layer_norm(x, {d}, w, b, 1e-5); });
  const auto [out, mean, r] = at::native_layer_norm(x, {d}, w, b, 1e-5);
  row(
      "its adjoint", x, 3,
      [&] {
        fused::layer_norm_adjoint({y_bar, w, x_hat, rstd, x_bar, m1, m2, w_bar, b_bar, d, true, false});
      },
      [&, mean = mean, r = r] {
        at::native_layer_norm_backward(y_bar, x, {d}, mean, r, w, b, {true, true, true});
      });
  const at::Tensor r1 = rstd.unsqueeze(1);
  row(
      "its tangent", x, 3,
      [&] {
        fused::layer_norm_tangent({x_dot, w, w_dot, b_dot, x_hat, rstd, y_dot, a, p, d, true});
      },
      [&] {
        const at::Tensor dot = r1 * (x_dot - x_dot.mean(-1, true) - x_hat * (x_dot * x_hat).mean(-1, true));
        const at::Tensor result = w * dot + w_dot[0] * x_hat + b_dot[0];
      });
  row(
      "its adjoint's tangent", x, 5,
      [&] {
        fused::layer_norm_adjoint_tangent({y_bar_dot, y_bar, x_dot, a, p, w, w_dot, x_hat, rstd, m1, m2, x_bar_dot,
                                           w_bar_dot, b_bar_dot, d, 1, true, false});
      },
      [&] {
        const at::Tensor mean_dot = a[0].unsqueeze(1), projection = p[0].unsqueeze(1);
        const at::Tensor x_hat_dot = r1 * (x_dot[0] - mean_dot - x_hat * projection), r_dot = -r1 * r1 * projection;
        const at::Tensor h = w * y_bar, h_dot = w_dot[0] * y_bar + w * y_bar_dot[0];
        const at::Tensor n = (h_dot * x_hat + h * x_hat_dot).mean(-1, true);
        const at::Tensor result = r_dot * (h - m1.unsqueeze(1) - x_hat * m2.unsqueeze(1)) +
                                  r1 * (h_dot - h_dot.mean(-1, true) - x_hat_dot * m2.unsqueeze(1) - x_hat * n);
        w_bar_dot[0].add_((y_bar_dot[0] * x_hat + y_bar * x_hat_dot).sum(0));
        b_bar_dot[0].add_(y_bar_dot[0].sum(0));
      });
  row(
      "RMS norm", x, 3,
      [&] {
        fused::layer_norm({x, w, none, y, x_hat, rstd, d, 1e-5, false});
      },
      [&] { const at::Tensor result = x * (x.pow(2).mean(-1, true) + 1e-5).rsqrt() * w; });
}

void softmaxes(std::int64_t rows, std::int64_t d) {
  const at::Tensor s = at::randn({rows, d}), p = at::empty_like(s), p_bar = at::randn({rows, d}), r = at::empty({rows});
  const at::Tensor s_bar = at::empty_like(s), s_dot = at::randn({1, rows, d}), p_dot = at::empty_like(s_dot), none;
  const at::Tensor p_bar_dot = at::randn({1, rows, d}), s_bar_dot = at::empty_like(s_dot);
  row(
      "softmax", s, 2,
      [&] {
        fused::softmax({s, p, none, none, d, 1, 1, 1.0, {}, false});
      },
      [&] { at::softmax(s, -1); });
  row(
      "the same, causal", s, 1.5,
      [&] {
        fused::softmax({s, p, none, none, d, 1, 1, 0.125, {true, d, 0}, false});
      },
      [&] { at::softmax(s * 0.125, -1); });
  row(
      "its tangent", s, 3,
      [&] {
        fused::softmax_tangent({p, s_dot, p_dot, d, 1.0, {}});
      },
      [&] { const at::Tensor result = p * (s_dot - (p * s_dot).sum(-1, true)); });
  row(
      "its adjoint's tangent", s, 5,
      [&] {
        fused::softmax_adjoint_tangent({p, p_dot, p_bar, r, p_bar_dot, s_bar_dot, d, 1.0, {}});
      },
      [&] {
        const at::Tensor r_dot = (p_dot * p_bar + p * p_bar_dot).sum(-1, true);
        const at::Tensor result = p_dot * (p_bar - r.unsqueeze(1)) + p * (p_bar_dot - r_dot);
      });
  const at::Tensor target = at::randint(d, {rows}, at::kLong), lse = at::empty({rows}, at::kDouble);
  const at::Tensor picked = at::empty_like(lse), a = at::full({rows}, 1e-3);
  row(
      "cross entropy", s, 2,
      [&] {
        fused::cross_entropy({s, target, none, none, p, lse, picked, none, none, d});
      },
      [&] { at::cross_entropy_loss(s, target), at::softmax(s, -1); });
  row(
      "its adjoint", s, 2,
      [&] {
        fused::cross_entropy_adjoint({p, target, none, none, a, a, none, s_bar, d});
      },
      [&] {
        (p * 1e-3).scatter_add_(1, target.unsqueeze(1), at::full({rows, 1}, -1e-3));
      });
  row(
      "its adjoint's tangent", s, 3,
      [&] {
        fused::cross_entropy_adjoint_tangent({p, s_dot, a, s_bar_dot, d});
      },
      [&] { const at::Tensor result = 1e-3 * p * (s_dot - (p * s_dot).sum(-1, true)); });
}

void functions(std::int64_t rows, std::int64_t d) {
  using fused::Function;
  const at::Tensor x = at::randn({rows, d}), y = at::empty_like(x), f1 = at::empty_like(x), f2 = at::empty_like(x),
                   none;
  const at::Tensor y_bar = at::randn({rows, d}), x_bar = at::empty_like(x), out = at::empty({1, rows, d});
  const at::Tensor a = at::randn({1, rows, d}), b = at::randn({1, rows, d});
  const std::tuple<const char*, Function, std::function<void()>> all[] = {
      {"GELU", Function::kGelu, [&] { at::gelu(x), at::gelu_backward(y_bar, x); }},
      {"GELU by tanh", Function::kGeluTanh, [&] { at::gelu(x, "tanh"), at::gelu_backward(y_bar, x, "tanh"); }},
      {"SiLU", Function::kSilu, [&] { at::silu(x), at::silu_backward(y_bar, x); }},
      {"tanh", Function::kTanh, [&] { at::tanh(x), at::tanh_backward(y_bar, y); }},
      {"ReLU", Function::kRelu, [&] { at::relu(x), at::threshold_backward(y_bar, x, 0); }},
      {"exp", Function::kExp, [&] { at::exp(x); }},
      {"log", Function::kLog, [&] { at::log(x); }},
      {"softplus", Function::kSoftplus, [&] { at::softplus(x), at::softplus_backward(y_bar, x, 1, 20); }},
      {"mish", Function::kMish, [&] { at::mish(x), at::mish_backward(y_bar, x); }},
      {"erf", Function::kErf, [&] { at::erf(x); }},
      {"ELU", Function::kElu, [&] { at::elu(x); }},
      {"hardswish", Function::kHardswish, [&] { at::hardswish(x), at::hardswish_backward(y_bar, x); }},
      {"sin", Function::kSin, [&] { at::sin(x), at::cos(x); }},
      {"sqrt", Function::kSqrt, [&] { at::sqrt(x); }},
      {"log sigmoid", Function::kLogSigmoid, [&] { at::log_sigmoid(x); }},
  };
  for (const auto& [name, function, composed] : all) {
    const fused::Pointwise forward{function, x, none, y, f1, none, none, {1, 20, 1}};
    const fused::Pointwise backward{function, x, y_bar, none, none, f2, x_bar, {1, 20, 1}};
    row(
        name, x, 7, [&] { fused::pointwise(forward), fused::pointwise(backward); }, composed);
  }
  row(
      "f∘a", x, 3,
      [&] {
        fused::pointwise_tangent({f1, a, none, none, out, false});
      },
      [&] { at::mul(f1, a); });
  row(
      "f∘a + g∘b", x, 5,
      [&] {
        fused::pointwise_tangent({f1, a, f2, b, out, false});
      },
      [&] { at::addcmul(f1 * a, f2, b); });
}

void sums(std::int64_t rows, std::int64_t d) {
  const at::Tensor a = at::randn({1, rows, d}), out = at::zeros({1, d}), table = at::zeros({1, 1000, d});
  row(
      "column sums", a, 1,
      [&] {
        fused::column_sums({a, out, d});
      },
      [&] { out.add_(a.sum(1)); });
  const at::Tensor index = at::randint(1000, {rows}, at::kLong);
  const fused::RowOrder order = fused::order_rows(index);
  row(
      "rows added", a, 3,
      [&] {
        fused::rows_add({order, a, table, d, -1});
      },
      [&] { at::embedding_dense_backward(a[0], index, 1000, -1, false); });
  const std::int64_t channels = 16;
  const at::Tensor x = at::randn({rows * d / (channels * 256), channels, 256}), s = at::randn({channels}), none;
  const at::Tensor y = at::empty_like(x), y_bar = at::randn_like(x), x_dot = at::randn_like(x),
                   y_bar_dot = at::randn_like(x);
  const at::Tensor s_dot = at::randn({1, channels}), x_bar_dot = at::empty_like(x), s_bar = at::zeros({1, channels});
  const at::Tensor t_bar = at::zeros({1, channels}), column = s.unsqueeze(1), column_dot = s_dot[0].unsqueeze(1);
  row(
      "channels", x, 2,
      [&] {
        fused::channels({x, s, s, y, channels, 256});
      },
      [&] { at::addcmul(column, column, x); });
  row(
      "its adjoint's tangent", x, 5,
      [&] {
        fused::channels_adjoint_tangent(
            {y_bar_dot, y_bar, x_dot, x, s, s_dot, x_bar_dot, s_bar, t_bar, channels, 256, 1, false});
      },
      [&] {
        const at::Tensor result = column * y_bar_dot + column_dot * y_bar;
        s_bar[0].add_((x * y_bar_dot + x_dot * y_bar).sum({0, 2}));
        t_bar[0].add_(y_bar_dot.sum({0, 2}));
      });
}

}  // namespace

int main() {
  // As the program does, or page faults would be half of ATen's time.
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, 2'000'000'000);
  mallopt(M_TOP_PAD, 64 << 20);
  const at::NoGradGuard no_grad;
  at::set_num_threads(1);
  for (const auto& [rows, d] : {std::pair<std::int64_t, std::int64_t>{4096, 128}, {4096, 512}, {16384, 64}}) {
    std::printf("\n[%ld, %ld]\n\n| kernel | µs | GB/s | ATen µs | ratio |\n| --- | --- | --- | --- | --- |\n",
                static_cast<long>(rows), static_cast<long>(d));
    norms(rows, d);
    softmaxes(rows, d);
    functions(rows, d);
    sums(rows, d);
  }
  return 0;
}
