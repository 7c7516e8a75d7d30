#include "hesspect/krylov/lanczos.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/krylov/tridiagonal.h"
#include "hesspect/krylov/vector_math.h"

namespace hesspect {
namespace {

// Well above a product's rounding, which division by the β before has amplified by the time a space closes, and far
// below anything read off the result. A closed space that passes unseen does no harm: the run goes on in a direction
// that rounding has chosen, with next to no weight.
double default_tolerance(const at::TensorOptions& options) {
  return c10::typeMetaToScalarType(options.dtype()) == at::kDouble
             ? 1e-12
             : 10 * static_cast<double>(std::numeric_limits<float>::epsilon());
}

double epsilon(const at::TensorOptions& options) {
  return c10::typeMetaToScalarType(options.dtype()) == at::kDouble
             ? std::numeric_limits<double>::epsilon()
             : static_cast<double>(std::numeric_limits<float>::epsilon());
}

/// The coefficients of a result of `dots`, without w · w.
std::span<const double> coefficients(const std::vector<double>& sums) {
  return std::span<const double>(sums).first(sums.size() - 1);
}

}  // namespace

Lanczos::Lanczos(LinearOperator& op, const at::Tensor& start_local, const LanczosOptions& options)
    : options_(options), comm_(&op.comm()), n_(op.shard().n), basis_(op.shard().chunk, op.options()) {
  const at::NoGradGuard no_grad;
  if (options_.breakdown_tolerance <= 0) options_.breakdown_tolerance = default_tolerance(op.options());
  rounding_unit_ = 10 * epsilon(op.options());
  agree(*comm_, [&] {
    if (start_local.numel() != op.shard().chunk)
      throw Error(ExitCode::kInternal, "Lanczos: the start vector's shard has " + std::to_string(start_local.numel()) +
                                           " entries, the operator's " + std::to_string(op.shard().chunk));
    work_ = at::empty({op.shard().chunk}, op.options());
    basis_.reserve(2);
  });
  start_norm_sq_ = reduced({norm_sq(start_local)})[0];
  if (!std::isfinite(start_norm_sq_) || start_norm_sq_ == 0)
    throw NumericalError(0, start_norm_sq_,
                         "the Lanczos start vector has squared norm " + std::to_string(start_norm_sq_));
  begin_block(start_local, std::sqrt(start_norm_sq_));
}

std::vector<double> Lanczos::reduced(std::vector<double> sums) const {
  comm_->all_reduce_sum(std::span<double>(sums));
  return sums;
}

void Lanczos::begin_block(const at::Tensor& vector, double norm) {
  at::Tensor row = basis_.append();
  scale_into(vector, 1 / norm, row);
  blocks_.push_back(Block{steps(), steps(), false, 0});
}

std::int64_t Lanczos::extend(LinearOperator& op, std::int64_t steps_wanted, const StepCallback& on_step) {
  const at::NoGradGuard no_grad;
  const std::int64_t before = steps();
  if (options_.reorthogonalisation == Reorthogonalisation::kFull) {
    const std::int64_t rows = std::min(before + steps_wanted + 1, n_);
    if (rows > basis_.capacity()) agree(*comm_, [&] { basis_.reserve(rows); });
  }
  while (steps() < before + steps_wanted && !breakdown()) {
    step(op);
    if (on_step) on_step(*this);
  }
  return steps() - before;
}

// Golub & Van Loan, Matrix Computations 4e, §10.1 (the recurrence) and §10.3.4 (re-orthogonalisation).
void Lanczos::step(LinearOperator& op) {
  const bool full = options_.reorthogonalisation == Reorthogonalisation::kFull;
  const std::int64_t last = basis_.rows() - 1;  // the row that q_j is in
  op.apply(basis_.row(last), work_);

  const std::vector<at::Tensor> rows = basis_.head(last + 1);
  const std::vector<double> h = reduced(dots(rows, work_));
  for (const double sum : h)
    if (!std::isfinite(sum))
      throw NumericalError(steps(), sum,
                           "the product of Lanczos step " + std::to_string(steps()) +
                               " is not finite (a sum over it is " + std::to_string(sum) +
                               "): loss or weights overflow, or hold NaN");
  scale_ = std::max(scale_, std::sqrt(h.back()));

  // The second projection mends what rounding left of the first; it costs one pass since it shares the first update's.
  const std::vector<double> h2 = reduced(subtract_and_dots(rows, coefficients(h), work_));
  const double residual_sq = reduced({subtract(rows, coefficients(h2), work_)})[0];
  const std::size_t j = static_cast<std::size_t>(last);
  const double beta = std::sqrt(residual_sq);
  alpha_.push_back(h[j] + h2[j]);
  beta_.push_back(beta);
  Block& block = blocks_.back();
  block.end = steps();
  block.residual_norm = beta;
  // In n dimensions there is no n-th direction left: what remains is rounding, whatever its size.
  block.closed = beta <= options_.breakdown_tolerance * scale_ || (full && complete());
  if (block.closed) return;

  at::Tensor next;
  if (full) {
    next = basis_.append();
  } else if (basis_.rows() < 2) {
    next = basis_.append();
  } else {  // q_{m−1} and q_m alone go on
    basis_.row(0).copy_(basis_.row(1));
    next = basis_.row(1);
  }
  scale_into(work_, 1 / beta, next);
}

bool Lanczos::restart(LinearOperator& op, const at::Tensor& start_local) {
  const at::NoGradGuard no_grad;
  if (options_.reorthogonalisation != Reorthogonalisation::kFull)
    throw Error(ExitCode::kInternal, "Lanczos::restart needs full re-orthogonalisation");
  if (!breakdown()) throw Error(ExitCode::kInternal, "Lanczos::restart: the Krylov space has not closed");
  if (complete()) return false;
  if (basis_.capacity() < basis_.rows() + 1) agree(*comm_, [&] { basis_.reserve(basis_.rows() + 1); });

  work_.copy_(start_local);
  const std::vector<at::Tensor> rows = basis_.head(basis_.rows());
  const std::vector<double> h = reduced(dots(rows, work_));
  const std::vector<double> h2 = reduced(subtract_and_dots(rows, coefficients(h), work_));
  const double left = std::sqrt(reduced({subtract(rows, coefficients(h2), work_)})[0]);
  if (!(left > default_tolerance(op.options()) * std::sqrt(h.back()))) return false;
  if (left < 1e-3 * std::sqrt(h.back())) {
    // So little is left that rounding shows in it: once more, at its own scale.
    scale_into(work_, 1 / left, work_);
    const std::vector<double> h3 = reduced(dots(rows, work_));
    begin_block(work_, std::sqrt(reduced({subtract(rows, coefficients(h3), work_)})[0]));
  } else {
    begin_block(work_, left);
  }
  beta_.back() = 0;
  return true;
}

std::vector<RitzPair> Lanczos::ritz_pairs() const {
  std::vector<RitzPair> pairs;
  for (std::size_t b = 0; b < blocks_.size(); ++b) {
    const Block& block = blocks_[b];
    const auto size = static_cast<std::size_t>(block.size()), begin = static_cast<std::size_t>(block.begin);
    const TridiagonalEigen eigen =
        tridiagonal_eigen(std::span(alpha_).subspan(begin, size), std::span(beta_).subspan(begin, size));
    for (std::size_t i = 0; i < size; ++i)
      pairs.push_back({eigen.values[i], std::abs(block.residual_norm * eigen.last[i]), eigen.first[i], b});
  }
  std::stable_sort(pairs.begin(), pairs.end(), [](const RitzPair& a, const RitzPair& b) { return a.value < b.value; });
  return pairs;
}

at::Tensor Lanczos::ritz_vector(std::span<const double> s, std::size_t block) const {
  const at::NoGradGuard no_grad;
  if (options_.reorthogonalisation != Reorthogonalisation::kFull)
    throw Error(ExitCode::kInternal, "Lanczos::ritz_vector needs full re-orthogonalisation");
  if (block >= blocks_.size() || static_cast<std::int64_t>(s.size()) != blocks_[block].size())
    throw Error(ExitCode::kInternal, "Lanczos::ritz_vector: the coefficients don't fit the block");
  std::vector<double> negative(static_cast<std::size_t>(blocks_[block].end), 0.0);
  for (std::size_t i = 0; i < s.size(); ++i) negative[static_cast<std::size_t>(blocks_[block].begin) + i] = -s[i];
  at::Tensor vector = at::zeros_like(work_);
  subtract(basis_.head(blocks_[block].end), negative, vector);
  return vector;
}

double Lanczos::orthogonality_loss() const {
  const at::NoGradGuard no_grad;
  if (options_.reorthogonalisation != Reorthogonalisation::kFull)
    throw Error(ExitCode::kInternal, "Lanczos::orthogonality_loss needs full re-orthogonalisation");
  double loss = 0;
  for (std::int64_t i = 0; i < steps(); ++i) {
    const std::vector<double> gram = reduced(dots(basis_.head(i + 1), basis_.row(i)));
    for (std::int64_t j = 0; j <= i; ++j)
      loss = std::max(loss, std::abs(gram[static_cast<std::size_t>(j)] - (i == j ? 1.0 : 0.0)));
  }
  return loss;
}

}  // namespace hesspect
