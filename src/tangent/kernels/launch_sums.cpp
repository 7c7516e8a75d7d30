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

}  // namespace hesspect::fused
