// The thick restart of a Lanczos run: Ritz vectors in the place of the rows that they are made of.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <numeric>

#include "hesspect/core/errors.h"
#include "hesspect/krylov/lanczos.h"
#include "hesspect/krylov/vector_math.h"

namespace hesspect {

void Lanczos::thick_restart(LinearOperator&, std::span<const std::size_t> keep) {
  const at::NoGradGuard no_grad;
  if (!can_restart_thick())
    throw UsageError(
        "a thick restart needs full re-orthogonalisation and a Krylov basis of the vectors' own dtype, on their "
        "device");
  if (breakdown()) throw Error(ExitCode::kInternal, "Lanczos::thick_restart: the Krylov space has closed");
  if (replaying()) {
    thick_restart_again();
    return;
  }
  const auto m = static_cast<std::size_t>(rows());
  bool fits = keep.size() < m;
  for (std::size_t i = 0; i < keep.size(); ++i) fits = fits && keep[i] < m && (i == 0 || keep[i] > keep[i - 1]);
  if (!fits) throw Error(ExitCode::kInternal, "Lanczos::thick_restart: what is to be kept is out of order or too much");

  const std::vector<RitzPair> pairs = ritz_pairs();
  const std::vector<double> coefficients = ritz_coefficients(), residual = residual_coefficients();
  const std::size_t kept = keep.size();
  std::vector<double> s;
  LanczosRecord::ThickRestart restart{steps(), {}, {}};
  for (const std::size_t i : keep) {
    const auto row = std::span(coefficients).subspan(i * m, m);
    s.insert(s.end(), row.begin(), row.end());
    restart.theta.push_back(pairs[i].value);
    restart.coupling.push_back(std::inner_product(row.begin(), row.end(), residual.begin(), 0.0));
  }
  // Each rank has solved for T's eigenvectors by itself: rank 0's count, or the shards would not be of one basis.
  for (std::vector<double>* part : {&s, &restart.theta, &restart.coupling}) *part = comm_->of_rank0(std::move(*part));

  const at::Tensor next = basis_.row(rows());
  combine_rows(basis_.head(rows()), s, static_cast<std::int64_t>(kept));
  basis_.row(static_cast<std::int64_t>(kept)).copy_(next);
  basis_.truncate(static_cast<std::int64_t>(kept) + 1);
  current_ = basis_.row(static_cast<std::int64_t>(kept));
  begin_thick(std::move(restart));
}

/// What of the residual vector each row of T holds: A Q = Q T + q_next cᵀ.
std::vector<double> Lanczos::residual_coefficients() const {
  if (blocks_.back().size() == 0 && blocks_.size() - 1 == segment_begin_ && !thick_.empty())
    return thick_.back().coupling;
  std::vector<double> c(static_cast<std::size_t>(rows()), 0.0);
  if (!c.empty()) c.back() = beta_.back();  // 0 where a fresh vector stands next
  return c;
}

void Lanczos::begin_thick(LanczosRecord::ThickRestart restart) {
  first_row_ += rows() + 1;
  thick_.push_back(std::move(restart));
  blocks_.push_back(Block{steps(), steps(), false, 0});
  segment_begin_ = blocks_.size() - 1;
}

}  // namespace hesspect
