#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "hesspect/core/buffer_sizes.h"
#include "hesspect/krylov/vector_math.h"

namespace hesspect {
namespace {

constexpr std::int64_t kColumns = 2048;  // of a chunk on the CPU, whatever the number of threads

void combine_columns(Rows rows, const at::Tensor& s, std::int64_t begin, std::int64_t length) {
  const at::NoGradGuard no_grad;
  const at::Tensor old = at::empty({s.size(1), length}, s.options());
  std::int64_t first = 0;
  for (const at::Tensor& block : rows) {
    old.narrow(0, first, block.size(0)).copy_(block.narrow(1, begin, length));
    first += block.size(0);
  }
  const at::Tensor combined = at::mm(s, old);
  first = 0;
  for (const at::Tensor& block : rows) {
    const std::int64_t count = std::min(block.size(0), s.size(0) - first);
    if (count <= 0) break;
    block.narrow(0, 0, count).narrow(1, begin, length).copy_(combined.narrow(0, first, count));
    first += count;
  }
}

}  // namespace

void combine_rows(Rows rows, std::span<const double> s, std::int64_t count) {
  if (rows.empty() || count == 0) return;
  const at::Tensor like = rows[0].select(0, 0);
  const std::int64_t r = detail::count_rows(rows, {&like, 1}), n = like.numel();
  detail::require(count <= r && static_cast<std::int64_t>(s.size()) == count * r, "as many coefficients as rows");
  at::Tensor matrix = at::empty({count, r}, at::kDouble);
  std::copy(s.begin(), s.end(), matrix.mutable_data_ptr<double>());
  if (like.is_cpu()) {
    at::parallel_for(0, (n + kColumns - 1) / kColumns, 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i)
        combine_columns(rows, matrix, i * kColumns, std::min(kColumns, n - i * kColumns));
    });
    return;
  }
  matrix = matrix.to(like.device());
  const std::int64_t columns = std::max<std::int64_t>(4096, kEntriesInDouble / (r + count));
  for (std::int64_t i = 0; i < n; i += columns) combine_columns(rows, matrix, i, std::min(columns, n - i));
}

}  // namespace hesspect
