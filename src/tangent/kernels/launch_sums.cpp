#include <ATen/ops/empty.h>
#include <ATen/ops/sort.h>

#include "launch.h"

namespace hesspect::fused {

void column_sums(const ColumnSums& args) {
  for_type_of(args.a, [&]<class T>(T) {
    const Pointers<T> of("column_sums", args.a);
    const Index d = args.columns, tangents = of.count(args.out, d, "out");
    const Index rows = of.count(args.a, tangents * d, "a"), block = rows_per_unit(of.device());
    const Index blocks = (rows + block - 1) / block;
    Index stride = 0;
    T* out = of.parts_or_null(args.out, tangents, d, stride, "out");
    const at::Tensor partial = at::empty({tangents, blocks, d}, args.a.options());
    const raw::ColumnSums<T> q{of.of(args.a, tangents * rows * d, "a"),
                               of.of(partial, tangents * blocks * d, "partial"),
                               rows,
                               d,
                               tangents,
                               block,
                               blocks};
    HESSPECT_RUN(column_sums, q, {blocks * tangents, d, block}, of.device());
    add_partials<T>(partial, out, stride, tangents, blocks, d);
  });
}

RowOrder order_rows(const at::Tensor& index) {
  auto [sorted, order] = at::sort(index.reshape({-1}), /*stable=*/true, /*dim=*/0, /*descending=*/false);
  return {sorted, order};
}

void rows_add(const RowsAdd& args) {
  for_type_of(args.src, [&]<class T>(T) {
    const Pointers<T> of("rows_add", args.src);
    const Index d = args.columns, rows = args.rows.sorted.numel();
    if (rows == 0 || d == 0) return;
    const Index tangents = of.count(args.src, rows * d, "src"), targets = of.count(args.out, tangents * d, "out");
    raw::RowsAdd<T> q{};
    q.sorted = of.index(args.rows.sorted, rows, "rows.sorted");
    q.order = of.index(args.rows.order, rows, "rows.order");
    q.src = of.of(args.src, tangents * rows * d, "src");
    q.out = of.parts_or_null(args.out, tangents, targets * d, q.out_stride, "out");
    q.rows = rows, q.columns = d, q.targets = targets, q.tangents = tangents, q.padding = args.padding_index;
    // An index out of range would write anywhere: the ends of the sorted index tell.
    if (!of.device().is_cuda() && (q.sorted[0] < 0 || q.sorted[rows - 1] >= targets))
      throw std::logic_error("fused kernel rows_add: an index lies outside the " + std::to_string(targets) + " rows");
    HESSPECT_RUN(rows_add, q, {rows * tangents, d}, of.device());
  });
}

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
    const auto partial = [&](const at::Tensor& sum) {
      return sum.defined() ? at::empty({tangents, rows}, like.options()) : at::Tensor();
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
    q.s_partial = of.or_null(s_partial, tangents * rows, "s_bar_dot");
    q.t_partial = of.or_null(t_partial, tangents * rows, "t_bar_dot");
    q.rows = rows, q.channels = c, q.columns = d, q.tangents = tangents, q.add = args.add;
    Index s_stride = 0, t_stride = 0;
    T* s_bar_dot = of.parts_or_null(args.s_bar_dot, tangents, c, s_stride, "s_bar_dot");
    T* t_bar_dot = of.parts_or_null(args.t_bar_dot, tangents, c, t_stride, "t_bar_dot");
    HESSPECT_RUN(channel_adjoint_tangent, q, {rows * tangents, d}, of.device());
    if (s_bar_dot != nullptr) add_partials<T>(s_partial, s_bar_dot, s_stride, tangents, batch, c);
    if (t_bar_dot != nullptr) add_partials<T>(t_partial, t_bar_dot, t_stride, tangents, batch, c);
  });
}

}  // namespace hesspect::fused
