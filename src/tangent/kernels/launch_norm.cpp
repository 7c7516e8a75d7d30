#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include "launch.h"

namespace hesspect::fused {
namespace {

/// A kernel's loop would otherwise ask at each column whether there is a weight.
at::Tensor or_ones(const at::Tensor& w, const at::Tensor& like, Index columns) {
  return w.defined() ? w : at::ones({columns}, like.options());
}
at::Tensor or_zeros(const at::Tensor& b, const at::Tensor& like, Index columns) {
  return b.defined() ? b : at::zeros({columns}, like.options());
}

}  // namespace

void layer_norm(const LayerNorm& args) {
  for_type_of(args.x, [&]<class T>(T) {
    const Pointers<T> of("layer_norm", args.x);
    const Index d = args.columns, rows = of.count(args.x, d, "x"), n = rows * d;
    const at::Tensor w = or_ones(args.w, args.x, d), b = or_zeros(args.b, args.x, d);
    const raw::LayerNormValue<T> q{of.of(args.x, n, "x"),
                                   of.of(w, d, "w"),
                                   of.of(b, d, "b"),
                                   of.of(args.y, n, "y"),
                                   of.of(args.x_hat, n, "x_hat"),
                                   of.of(args.rstd, rows, "rstd"),
                                   d,
                                   args.eps,
                                   args.centred};
    HESSPECT_RUN(layer_norm_value, q, {rows, d}, of.device());
  });
}

void layer_norm_adjoint(const LayerNormAdjoint& args) {
  for_type_of(args.y_bar, [&]<class T>(T) {
    const Pointers<T> of("layer_norm_adjoint", args.y_bar);
    const Index d = args.columns, rows = of.count(args.y_bar, d, "y_bar"), n = rows * d;
    const Index block = rows_per_unit(of.device()), blocks = (rows + block - 1) / block;
    const auto partial = [&](const at::Tensor& sum) {
      return sum.defined() ? at::empty({blocks, d}, args.y_bar.options()) : at::Tensor();
    };
    const at::Tensor w_partial = partial(args.w_bar), b_partial = partial(args.b_bar);
    const at::Tensor w = or_ones(args.w, args.y_bar, d);
    raw::LayerNormAdjoint<T> q{};
    q.y_bar = of.of(args.y_bar, n, "y_bar");
    q.w = of.of(w, d, "w");
    q.x_hat = of.of(args.x_hat, n, "x_hat");
    q.rstd = of.of(args.rstd, rows, "rstd");
    q.x_bar = of.or_null(args.x_bar, n, "x_bar");
    q.m1 = of.or_null(args.m1, rows, "m1");
    q.m2 = args.m1.defined() ? of.of(args.m2, rows, "m2") : nullptr;
    q.w_partial = of.or_null(w_partial, blocks * d, "w_bar");
    q.b_partial = of.or_null(b_partial, blocks * d, "b_bar");
    q.rows = rows, q.columns = d, q.rows_per_unit = block;
    q.centred = args.centred, q.add = args.add;
    HESSPECT_RUN(layer_norm_adjoint, q, {blocks, d, block}, of.device());
    if (args.w_bar.defined()) add_partials<T>(w_partial, of.of(args.w_bar, d, "w_bar"), d, 1, blocks, d);
    if (args.b_bar.defined()) add_partials<T>(b_partial, of.of(args.b_bar, d, "b_bar"), d, 1, blocks, d);
  });
}

void layer_norm_tangent(const LayerNormTangent& args) {
  for_type_of(args.y_dot, [&]<class T>(T) {
    const Pointers<T> of("layer_norm_tangent", args.y_dot);
    const Index d = args.columns, rows = of.count(args.x_hat, d, "x_hat"), n = rows * d;
    const Index tangents = of.count(args.y_dot, n, "y_dot");
    const at::Tensor w = or_ones(args.w, args.x_hat, d);
    const bool lacks_one = !args.w_dot.defined() || !args.b_dot.defined();
    const at::Tensor zeros = lacks_one ? at::zeros({d}, args.x_hat.options()) : at::Tensor();
    raw::LayerNormTangent<T> q{};
    q.x_dot = of.or_null(args.x_dot, tangents * n, "x_dot");
    q.w = of.of(w, d, "w");
    q.w_dot = of.parts_or(zeros, args.w_dot, tangents, d, q.w_dot_stride, "w_dot");
    q.b_dot = of.parts_or(zeros, args.b_dot, tangents, d, q.b_dot_stride, "b_dot");
    q.x_hat = of.of(args.x_hat, n, "x_hat");
    q.rstd = of.of(args.rstd, rows, "rstd");
    q.y_dot = of.of(args.y_dot, tangents * n, "y_dot");
    q.mean_dot = of.or_null(args.mean_dot, tangents * rows, "mean_dot");
    q.projection_dot =
        args.mean_dot.defined() ? of.of(args.projection_dot, tangents * rows, "projection_dot") : nullptr;
    q.rows = rows, q.columns = d, q.tangents = tangents;
    q.centred = args.centred;
    HESSPECT_RUN(layer_norm_tangent, q, {rows * tangents, d}, of.device());
  });
}

void layer_norm_adjoint_tangent(const LayerNormAdjointTangent& args) {
  for_type_of(args.x_hat, [&]<class T>(T) {
    const Pointers<T> of("layer_norm_adjoint_tangent", args.x_hat);
    const Index d = args.columns, rows = of.count(args.x_hat, d, "x_hat"), n = rows * d, tangents = args.tangents;
    const Index block = rows_per_unit(of.device()), blocks = (rows + block - 1) / block;
    const auto partial = [&](const at::Tensor& sum) {
      return sum.defined() ? at::empty({tangents, blocks, d}, args.x_hat.options()) : at::Tensor();
    };
    const at::Tensor w_partial = partial(args.w_bar_dot), b_partial = partial(args.b_bar_dot);
    const at::Tensor w = or_ones(args.w, args.x_hat, d);
    const at::Tensor zeros = args.w_dot.defined() ? at::Tensor() : at::zeros({d}, args.x_hat.options());
    raw::LayerNormAdjointTangent<T> q{};
    q.y_bar_dot = of.or_null(args.y_bar_dot, tangents * n, "y_bar_dot");
    q.y_bar = of.or_null(args.y_bar, n, "y_bar");
    q.x_dot = of.or_null(args.x_dot, tangents * n, "x_dot");
    if (args.x_dot.defined()) {
      q.mean_dot = of.of(args.mean_dot, tangents * rows, "mean_dot");
      q.projection_dot = of.of(args.projection_dot, tangents * rows, "projection_dot");
    }
    q.w = of.of(w, d, "w");
    q.w_dot = of.parts_or(zeros, args.w_dot, tangents, d, q.w_dot_stride, "w_dot");
    q.x_hat = of.of(args.x_hat, n, "x_hat");
    q.rstd = of.of(args.rstd, rows, "rstd");
    if (args.y_bar.defined() && args.x_bar_dot.defined()) {
      q.m1 = of.of(args.m1, rows, "m1");
      q.m2 = of.of(args.m2, rows, "m2");
    }
    q.x_bar_dot = of.or_null(args.x_bar_dot, tangents * n, "x_bar_dot");
    q.w_bar_partial = of.or_null(w_partial, tangents * blocks * d, "w_bar_dot");
    q.b_bar_partial = of.or_null(b_partial, tangents * blocks * d, "b_bar_dot");
    q.rows = rows, q.columns = d, q.tangents = tangents, q.rows_per_unit = block, q.blocks = blocks;
    q.centred = args.centred, q.add = args.add;
    Index w_stride = 0, b_stride = 0;
    T* w_bar_dot = of.parts_or_null(args.w_bar_dot, tangents, d, w_stride, "w_bar_dot");
    T* b_bar_dot = of.parts_or_null(args.b_bar_dot, tangents, d, b_stride, "b_bar_dot");
    HESSPECT_RUN(layer_norm_adjoint_tangent, q, {blocks * tangents, d, block}, of.device());
    if (w_bar_dot != nullptr) add_partials<T>(w_partial, w_bar_dot, w_stride, tangents, blocks, d);
    if (b_bar_dot != nullptr) add_partials<T>(b_partial, b_bar_dot, b_stride, tangents, blocks, d);
  });
}

}  // namespace hesspect::fused
