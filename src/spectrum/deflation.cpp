#include "hesspect/spectrum/deflation.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <numeric>

#include "hesspect/krylov/block_sizes.h"
#include "hesspect/krylov/vector_math.h"

namespace hesspect {
namespace {

std::vector<double> reduced(Communicator& comm, std::vector<double> sums) {
  comm.all_reduce_sum(std::span<double>(sums));
  return sums;
}

/// The first `count` of the stacked rows.
std::vector<at::Tensor> first_rows(const std::vector<at::Tensor>& blocks, std::int64_t count) {
  std::vector<at::Tensor> first;
  for (const at::Tensor& block : blocks) {
    if (count == 0) break;
    const std::int64_t rows = std::min(count, block.size(0));
    first.push_back(block.narrow(0, 0, rows));
    count -= rows;
  }
  return first;
}

/// Calls use(layer, begin, length) for each layer's part of the shard's entries [first, last), counted from its begin.
template <class Use>
void for_each_part(const Shard& shard, const LayerOffsets& offsets, std::int64_t first, std::int64_t last, Use&& use) {
  for (std::size_t l = 0; l + 1 < offsets.size(); ++l) {
    const std::int64_t from = std::max(offsets[l] - shard.begin(), first);
    const std::int64_t to = std::min(offsets[l + 1] - shard.begin(), last);
    if (from < to) use(l, from, to - from);
  }
}

}  // namespace

std::vector<double> layer_dots(Communicator& comm, const Shard& shard, const LayerOffsets& offsets, const at::Tensor& a,
                               const at::Tensor& b) {
  if (offsets.empty()) return {};
  const at::NoGradGuard no_grad;
  std::vector<double> sums(offsets.size() - 1, 0.0);
  for_each_part(shard, offsets, 0, shard.size(), [&](std::size_t layer, std::int64_t from, std::int64_t length) {
    sums[layer] = dot_product(a.narrow(0, from, length), b.narrow(0, from, length));
  });
  return reduced(comm, std::move(sums));
}

TraceSample trace_sample(const LinearOperator& op, const LayerOffsets& offsets, std::int64_t probe, const at::Tensor& z,
                         const at::Tensor& hz) {
  const at::Tensor row[1] = {z.unsqueeze(0)};
  const std::vector<double> sums = reduced(op.comm(), dots(Rows(row), hz));
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
    : op_(op), offsets_(offsets), all_(run.basis_rows()), projection_(run.projection()) {
  const std::int64_t m = projection_.rows;
  const std::int64_t stored = std::accumulate(all_.begin(), all_.end(), std::int64_t{0},
                                              [](std::int64_t sum, const at::Tensor& b) { return sum + b.size(0); });
  closed_ = stored == m;
  rank_ = closed_ ? m : m - 1;
  const LayerOffsets whole{0, op.shard().n};
  const LayerOffsets& sums_over = offsets_.empty() ? whole : offsets_;
  std::vector<double> sums(sums_over.size() - 1, 0.0);
  for_each_piece([&](std::int64_t begin, const at::Tensor& diagonal) {
    const std::int64_t end = std::min(begin + diagonal.numel(), op_.shard().size());
    for_each_part(op_.shard(), sums_over, begin, end, [&](std::size_t layer, std::int64_t from, std::int64_t length) {
      sums[layer] += diagonal.narrow(0, from - begin, length).sum().item<double>();
    });
  });
  sums = reduced(op.comm(), std::move(sums));
  captured_ = std::accumulate(sums.begin(), sums.end(), 0.0);
  if (!offsets_.empty()) layers_ = std::move(sums);
}

double KrylovDeflation::entry(std::int64_t i, std::int64_t j) const {
  return projection_.t[static_cast<std::size_t>(i * projection_.rows + j)];
}

template <class Use>
void KrylovDeflation::for_each_piece(Use&& use) const {
  const at::NoGradGuard no_grad;
  const std::int64_t chunk = op_.shard().chunk, columns = std::min(chunk, kEntriesInDouble / 4);
  const auto options = op_.options().dtype(at::kDouble);
  const std::int64_t rows = closed_ ? rank_ : rank_ + 1;
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
    for (std::int64_t i = 0; i < rows; ++i) {
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

KrylovDeflation::Split KrylovDeflation::split(const at::Tensor& z) const {
  Split s;
  s.d = reduced(op_.comm(), dots(all_, z));
  s.d.pop_back();  // zᵀz
  const std::int64_t m = projection_.rows;
  const auto times = [&](std::int64_t row, std::int64_t columns) {
    double sum = 0;
    for (std::int64_t j = 0; j < columns; ++j) sum += entry(row, j) * s.d[static_cast<std::size_t>(j)];
    return sum;
  };
  for (std::int64_t i = 0; i < rank_; ++i) s.h.push_back(times(i, m));
  if (closed_) return s;
  s.last = times(rank_, m) + projection_.beta * s.d.back();
  s.c = times(rank_, rank_);
  return s;
}

DeflatedSample KrylovDeflation::deflated(const TraceSample& sample, const at::Tensor& z) const {
  const Split s = split(z);
  DeflatedSample left{sample.probe, sample.quadratic_form, sample.product_norm_sq, sample.layers};
  for (std::size_t j = 0; j < s.h.size(); ++j) {
    left.quadratic_form -= s.d[j] * s.h[j];
    left.product_norm_sq -= s.h[j] * s.h[j];
  }
  if (!closed_) left.quadratic_form -= s.c * s.d[static_cast<std::size_t>(rank_)];
  left.product_norm_sq += s.c * (s.c - 2 * s.last);
  left.product_norm_sq = std::max(0.0, left.product_norm_sq);  // rounding, where the space holds everything
  if (left.layers.empty()) return left;
  at::Tensor taken = at::zeros_like(z);
  subtract_from(taken, s);
  const std::vector<double> sums = layer_dots(op_.comm(), op_.shard(), offsets_, z, taken);  // of what was taken away
  for (std::size_t l = 0; l < sums.size(); ++l) left.layers[l] += sums[l];
  return left;
}

/// vector −= V h + c q_r.
void KrylovDeflation::subtract_from(at::Tensor& vector, const Split& s) const {
  std::vector<double> factors = s.h;
  if (!closed_) factors.push_back(s.c);
  subtract(first_rows(all_, static_cast<std::int64_t>(factors.size())), factors, vector);
}

at::Tensor KrylovDeflation::remainder(const at::Tensor& z, const at::Tensor& hz) const {
  at::Tensor left = hz.clone();
  subtract_from(left, split(z));
  return left;
}

}  // namespace hesspect
