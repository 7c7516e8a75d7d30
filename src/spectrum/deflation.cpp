#include "hesspect/spectrum/deflation.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <numeric>

#include "hesspect/comm/agree.h"
#include "hesspect/core/buffer_sizes.h"
#include "hesspect/krylov/vector_math.h"

namespace hesspect {
namespace {

/// Entries of a piece of all rows that are multiplied with each other.
constexpr std::int64_t kPiece = 32768;

/// Calls use(layer, begin, length) for each layer's part of the shard's entries [first, last), counted from its begin.
template <class Use>
void for_each_part(const Shard& shard, const LayerOffsets& offsets, std::int64_t first, std::int64_t last, Use&& use) {
  shard.for_each_piece([&](std::int64_t position, std::int64_t begin, std::int64_t size) {
    // A piece may hold parts of many layers, and a layer may lie in many pieces.
    const std::int64_t low = std::max(position, first), high = std::min(position + size, last);
    if (low >= high) return;
    const auto layer = std::ranges::upper_bound(offsets, begin + (low - position));
    for (auto l = static_cast<std::size_t>(std::max<std::ptrdiff_t>(layer - offsets.begin(), 1) - 1);
         l + 1 < offsets.size(); ++l) {
      const std::int64_t from = std::max(offsets[l] - begin + position, low);
      const std::int64_t to = std::min(offsets[l + 1] - begin + position, high);
      if (from < to) use(l, from, to - from);
      if (offsets[l + 1] - begin + position >= high) break;
    }
  });
}

}  // namespace

std::vector<double> layer_dots(Communicator& comm, const Shard& shard, const LayerOffsets& offsets, const at::Tensor& a,
                               const at::Tensor& b) {
  if (offsets.empty()) return {};
  const at::NoGradGuard no_grad;
  std::vector<double> sums(offsets.size() - 1, 0.0);
  for_each_part(shard, offsets, 0, shard.chunk, [&](std::size_t layer, std::int64_t from, std::int64_t length) {
    sums[layer] += dot_product(a.narrow(0, from, length), b.narrow(0, from, length));
  });
  return comm.sum(std::move(sums));
}

TraceSample trace_sample(const LinearOperator& op, const LayerOffsets& offsets, std::int64_t probe, const at::Tensor& z,
                         const at::Tensor& hz) {
  const at::Tensor row[1] = {z.unsqueeze(0)};
  const std::vector<double> sums = op.comm().sum(dots(Rows(row), hz));
  return {probe, sums[0], sums[1], layer_dots(op.comm(), op.shard(), offsets, z, hz)};
}

/// A probe against the basis. Names as in deflation.h: h = VᵀHz, and c q_r what PHV brings in.
struct KrylovDeflation::Split {
  std::vector<double> d;  // Qᵀz [m], and q_nextᵀz
  std::vector<double> h;  // [r]
  double last = 0;        // q_rᵀHz
  double c = 0;           // t · Vᵀz
};

KrylovDeflation::KrylovDeflation(const LinearOperator& op, const Lanczos& run, const LayerOffsets& offsets)
    : op_(op), offsets_(offsets), all_(run.basis_rows()), projection_(run.t().projection()) {
  const std::int64_t m = projection_.rows;
  const std::int64_t stored = std::accumulate(all_.begin(), all_.end(), std::int64_t{0},
                                              [](std::int64_t sum, const at::Tensor& b) { return sum + b.size(0); });
  closed_ = stored == m;
  rank_ = closed_ ? m : m - 1;
  const LayerOffsets whole{0, op.shard().n};
  const LayerOffsets& sums_over = offsets_.empty() ? whole : offsets_;
  const std::vector<double> sums = op.comm().sum(agreed(op.comm(), [&] { return captured_over(sums_over); }));
  captured_ = std::accumulate(sums.begin(), sums.end(), 0.0);
  if (!offsets_.empty()) layers_ = sums;
}

/// This rank's part of the captured diagonal, summed over each layer. Rows that are as the vectors are need no copies
/// in double.
std::vector<double> KrylovDeflation::captured_over(const LayerOffsets& offsets) const {
  const at::NoGradGuard no_grad;
  std::vector<double> sums(offsets.size() - 1, 0.0);
  const bool as_vectors = std::ranges::all_of(all_, [&](const at::Tensor& b) {
    return b.dtype() == op_.options().dtype() && b.device() == op_.options().device();
  });
  if (!as_vectors) {
    for_each_piece([&](std::int64_t begin, const at::Tensor& diagonal) {
      const std::int64_t end = begin + diagonal.numel();
      for_each_part(op_.shard(), offsets, begin, end, [&](std::size_t layer, std::int64_t from, std::int64_t length) {
        sums[layer] += diagonal.narrow(0, from - begin, length).sum().item<double>();
      });
    });
    return sums;
  }
  std::vector<at::Tensor> rows;
  for (const at::Tensor& block : all_)
    for (std::int64_t row = 0; row < block.size(0); ++row) rows.push_back(block.select(0, row));
  if (rows.empty()) return sums;  // of a matrix that is zero there is no Krylov space
  // On a CPU, pieces are so short that all rows' stay in the cache while each is multiplied with its neighbours.
  const bool on_cpu = rows.front().is_cpu();
  const std::int64_t longest = on_cpu ? kPiece : op_.shard().chunk;
  struct Piece {
    std::size_t layer;
    std::int64_t from, length;
    double sum;
  };
  std::vector<Piece> pieces;
  for_each_part(op_.shard(), offsets, 0, op_.shard().chunk,
                [&](std::size_t layer, std::int64_t from, std::int64_t length) {
                  for (std::int64_t i = 0; i < length; i += longest)
                    pieces.push_back({layer, from + i, std::min(longest, length - i), 0});
                });
  const auto sum_over = [&](const Piece& piece) {
    double sum = 0;
    std::vector<at::Tensor> parts;
    for (const at::Tensor& row : rows) parts.push_back(row.narrow(0, piece.from, piece.length));
    const auto add = [&](std::int64_t i, std::int64_t j, double factor) {
      if (factor != 0)
        sum += factor * dot_product(parts[static_cast<std::size_t>(i)], parts[static_cast<std::size_t>(j)]);
    };
    for (std::int64_t i = 0; i < taken_rows(); ++i) {
      for (std::int64_t j = 0; j < i; ++j) add(i, j, 2 * entry(i, j));
      if (i < rank_) add(i, i, entry(i, i));
    }
    return sum;
  };
  const auto sum_pieces = [&](std::int64_t first, std::int64_t last) {
    const at::NoGradGuard in_each_thread;
    for (Piece& piece :
         std::span(pieces).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(last - first)))
      piece.sum = sum_over(piece);
  };
  const auto count = static_cast<std::int64_t>(pieces.size());
  if (on_cpu)
    at::parallel_for(0, count, 1, sum_pieces);
  else
    sum_pieces(0, count);
  for (const Piece& piece : pieces) sums[piece.layer] += piece.sum;
  return sums;
}

double KrylovDeflation::entry(std::int64_t i, std::int64_t j) const {
  return projection_.t[static_cast<std::size_t>(i * projection_.rows + j)];
}

double KrylovDeflation::captured_sq() const {
  double sum = 0;
  for (std::int64_t i = 0; i < taken_rows(); ++i)
    for (std::int64_t j = 0; j < rank_; ++j) sum += (i < rank_ ? 1 : 2) * entry(i, j) * entry(i, j);
  return sum;
}

template <class Use>
void KrylovDeflation::for_each_piece(Use&& use) const {
  const at::NoGradGuard no_grad;
  const std::int64_t chunk = op_.shard().chunk, columns = std::min(chunk, kEntriesInDouble / 4);
  const auto options = op_.options().dtype(at::kDouble);
  for (std::int64_t begin = 0; begin < chunk; begin += columns) {
    const std::int64_t length = std::min(columns, chunk - begin);
    const auto piece = [&](std::int64_t row) {
      for (const at::Tensor& block : all_) {
        if (row < block.size(0)) return block.select(0, row).narrow(0, begin, length).to(options);
        row -= block.size(0);
      }
      return at::Tensor();
    };
    at::Tensor diagonal = at::zeros({length}, options);
    for (std::int64_t i = 0; i < taken_rows(); ++i) {
      at::Tensor sum = at::zeros({length}, options);
      for (std::int64_t j = 0; j < i; ++j)
        if (entry(i, j) != 0) sum.add_(piece(j), 2 * entry(i, j));
      const at::Tensor own = piece(i);
      if (i < rank_) sum.add_(own, entry(i, i));
      diagonal.addcmul_(own, sum);
    }
    use(begin, diagonal);
  }
}

at::Tensor KrylovDeflation::captured_diagonal() const {
  at::Tensor whole = at::empty({op_.shard().chunk}, op_.options().dtype(at::kDouble));
  for_each_piece([&](std::int64_t begin, const at::Tensor& diagonal) {
    whole.narrow(0, begin, diagonal.numel()).copy_(diagonal);
  });
  return whole;
}

std::vector<KrylovDeflation::Split> KrylovDeflation::split(std::span<const at::Tensor> z) const {
  const std::int64_t m = projection_.rows;
  const std::vector<double> sums = op_.comm().sum(dots_block(all_, z));
  std::vector<Split> splits(z.size());
  for (std::size_t k = 0; k < z.size(); ++k) {
    Split& s = splits[k];
    const std::span<const double> d = coefficients(dots_of(sums, z.size(), k));
    s.d.assign(d.begin(), d.end());
    const auto times = [&](std::int64_t row, std::int64_t columns) {
      double sum = 0;
      for (std::int64_t j = 0; j < columns; ++j) sum += entry(row, j) * s.d[static_cast<std::size_t>(j)];
      return sum;
    };
    for (std::int64_t i = 0; i < rank_; ++i) s.h.push_back(times(i, m));
    if (closed_) continue;
    s.last = times(rank_, m) + projection_.beta * s.d.back();
    s.c = times(rank_, rank_);
  }
  return splits;
}

std::vector<DeflatedSample> KrylovDeflation::deflated(std::span<const TraceSample> samples,
                                                      std::span<const at::Tensor> z) const {
  if (samples.empty()) return {};
  const std::vector<Split> splits = split(z);
  std::vector<DeflatedSample> left;
  for (std::size_t k = 0; k < samples.size(); ++k) {
    const TraceSample& sample = samples[k];
    const Split& s = splits[k];
    DeflatedSample one{sample.probe, sample.quadratic_form, sample.product_norm_sq, sample.layers};
    for (std::size_t j = 0; j < s.h.size(); ++j) {
      one.quadratic_form -= s.d[j] * s.h[j];
      one.product_norm_sq -= s.h[j] * s.h[j];
    }
    if (!closed_) one.quadratic_form -= s.c * s.d[static_cast<std::size_t>(rank_)];
    one.product_norm_sq += s.c * (s.c - 2 * s.last);
    one.product_norm_sq = std::max(0.0, one.product_norm_sq);  // rounding, where the space holds everything
    left.push_back(std::move(one));
  }
  if (offsets_.empty()) return left;
  std::vector<at::Tensor> taken;
  agree(op_.comm(), [&] {
    for (const at::Tensor& probe : z) taken.push_back(at::zeros_like(probe));
  });
  subtract_from(taken, splits);
  for (std::size_t k = 0; k < left.size(); ++k) {
    const std::vector<double> sums = layer_dots(op_.comm(), op_.shard(), offsets_, z[k], taken[k]);
    for (std::size_t l = 0; l < left[k].layers.size(); ++l) left[k].layers[l] += sums[l];
  }
  return left;
}

/// vector −= V h + c q_r, each.
void KrylovDeflation::subtract_from(std::span<at::Tensor> vectors, std::span<const Split> splits) const {
  std::vector<double> factors;
  for (const Split& s : splits) {
    factors.insert(factors.end(), s.h.begin(), s.h.end());
    if (!closed_) factors.push_back(s.c);
  }
  subtract_block(rows_of(all_, 0, taken_rows()), factors, vectors);
}

at::Tensor KrylovDeflation::remainder(const at::Tensor& z, const at::Tensor& hz) const {
  at::Tensor left = hz.clone();
  subtract_from(std::span(&left, 1), split(std::span(&z, 1)));
  return left;
}

}  // namespace hesspect
