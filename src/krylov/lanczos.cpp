#include "hesspect/krylov/lanczos.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/probe_numbers.h"
#include "hesspect/core/random_probe.h"
#include "hesspect/krylov/orthonormal.h"
#include "hesspect/krylov/vector_math.h"

namespace hesspect {
namespace {

constexpr double kBfloat16Epsilon = 0x1p-7;

at::ScalarType dtype_of(const at::TensorOptions& options) { return c10::typeMetaToScalarType(options.dtype()); }

/// The dtype whose rounding a run is good to: float32 with bfloat16 rows (lanczos.h).
at::ScalarType precision(at::ScalarType vectors, at::ScalarType rows) {
  return rows == at::ScalarType::BFloat16 ? at::kFloat : vectors;
}

/// The part of a fresh vector that must be left beside the basis for it not to be the rows' rounding.
double least_left(at::ScalarType rows) {
  return rows == at::ScalarType::BFloat16 ? 10 * kBfloat16Epsilon : drop_tolerance(rows);
}

void require(bool condition, const std::string& what) {
  if (!condition) throw InputError("a recorded Lanczos run can't be resumed: " + what);
}

void copy_shard(const at::Tensor& from, at::Tensor to, const std::string& name) {
  require(from.numel() == to.numel() && from.scalar_type() == to.scalar_type(),
          name + " has " + std::to_string(from.numel()) + " entries of " + c10::toString(from.scalar_type()) +
              " on a rank, not " + std::to_string(to.numel()) + " of " + c10::toString(to.scalar_type()));
  to.copy_(from);
}

}  // namespace

Lanczos::Lanczos(LinearOperator& op, const LanczosOptions& options)
    : options_(options),
      comm_(&op.comm()),
      basis_(op.shard().chunk, op.options(), full() ? options.basis : BasisOptions{}),
      apart_(basis_.options().dtype() != op.options().dtype() || basis_.options().device() != op.options().device()) {
  const at::ScalarType good_to = precision(dtype_of(op.options()), dtype_of(basis_.options()));
  // The default is well above a product's rounding, which division by the β before has amplified by the time a space
  // closes, and far below anything read off the result. A closed space that passes unseen does no harm: the run goes on
  // in a direction that rounding has chosen, with next to no weight. With bfloat16 rows β of a closed space is the
  // product of their rounding and the vectors' lack of orthogonality, some 1e-8 of ‖A‖ for n in the thousands.
  if (options_.breakdown_tolerance <= 0) options_.breakdown_tolerance = drop_tolerance(good_to);
  rounding_unit_ = rounding_unit(good_to);
  t_.n = op.shard().n;
  agree(*comm_, [&] {
    work_ = at::empty({op.shard().chunk}, op.options());
    if (apart_) {
      previous_ = at::empty_like(work_);
      current_ = at::empty_like(work_);
    }
    basis_.reserve(2);
  });
}

Lanczos::Lanczos(LinearOperator& op, const at::Tensor& start_local, const LanczosOptions& options)
    : Lanczos(op, options) {
  const at::NoGradGuard no_grad;
  agree(*comm_, [&] {
    if (start_local.numel() != op.shard().chunk)
      throw Error(ExitCode::kInternal, "Lanczos: the start vector's shard has " + std::to_string(start_local.numel()) +
                                           " entries, the operator's " + std::to_string(op.shard().chunk));
  });
  t_.start_norm_sq = comm_->sum(norm_sq(start_local));
  if (!std::isfinite(t_.start_norm_sq) || t_.start_norm_sq == 0)
    throw NumericalError(0, t_.start_norm_sq,
                         "the Lanczos start vector has squared norm " + std::to_string(t_.start_norm_sq));
  keep(start_local, std::sqrt(t_.start_norm_sq));
}

bool Lanczos::narrow() const { return dtype_of(basis_.options()) != work_.scalar_type(); }

std::int64_t Lanczos::basis_bytes() const {
  return basis_.bytes() + (apart_ ? 2 * static_cast<std::int64_t>(work_.nbytes()) : 0);
}

/// What a new vector is made orthogonal to, q_m last.
std::vector<at::Tensor> Lanczos::operands() const {
  if (!apart_) return basis_.head(basis_.rows());
  const std::int64_t running = std::min<std::int64_t>(2, basis_.rows());
  std::vector<at::Tensor> all = basis_.head(basis_.rows() - running);
  if (running == 2) all.push_back(previous_.unsqueeze(0));
  all.push_back(current_.unsqueeze(0));
  return all;
}

/// The rows that a product is made orthogonal to first: in exact arithmetic the last two are all that it has a part of.
/// Where rows are narrower than the vectors, or few, all of them.
std::vector<at::Tensor> Lanczos::recent() const {
  const std::int64_t stored = basis_.rows();
  if (apart_ || !full() || stored <= 2) return operands();
  return {basis_.row(stored - 2).unsqueeze(0), basis_.row(stored - 1).unsqueeze(0)};
}

/// The next basis vector, vector / norm.
void Lanczos::keep(const at::Tensor& vector, double norm) {
  if (apart_) {
    std::swap(previous_, current_);
    scale_into(vector, 1 / norm, current_);
    const at::Tensor row = basis_.append();
    // The row is converted first: a copy to the host that converts on its way goes through memory that is not pinned.
    row.copy_(row.device() == current_.device() ? current_ : current_.to(row.scalar_type()));
    return;
  }
  if (!full() && basis_.rows() == 2)
    basis_.row(0).copy_(basis_.row(1));  // q_{m−1} and q_m alone go on
  else
    basis_.append();
  current_ = basis_.row(basis_.rows() - 1);
  scale_into(vector, 1 / norm, current_);
}

bool Lanczos::restart(const at::Tensor& start_local) {
  const at::NoGradGuard no_grad;
  if (!full()) throw Error(ExitCode::kInternal, "Lanczos::restart needs full re-orthogonalisation");
  if (!t_.breakdown()) throw Error(ExitCode::kInternal, "Lanczos::restart: the Krylov space has not closed");
  if (t_.complete()) return false;
  if (replay_.begin_block(t_)) return true;
  if (basis_.capacity() < basis_.rows() + 1) agree(*comm_, [&] { basis_.reserve(basis_.rows() + 1); });
  work_.copy_(start_local);
  const std::vector<at::Tensor> rows = operands();
  const std::vector<double> h = comm_->sum(dots(rows, work_));
  const std::vector<double> h2 = comm_->sum(subtract_and_dots(rows, coefficients(h), work_));
  double left = std::sqrt(comm_->sum(subtract(rows, coefficients(h2), work_)));
  if (!(left > least_left(dtype_of(basis_.options())) * std::sqrt(h.back()))) return false;
  if (left < 1e-3 * std::sqrt(h.back())) {
    // So little is left that rounding shows in it: it is projected once more, at its own scale.
    scale_into(work_, 1 / left, work_);
    const std::vector<double> h3 = comm_->sum(dots(rows, work_));
    left = std::sqrt(comm_->sum(subtract(rows, coefficients(h3), work_)));
  }
  keep(work_, left);
  t_.begin_block();
  return true;
}

void Lanczos::thick_restart(std::span<const std::size_t> keep) {
  const at::NoGradGuard no_grad;
  if (!can_restart_thick())
    throw UsageError(
        "a thick restart needs full re-orthogonalisation and a Krylov basis of the vectors' own dtype, on their "
        "device");
  if (t_.breakdown()) throw Error(ExitCode::kInternal, "Lanczos::thick_restart: the Krylov space has closed");
  if (!replay_.over(t_)) {
    replay_.restart_thick(t_);
    return;
  }
  const auto m = static_cast<std::size_t>(t_.rows());
  bool fits = keep.size() < m;
  for (std::size_t i = 0; i < keep.size(); ++i) fits = fits && keep[i] < m && (i == 0 || keep[i] > keep[i - 1]);
  if (!fits) throw Error(ExitCode::kInternal, "Lanczos::thick_restart: what is to be kept is out of order or too much");

  const std::vector<RitzPair> pairs = t_.ritz_pairs();
  const std::vector<double> residual = t_.residual_coefficients();
  std::vector<double> s = t_.ritz_coefficients(keep);
  Tridiagonal::ThickRestart restart{steps(), {}, {}};
  for (std::size_t k = 0; k < keep.size(); ++k) {
    restart.theta.push_back(pairs[keep[k]].value);
    restart.coupling.push_back(std::inner_product(residual.begin(), residual.end(), s.data() + k * m, 0.0));
  }
  // Each rank has solved for T's eigenvectors by itself: rank 0's count, or the shards would not be of one basis.
  for (std::vector<double>* part : {&s, &restart.theta, &restart.coupling}) *part = comm_->of_rank0(std::move(*part));

  const auto kept = static_cast<std::int64_t>(restart.theta.size());
  const at::Tensor next = basis_.row(t_.rows());
  agree(*comm_, [&] { combine_rows(basis_.head(t_.rows()), s, kept); });
  basis_.row(kept).copy_(next);
  basis_.truncate(kept + 1);
  current_ = basis_.row(kept);
  t_.restart_thick(std::move(restart));
}

// --- a run written down, and taken again ---

Lanczos Lanczos::resumed(LinearOperator& op, const LanczosRecord& record, const StoredVectors& stored,
                         const LanczosOptions& options) {
  const at::NoGradGuard no_grad;
  Lanczos run(op, options);
  agree(*run.comm_, [&] { run.load(record, stored); });
  return run;
}

void Lanczos::load(const LanczosRecord& record, const StoredVectors& stored) {
  const std::string flaw = flaw_of(record);
  require(flaw.empty(), flaw);
  require(record.t.n == t_.n, "it is of " + std::to_string(record.t.n) + " parameters, not of " + std::to_string(t_.n));
  require(record.full == full(), record.full ? "it has full re-orthogonalisation, this one none"
                                             : "it has no re-orthogonalisation, this one full");
  const std::int64_t running = narrow() ? std::min<std::int64_t>(2, record.rows) : 0;
  require(record.running == running, "its vectors are stored at another precision than this one's");

  options_.breakdown_tolerance = record.breakdown_tolerance;
  t_.start_norm_sq = record.t.start_norm_sq;
  replay_ = Replay(record.t);
  basis_.reserve(record.rows);
  for (std::int64_t i = 0; i < record.rows; ++i)
    copy_shard(stored.basis(record.first_row + i), basis_.append(), "row " + std::to_string(record.first_row + i));
  if (!apart_) {
    current_ = basis_.row(record.rows - 1);
    return;
  }
  if (!narrow()) {
    current_.copy_(basis_.row(record.rows - 1));
    if (record.rows > 1) previous_.copy_(basis_.row(record.rows - 2));
    return;
  }
  for (std::int64_t i = 0; i < running; ++i)
    copy_shard(stored.running(i), i + 1 == running ? current_ : previous_, "running vector " + std::to_string(i));
}

LanczosRecord Lanczos::record() const {
  return {stored_t(), full(), options_.breakdown_tolerance, first_row(), basis_.rows(), running()};
}

/// The number of the basis's first row.
std::int64_t Lanczos::first_row() const {
  if (full()) return stored_t().first_row();
  // The last row is q_m, or q_{m−1} where the space has closed.
  return stored_t().steps() + (stored_t().breakdown() ? 0 : 1) - basis_.rows();
}

/// Vectors that are kept at full precision beside the rows.
std::int64_t Lanczos::running() const { return narrow() ? std::min<std::int64_t>(2, basis_.rows()) : 0; }

StoredVectors Lanczos::stored() const {
  return {[this](std::int64_t row) { return basis_.row(row - first_row()); },
          [this](std::int64_t i) { return i + 1 == running() ? current_ : previous_; }};
}

// --- what is read off the vectors ---

/// The first rows of the basis.
std::vector<at::Tensor> Lanczos::stored_head(std::int64_t count) const {
  if (!full()) throw Error(ExitCode::kInternal, "a Lanczos run without re-orthogonalisation has no basis to read");
  if (!replay_.has_rows(t_))
    throw Error(ExitCode::kInternal, "a Lanczos run that is taken again has no rows before its last thick restart");
  return basis_.head(count);
}

std::vector<at::Tensor> Lanczos::basis_rows() const {
  return stored_head(t_.rows() + (t_.projection().beta > 0 ? 1 : 0));
}

at::Tensor Lanczos::ritz_vector(std::span<const double> s) const {
  const at::NoGradGuard no_grad;
  if (static_cast<std::int64_t>(s.size()) > t_.rows())
    throw Error(ExitCode::kInternal, "Lanczos::ritz_vector: " + std::to_string(s.size()) + " coefficients for " +
                                         std::to_string(t_.rows()) + " rows");
  at::Tensor vector = at::empty_like(work_);
  combine_into(stored_head(static_cast<std::int64_t>(s.size())), s, vector);
  return vector;
}

// E = QᵀQ − I through E g, with g of random signs: whichever pair of rows has the largest entry of E, the others in its
// row add to it as often as they take away.
double Lanczos::orthogonality_loss() const {
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> rows = stored_head(t_.rows());
  std::vector<double> g(static_cast<std::size_t>(t_.rows()));
  fill_probe(ProbeDistribution::kRademacher, /*seed=*/0, kOrthogonalityProbe, 0, t_.rows(), g.data());
  at::Tensor sum = work_;  // free between steps
  const std::vector<double> image = comm_->sum(combine_and_dots(rows, g, sum));
  double loss = 0;
  for (std::size_t i = 0; i < g.size(); ++i) loss = std::max(loss, std::abs(image[i] - g[i]));
  return loss;
}

}  // namespace hesspect
