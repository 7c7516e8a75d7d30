// vector_math.h in LibTorch's own operations.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "hesspect/core/buffer_sizes.h"
#include "hesspect/krylov/vector_math.h"
#include "row_checks.h"
#include "row_stream.h"

namespace hesspect::detail {
namespace {

/// Columns of a chunk, of which so many vectors are held in double.
std::int64_t chunk_columns(std::int64_t vectors) { return std::max<std::int64_t>(4096, kEntriesInDouble / vectors); }

/// The same where blocks of rows and vectors are.
std::int64_t chunk_columns(Rows rows, std::span<const at::Tensor> w) {
  std::int64_t most = 0;
  for (const at::Tensor& block : rows) most = std::max(most, block.size(0));
  return std::min(chunk_columns(most + static_cast<std::int64_t>(w.size())), w[0].numel());
}

/// Columns of the vectors in double, [vectors, length]: a single float64 vector as it lies, else a copy.
at::Tensor in_double(std::span<const at::Tensor> w, std::int64_t begin, std::int64_t length) {
  if (w.size() == 1) return w[0].narrow(0, begin, length).to(at::kDouble).unsqueeze(0);
  const at::Tensor parts = at::empty({static_cast<std::int64_t>(w.size()), length}, w[0].options().dtype(at::kDouble));
  for (std::size_t k = 0; k < w.size(); ++k)
    parts.select(0, static_cast<std::int64_t>(k)).copy_(w[k].narrow(0, begin, length));
  return parts;
}

}  // namespace

std::vector<double> portable_dots(Rows rows, std::span<const at::Tensor> w) {
  const at::NoGradGuard no_grad;
  const std::int64_t count = count_rows(rows, w), n = w[0].numel(), vectors = static_cast<std::int64_t>(w.size());
  const std::int64_t columns = chunk_columns(rows, w);
  RowStream stream(rows, w[0].device(), columns);
  at::Tensor total = at::zeros({vectors, count + 1}, w[0].options().dtype(at::kDouble));
  for (std::int64_t i = 0; i < n; i += columns) {
    const std::int64_t length = std::min(columns, n - i);
    const at::Tensor parts = in_double(w, i, length);
    stream.for_each(i, length, [&](const at::Tensor& piece, std::int64_t row) {
      const at::Tensor sums = total.narrow(1, row, piece.size(0));
      if (vectors == 1)
        sums.select(0, 0).addmv_(piece.to(at::kDouble), parts.select(0, 0));
      else
        sums.addmm_(parts, piece.to(at::kDouble).t());
    });
    for (std::int64_t k = 0; k < vectors; ++k) {
      const at::Tensor part = parts.select(0, k);
      total.select(0, k).narrow(0, count, 1).add_(at::dot(part, part));
    }
  }
  total = total.cpu();
  const double* values = total.const_data_ptr<double>();
  return {values, values + total.numel()};
}

void portable_subtract(Rows rows, std::span<const double> c, std::span<const at::Tensor> w) {
  const at::NoGradGuard no_grad;
  const std::int64_t count = count_rows(rows, w), n = w[0].numel(), vectors = static_cast<std::int64_t>(w.size());
  const std::int64_t columns = chunk_columns(rows, w);
  RowStream stream(rows, w[0].device(), columns);
  at::Tensor factors = at::empty({vectors, count}, at::TensorOptions().dtype(at::kDouble));
  std::copy(c.begin(), c.end(), factors.mutable_data_ptr<double>());
  factors = factors.to(w[0].device());
  for (std::int64_t i = 0; i < n; i += columns) {
    const std::int64_t length = std::min(columns, n - i);
    const at::Tensor sums = in_double(w, i, length);
    stream.for_each(i, length, [&](const at::Tensor& piece, std::int64_t row) {
      const at::Tensor c_piece = factors.narrow(1, row, piece.size(0));
      if (vectors == 1)
        sums.select(0, 0).addmv_(piece.to(at::kDouble).t(), c_piece.select(0, 0), 1, -1);
      else
        sums.addmm_(c_piece, piece.to(at::kDouble), 1, -1);
    });
    if (vectors == 1 && w[0].scalar_type() == at::kDouble) continue;  // updated in place
    for (std::int64_t k = 0; k < vectors; ++k)
      w[static_cast<std::size_t>(k)].narrow(0, i, length).copy_(sums.select(0, k));
  }
}

void portable_scale_into(const at::Tensor& x, double factor, at::Tensor& out) {
  const std::int64_t columns = chunk_columns(2);
  for (std::int64_t i = 0; i < x.numel(); i += columns) {
    const std::int64_t length = std::min(columns, x.numel() - i);
    out.narrow(0, i, length).copy_(x.narrow(0, i, length).to(at::kDouble).mul(factor));
  }
}

}  // namespace hesspect::detail
