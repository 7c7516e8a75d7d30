#include "hesspect/krylov/block_lanczos.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/krylov/orthonormal.h"
#include "hesspect/krylov/vector_math.h"

namespace hesspect {
BlockLanczos::BlockLanczos(LinearOperator& op, std::span<const at::Tensor> starts)
    : comm_(&op.comm()),
      n_(op.shard().n),
      tolerance_(drop_tolerance(c10::typeMetaToScalarType(op.options().dtype()))),
      rounding_unit_(rounding_unit(c10::typeMetaToScalarType(op.options().dtype()))),
      basis_(op.shard().chunk, op.options()),
      begin_{0} {
  const at::NoGradGuard no_grad;
  agree(*comm_, [&] {
    for (const at::Tensor& start : starts) work_.push_back(start.clone());
  });
  if (work_.empty()) throw Error(ExitCode::kInternal, "BlockLanczos: no start vector");
  const Orthonormalised start = append_orthonormal(*comm_, basis_, work_, {.n = n_, .tolerance = tolerance_});
  if (start.added == 0) throw NumericalError(0, start.norms[0], "the start vectors of block Lanczos are zero");
}

std::int64_t BlockLanczos::extend(LinearOperator& op, std::int64_t products, const std::function<void()>& on_step) {
  const at::NoGradGuard no_grad;
  const std::int64_t target = products_ + products, before = products_;
  while (products_ < target && !closed()) {
    const auto size = static_cast<std::size_t>(std::min(next_rows(), target - products_));
    const std::span<at::Tensor> y = std::span(work_).first(size);
    op.apply_block(basis_.vectors(rows(), static_cast<std::int64_t>(size)), y);
    Orthonormalised step =
        append_orthonormal(*comm_, basis_, y, {.n = n_, .tolerance = tolerance_, .scale = scale_, .step = products_});
    for (std::vector<double>& column : step.coefficients) columns_.push_back(std::move(column));
    for (const double norm : step.norms) scale_ = std::max(scale_, norm);
    products_ += static_cast<std::int64_t>(size);
    if (on_step) on_step();
  }
  return products_ - before;
}

bool BlockLanczos::restart(const at::Tensor& start) {
  const at::NoGradGuard no_grad;
  if (complete()) return false;
  const bool opens = closed();
  // Together they are no more than the first block: the work vectors are as many.
  if (next_rows() >= static_cast<std::int64_t>(work_.size()))
    throw Error(ExitCode::kInternal, "BlockLanczos::restart: the next block is full");
  work_[0].copy_(start);
  const Orthonormalised fresh =
      append_orthonormal(*comm_, basis_, std::span(work_).first(1), {.n = n_, .tolerance = tolerance_});
  if (fresh.added == 0) return false;
  if (opens) begin_.push_back(rows());
  return true;
}

/// T_ij: its two computed values differ by rounding, or by what was dropped.
double BlockLanczos::entry(std::size_t i, std::size_t j) const {
  const auto at = [&](std::size_t row, std::size_t column) {
    return row < columns_[column].size() ? columns_[column][row] : 0.0;
  };
  return (at(i, j) + at(j, i)) / 2;
}

/// An eigenpair of T.
struct BlockLanczos::Eigen {
  RitzPair pair;
  std::vector<double> s;         // [rows]
  std::vector<double> coupling;  // [next_rows]: Bᵀ s
};

/// All of them, found by T's diagonal blocks, ascending.
std::vector<BlockLanczos::Eigen> BlockLanczos::eigen() const {
  const at::NoGradGuard no_grad;
  std::vector<Eigen> all;
  const auto m = static_cast<std::size_t>(rows());
  for (std::size_t b = 0; b < begin_.size(); ++b) {
    const auto begin = static_cast<std::size_t>(begin_[b]);
    const std::size_t size = (b + 1 < begin_.size() ? static_cast<std::size_t>(begin_[b + 1]) : m) - begin;
    if (size == 0) continue;
    at::Tensor t = at::empty({static_cast<std::int64_t>(size), static_cast<std::int64_t>(size)}, at::kDouble);
    double* entries = t.mutable_data_ptr<double>();
    for (std::size_t i = 0; i < size; ++i)
      for (std::size_t j = 0; j < size; ++j) entries[i * size + j] = entry(begin + i, begin + j);
    const auto [values, columns] = at::linalg_eigh(t, "L");
    const at::Tensor by_row = columns.t().contiguous();  // eigenvector i in row i
    for (std::size_t i = 0; i < size; ++i) {
      const double* s = by_row.const_data_ptr<double>() + i * size;
      std::vector<double> vector(m, 0.0), coupling(static_cast<std::size_t>(next_rows()), 0.0);
      std::copy_n(s, size, vector.begin() + static_cast<std::ptrdiff_t>(begin));
      for (std::size_t j = 0; j < size; ++j) {
        const std::vector<double>& column = columns_[begin + j];
        for (std::size_t p = m; p < column.size(); ++p) coupling[p - m] += column[p] * s[j];
      }
      const double residual = std::sqrt(std::inner_product(coupling.begin(), coupling.end(), coupling.begin(), 0.0));
      all.push_back({{values.const_data_ptr<double>()[i], residual, s[0], b}, std::move(vector), std::move(coupling)});
    }
  }
  std::ranges::stable_sort(all, {}, [](const Eigen& one) { return one.pair.value; });
  return all;
}

std::vector<RitzPair> BlockLanczos::ritz_pairs() const {
  std::vector<RitzPair> pairs;
  for (const Eigen& one : eigen()) pairs.push_back(one.pair);
  return pairs;
}

std::vector<double> BlockLanczos::ritz_coefficients(std::span<const std::size_t> indices) const {
  const std::vector<Eigen> eigen = this->eigen();
  std::vector<double> all;
  for (const std::size_t i : indices) all.insert(all.end(), eigen.at(i).s.begin(), eigen.at(i).s.end());
  return all;
}

at::Tensor BlockLanczos::ritz_vector(std::span<const double> s) const {
  const at::NoGradGuard no_grad;
  if (static_cast<std::int64_t>(s.size()) != rows())
    throw Error(ExitCode::kInternal, "BlockLanczos::ritz_vector: the coefficients don't fit the rows");
  at::Tensor vector = at::empty_like(work_[0]);
  combine_into(basis_.head(rows()), s, vector);
  return vector;
}

// With T s = θ s, y = Q s: A y = θ y + Q₊ Bᵀ s. The next block stays as it is, and T becomes an arrow. What all of it
// rests on are small eigenproblems that each rank has solved for itself: rank 0's numbers count.
void BlockLanczos::thick_restart(std::span<const std::size_t> keep) {
  const at::NoGradGuard no_grad;
  const auto m = static_cast<std::size_t>(rows()), next = static_cast<std::size_t>(next_rows());
  const std::vector<Eigen> old = eigen();
  std::vector<double> kept_here(m, 0.0);  // 1 + the diagonal block of each pair that is kept
  for (const std::size_t i : keep) kept_here.at(i) = 1 + static_cast<double>(old[i].pair.block);
  const std::vector<double> kept = comm_->of_rank0(std::move(kept_here));

  // θ, s and Bᵀ s of each, by diagonal blocks.
  std::vector<double> numbers;
  std::vector<std::int64_t> begin;
  std::size_t count = 0;
  for (std::size_t b = 0; b < begin_.size(); ++b) {
    begin.push_back(static_cast<std::int64_t>(count));
    for (std::size_t i = 0; i < m; ++i) {
      if (kept[i] != 1 + static_cast<double>(b)) continue;
      numbers.push_back(old[i].pair.value);
      numbers.insert(numbers.end(), old[i].s.begin(), old[i].s.end());
      numbers.insert(numbers.end(), old[i].coupling.begin(), old[i].coupling.end());
      ++count;
    }
  }
  numbers = comm_->of_rank0(std::move(numbers));

  const std::size_t width = 1 + m + next, now = count + next;
  std::vector<double> combination(now * (m + next), 0.0);
  columns_.assign(count, std::vector<double>(now, 0.0));
  for (std::size_t i = 0; i < count; ++i) {
    const double* from = numbers.data() + i * width;
    columns_[i][i] = from[0];
    std::copy_n(from + 1, m, combination.begin() + static_cast<std::ptrdiff_t>(i * (m + next)));
    std::copy_n(from + 1 + m, next, columns_[i].begin() + static_cast<std::ptrdiff_t>(count));
  }
  for (std::size_t p = 0; p < next; ++p) combination[(count + p) * (m + next) + m + p] = 1;
  agree(*comm_, [&] { combine_rows(basis_.head(basis_.rows()), combination, static_cast<std::int64_t>(now)); });
  basis_.truncate(static_cast<std::int64_t>(now));
  begin_ = std::move(begin);
  ++thick_restarts_;
}

}  // namespace hesspect
