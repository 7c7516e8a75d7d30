#include <ATen/ops/addcmul.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros.h>

#include "launch.h"

namespace hesspect::fused {
namespace {

/// Where channels have few columns a unit would be next to nothing: ATen's passes then.
bool narrow(Index columns) { return columns < 16; }

/// Features, and images with their channels last in memory: rows of channels.
bool channels_lie_last(Index channels, Index columns) { return columns == 1 && channels >= 4; }

/// [channels] or [K, channels] to be multiplied with [K, N, channels, columns].
at::Tensor spread(const at::Tensor& per_channel, Index channels) { return per_channel.reshape({-1, 1, channels, 1}); }

void narrow_channels(const Channels& args) {
  at::Tensor y = args.y.view({1, -1, args.channels, args.columns});
  at::mul_out(y, args.x.view(y.sizes()), spread(args.s, args.channels));
  if (args.t.defined()) y.add_(spread(args.t, args.channels));
}

void narrow_tangent(const ChannelsTangent& args) {
  at::Tensor y_dot = args.y_dot.view({args.tangents, -1, args.channels, args.columns});
  if (args.x_dot.defined())
    at::mul_out(y_dot, args.x_dot.view(y_dot.sizes()), spread(args.s, args.channels));
  else
    y_dot.zero_();
  if (args.s_dot.defined())
    y_dot.addcmul_(args.x.view({1, -1, args.channels, args.columns}), spread(args.s_dot, args.channels));
  if (args.t_dot.defined()) y_dot.add_(spread(args.t_dot, args.channels));
}

/// sums[k, c] += Σ a[k, n, c, s], in an order that does not depend on threads.
void add_sums(const at::Tensor& sums, const at::Tensor& a, const ChannelsAdjointTangent& args) {
  const Index width = args.channels * args.columns;
  const at::Tensor columns = at::zeros({args.tangents, width}, a.options());
  column_sums({a.contiguous(), columns, width});
  sums.add_(columns.view({args.tangents, args.channels, args.columns}).sum(2));
}

void narrow_adjoint_tangent(const ChannelsAdjointTangent& args) {
  const auto tangents_of = [&](const at::Tensor& a) {
    return a.view({args.tangents, -1, args.channels, args.columns});
  };
  const auto one_of = [&](const at::Tensor& a) { return a.view({1, -1, args.channels, args.columns}); };
  const bool first = args.y_bar_dot.defined(), second = args.x_dot.defined() && args.y_bar.defined();
  if (args.s_bar_dot.defined() && first)
    add_sums(args.s_bar_dot, at::mul(tangents_of(args.y_bar_dot), one_of(args.x)), args);
  if (args.s_bar_dot.defined() && second)
    add_sums(args.s_bar_dot, at::mul(tangents_of(args.x_dot), one_of(args.y_bar)), args);
  if (args.t_bar_dot.defined() && first) add_sums(args.t_bar_dot, tangents_of(args.y_bar_dot), args);
  if (!args.x_bar_dot.defined()) return;
  const at::Tensor s = spread(args.s, args.channels);
  at::Tensor x_bar_dot = tangents_of(args.x_bar_dot);
  if (first && args.add)
    x_bar_dot.addcmul_(tangents_of(args.y_bar_dot), s);
  else if (first)
    at::mul_out(x_bar_dot, tangents_of(args.y_bar_dot), s);
  else if (!args.add)
    x_bar_dot.zero_();
  if (args.s_dot.defined() && args.y_bar.defined())
    x_bar_dot.addcmul_(one_of(args.y_bar), spread(args.s_dot, args.channels));
}

}  // namespace

void channels(const Channels& args) {
  for_type_of(args.x, [&]<class T>(T) {
    const Pointers<T> of("channels", args.x);
    const Index d = args.columns, rows = of.count(args.x, args.channels * d, "x") * args.channels, n = rows * d;
    const raw::ChannelValue<T> q{of.of(args.x, n, "x"),
                                 of.of(args.s, args.channels, "s"),
                                 of.or_null(args.t, args.channels, "t"),
                                 of.of(args.y, n, "y"),
                                 args.channels,
                                 d};
    if (channels_lie_last(args.channels, d)) {
      const Index batch = rows / args.channels, block = rows_per_unit(of.device()),
                  blocks = (batch + block - 1) / block;
      const raw::ChannelRowsValue<T> by_rows{q.x, q.s, q.t, q.y, batch, args.channels, block};
      HESSPECT_RUN(channel_rows_value, by_rows, {blocks, args.channels, block}, of.device());
      return;
    }
    if (narrow(d)) return narrow_channels(args);
    HESSPECT_RUN(channel_value, q, {rows, d}, of.device());
  });
}

void channels_tangent(const ChannelsTangent& args) {
  for_type_of(args.y_dot, [&]<class T>(T) {
    const Pointers<T> of("channels_tangent", args.y_dot);
    const Index d = args.columns, tangents = args.tangents;
    const Index rows = of.count(args.y_dot, tangents * args.channels * d, "y_dot") * args.channels, n = rows * d;
    raw::ChannelTangent<T> q{};
    q.x_dot = of.or_null(args.x_dot, tangents * n, "x_dot");
    q.x = args.s_dot.defined() ? of.of(args.x, n, "x") : nullptr;
    q.s = of.of(args.s, args.channels, "s");
    q.s_dot = of.parts_or_null(args.s_dot, tangents, args.channels, q.s_dot_stride, "s_dot");
    q.t_dot = of.parts_or_null(args.t_dot, tangents, args.channels, q.t_dot_stride, "t_dot");
    q.y_dot = of.of(args.y_dot, tangents * n, "y_dot");
    q.rows = rows, q.channels = args.channels, q.columns = d, q.tangents = tangents;
    if (channels_lie_last(args.channels, d)) {
      const Index batch = rows / args.channels, block = rows_per_unit(of.device()),
                  blocks = (batch + block - 1) / block;
      const raw::ChannelRowsTangent<T> by_rows{q.x_dot,        q.x,   q.s,           q.s_dot,  q.t_dot,
                                               q.y_dot,        batch, args.channels, tangents, q.s_dot_stride,
                                               q.t_dot_stride, block};
      HESSPECT_RUN(channel_rows_tangent, by_rows, {blocks * tangents, args.channels, block}, of.device());
      return;
    }
    if (narrow(d)) return narrow_tangent(args);
    HESSPECT_RUN(channel_tangent, q, {rows * tangents, d}, of.device());
  });
}

void channels_adjoint_tangent(const ChannelsAdjointTangent& args) {
  const at::Tensor& like = args.y_bar_dot.defined() ? args.y_bar_dot : args.y_bar;
  for_type_of(like, [&]<class T>(T) {
    const Pointers<T> of("channels_adjoint_tangent", like);
    const Index d = args.columns, c = args.channels, tangents = args.tangents;
    const Index of_batch = args.y_bar_dot.defined() ? tangents * c * d : c * d;
    const Index batch = of.count(like, of_batch, "y_bar_dot"), rows = batch * c, n = rows * d;
    const bool by_rows = channels_lie_last(c, d);
    // Sums of each image's channel, or of blocks of rows.
    const Index block = by_rows ? rows_per_unit(of.device()) : 1, blocks = (batch + block - 1) / block;
    const auto partial = [&](const at::Tensor& sum) {
      return sum.defined() ? at::empty({tangents, blocks, c}, like.options()) : at::Tensor();
    };
    const at::Tensor s_partial = partial(args.s_bar_dot), t_partial = partial(args.t_bar_dot);
    raw::ChannelAdjointTangent<T> q{};
    q.y_bar_dot = of.or_null(args.y_bar_dot, tangents * n, "y_bar_dot");
    q.y_bar = of.or_null(args.y_bar, n, "y_bar");
    q.x_dot = of.or_null(args.x_dot, tangents * n, "x_dot");
    q.x = args.s_bar_dot.defined() ? of.of(args.x, n, "x") : nullptr;
    q.s = of.of(args.s, c, "s");
    q.s_dot = of.parts_or_null(args.s_dot, tangents, c, q.s_dot_stride, "s_dot");
    q.x_bar_dot = of.or_null(args.x_bar_dot, tangents * n, "x_bar_dot");
    q.s_partial = of.or_null(s_partial, tangents * blocks * c, "s_bar_dot");
    q.t_partial = of.or_null(t_partial, tangents * blocks * c, "t_bar_dot");
    q.rows = rows, q.channels = c, q.columns = d, q.tangents = tangents, q.add = args.add;
    Index s_stride = 0, t_stride = 0;
    T* s_bar_dot = of.parts_or_null(args.s_bar_dot, tangents, c, s_stride, "s_bar_dot");
    T* t_bar_dot = of.parts_or_null(args.t_bar_dot, tangents, c, t_stride, "t_bar_dot");
    if (by_rows) {
      const raw::ChannelRowsAdjointTangent<T> r{q.y_bar_dot,    q.y_bar,     q.x_dot,     q.x,   q.s, q.s_dot,
                                                q.x_bar_dot,    q.s_partial, q.t_partial, batch, c,   tangents,
                                                q.s_dot_stride, block,       blocks,      q.add};
      HESSPECT_RUN(channel_rows_adjoint_tangent, r, {blocks * tangents, c, block}, of.device());
    } else if (narrow(d)) {
      return narrow_adjoint_tangent(args);
    } else {
      HESSPECT_RUN(channel_adjoint_tangent, q, {rows * tangents, d}, of.device());
    }
    if (s_bar_dot != nullptr) add_partials<T>(s_partial, s_bar_dot, s_stride, tangents, blocks, c);
    if (t_bar_dot != nullptr) add_partials<T>(t_partial, t_bar_dot, t_stride, tangents, blocks, c);
  });
}

}  // namespace hesspect::fused
