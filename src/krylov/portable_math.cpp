// vector_math.h in LibTorch's own operations.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "hesspect/core/buffer_sizes.h"
#include "hesspect/krylov/vector_math.h"
#include "row_stream.h"

namespace hesspect::detail {
namespace {

/// Columns of a chunk, of which so many vectors are held in double.
std::int64_t chunk_columns(std::int64_t vectors) { return std::max<std::int64_t>(4096, kEntriesInDouble / vectors); }

/// Columns of the vectors in double, [vectors, length]: a single float64 vector as it lies, else a copy.
at::Tensor in_double(std::span<const at::Tensor> w, std::int64_t begin, std::int64_t length) {
  if (w.size() == 1) return w[0].narrow(0, begin, length).to(at::kDouble).unsqueeze(0);
  const at::Tensor parts = at::empty({static_cast<std::int64_t>(w.size()), length}, w[0].options().dtype(at::kDouble));
  for (std::size_t k = 0; k < w.size(); ++k)
    parts.select(0, static_cast<std::int64_t>(k)).copy_(w[k].narrow(0, begin, length));
  return parts;
}

/// Hands rows on in windows of kBasisBlockRows, whatever blocks they lie in: a product with a matrix rounds as its size
/// has it, and a resumed run's blocks are other ones.
class Windows {
 public:
  explicit Windows(std::int64_t rows) : rows_(rows) {}

  /// @param piece  rows [row, row + …), in order
  /// @param use    use(rows of a window, its first row)
  template <class Use>
  void take(at::Tensor piece, std::int64_t row, Use&& use) {
    while (piece.size(0) > 0) {
      const std::int64_t begin = row / kBasisBlockRows * kBasisBlockRows,
                         end = std::min(begin + kBasisBlockRows, rows_);
      const std::int64_t count = std::min(piece.size(0), end - row);
      const at::Tensor part = piece.narrow(0, 0, count);
      if (count == end - begin) {
        use(part, begin);
      } else {
        if (row == begin) held_ = at::empty({end - begin, part.size(1)}, part.options().dtype(at::kDouble));
        held_.narrow(0, row - begin, count).copy_(part);
        if (row + count == end) use(held_, begin);
      }
      piece = piece.narrow(0, count, piece.size(0) - count);
      row += count;
    }
  }

 private:
  std::int64_t rows_;
  at::Tensor held_;  // of a window that lies in several blocks
};

/// Chunk by chunk: add(piece of a block, its first row, columns of the vectors) for all blocks, then done(columns of
/// the vectors, first column). Pieces are of kBasisBlockRows rows.
template <class Add, class Done>
void for_each_chunk(Rows rows, std::span<const at::Tensor> w, Add&& add, Done&& done) {
  std::int64_t most = kBasisBlockRows, count = 0;  // of a block; at least these, so that chunks don't go by the blocks
  for (const at::Tensor& block : rows) most = std::max(most, block.size(0)), count += block.size(0);
  const std::int64_t held = most + static_cast<std::int64_t>(w.size());
  const std::int64_t n = w[0].numel(), columns = std::min(chunk_columns(held), n);
  RowStream stream(rows, w[0].device(), columns);
  for (std::int64_t i = 0; i < n; i += columns) {
    const at::Tensor parts = in_double(w, i, std::min(columns, n - i));
    Windows windows(count);
    stream.for_each(i, parts.size(1), [&](const at::Tensor& piece, std::int64_t row) {
      windows.take(piece, row, [&](const at::Tensor& window, std::int64_t first) { add(window, first, parts); });
    });
    done(parts, i);
  }
}

}  // namespace

std::vector<double> portable_dots(Rows rows, std::span<const at::Tensor> w) {
  const at::NoGradGuard no_grad;
  const std::int64_t count = count_rows(rows, w), vectors = static_cast<std::int64_t>(w.size());
  at::Tensor total = at::zeros({vectors, count + 1}, w[0].options().dtype(at::kDouble));
  const auto add = [&](const at::Tensor& piece, std::int64_t row, const at::Tensor& parts) {
    const at::Tensor sums = total.narrow(1, row, piece.size(0));
    if (vectors == 1)
      sums.select(0, 0).addmv_(piece.to(at::kDouble), parts.select(0, 0));
    else
      sums.addmm_(parts, piece.to(at::kDouble).t());
  };
  for_each_chunk(rows, w, add, [&](const at::Tensor& parts, std::int64_t) {
    for (std::int64_t k = 0; k < vectors; ++k) {
      const at::Tensor part = parts.select(0, k);
      total.select(0, k).narrow(0, count, 1).add_(at::dot(part, part));
    }
  });
  total = total.cpu();
  const double* values = total.const_data_ptr<double>();
  return {values, values + total.numel()};
}

void portable_subtract(Rows rows, std::span<const double> c, std::span<const at::Tensor> w) {
  const at::NoGradGuard no_grad;
  const std::int64_t count = count_rows(rows, w), vectors = static_cast<std::int64_t>(w.size());
  at::Tensor factors = at::empty({vectors, count}, at::TensorOptions().dtype(at::kDouble));
  std::copy(c.begin(), c.end(), factors.mutable_data_ptr<double>());
  factors = factors.to(w[0].device());
  const auto add = [&](const at::Tensor& piece, std::int64_t row, const at::Tensor& parts) {
    const at::Tensor c_piece = factors.narrow(1, row, piece.size(0));
    if (vectors == 1)
      parts.select(0, 0).addmv_(piece.to(at::kDouble).t(), c_piece.select(0, 0), 1, -1);
    else
      parts.addmm_(c_piece, piece.to(at::kDouble), 1, -1);
  };
  for_each_chunk(rows, w, add, [&](const at::Tensor& parts, std::int64_t begin) {
    if (vectors == 1 && w[0].scalar_type() == at::kDouble) return;  // updated in place
    for (std::int64_t k = 0; k < vectors; ++k)
      w[static_cast<std::size_t>(k)].narrow(0, begin, parts.size(1)).copy_(parts.select(0, k));
  });
}

void portable_scale_into(const at::Tensor& x, double factor, at::Tensor& out) {
  const std::int64_t columns = chunk_columns(2);
  for (std::int64_t i = 0; i < x.numel(); i += columns) {
    const std::int64_t length = std::min(columns, x.numel() - i);
    out.narrow(0, i, length).copy_(x.narrow(0, i, length).to(at::kDouble).mul(factor));
  }
}

}  // namespace hesspect::detail
