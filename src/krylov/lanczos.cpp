#include "hesspect/krylov/lanczos.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/krylov/vector_math.h"

namespace hesspect {
namespace {

constexpr double kFloatEpsilon = static_cast<double>(std::numeric_limits<float>::epsilon());
constexpr double kBfloat16Epsilon = 0x1p-7;
constexpr int kMostProjections = 8;    // of a step; three where two are not enough, as a rule
constexpr double kProjectedSq = 1e-6;  // (what a projection may still take, of the vector's norm)²

at::ScalarType dtype_of(const at::TensorOptions& options) { return c10::typeMetaToScalarType(options.dtype()); }

/// Whether a run is good to double's rounding: not with bfloat16 rows, of which float32's is what is left (lanczos.h).
bool fine(at::ScalarType vectors, at::ScalarType rows) {
  return vectors == at::kDouble && rows != at::ScalarType::BFloat16;
}

// Well above a product's rounding, which division by the β before has amplified by the time a space closes, and far
// below anything read off the result. A closed space that passes unseen does no harm: the run goes on in a direction
// that rounding has chosen, with next to no weight. With bfloat16 rows β of a closed space is the product of their
// rounding and the vectors' lack of orthogonality, some 1e-8 of ‖A‖ for n in the thousands.
double default_tolerance(at::ScalarType vectors, at::ScalarType rows) {
  return fine(vectors, rows) ? 1e-12 : 10 * kFloatEpsilon;
}

double rounding_unit(at::ScalarType vectors, at::ScalarType rows) {
  return 10 * (fine(vectors, rows) ? std::numeric_limits<double>::epsilon() : kFloatEpsilon);
}

/// The part of a fresh vector that must be left beside the basis for it not to be the rows' rounding.
double least_left(at::ScalarType rows) {
  if (rows == at::kDouble) return 1e-12;
  return 10 * (rows == at::kFloat ? kFloatEpsilon : kBfloat16Epsilon);
}

/// The coefficients of a result of `dots`, without w · w.
std::span<const double> coefficients(const std::vector<double>& sums) {
  return std::span<const double>(sums).first(sums.size() - 1);
}

void require_finite(const std::vector<double>& sums, std::int64_t step) {
  for (const double sum : sums)
    if (!std::isfinite(sum))
      throw NumericalError(step, sum,
                           "the product of Lanczos step " + std::to_string(step) + " is not finite (a sum over it is " +
                               std::to_string(sum) + "): loss or weights overflow, or hold NaN");
}

}  // namespace

Lanczos::Lanczos(LinearOperator& op, const LanczosOptions& options)
    : options_(options),
      comm_(&op.comm()),
      n_(op.shard().n),
      basis_(op.shard().chunk, op.options(), full() ? options.basis : BasisOptions{}),
      apart_(basis_.options().dtype() != op.options().dtype() || basis_.options().device() != op.options().device()) {
  const at::ScalarType vectors = dtype_of(op.options()), rows = dtype_of(basis_.options());
  if (options_.breakdown_tolerance <= 0) options_.breakdown_tolerance = default_tolerance(vectors, rows);
  rounding_unit_ = rounding_unit(vectors, rows);
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
  start_norm_sq_ = comm_->sum(norm_sq(start_local));
  if (!std::isfinite(start_norm_sq_) || start_norm_sq_ == 0)
    throw NumericalError(0, start_norm_sq_,
                         "the Lanczos start vector has squared norm " + std::to_string(start_norm_sq_));
  keep(start_local, std::sqrt(start_norm_sq_));
  blocks_.push_back(Block{});
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
  std::vector<at::Tensor> last;
  for (std::int64_t row = stored - 2; row < stored; ++row) last.push_back(basis_.row(row).unsqueeze(0));
  return last;
}

/// The next basis vector, vector / norm.
void Lanczos::keep(const at::Tensor& vector, double norm) {
  if (apart_) {
    std::swap(previous_, current_);
    scale_into(vector, 1 / norm, current_);
    const at::Tensor row = basis_.append();
    // To the host as it will lie there: a copy that converts on its way goes through memory that is not pinned.
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

std::int64_t Lanczos::extend(LinearOperator& op, std::int64_t steps_wanted, const StepCallback& on_step) {
  const std::int64_t before = steps();
  Lanczos* const alone[1] = {this};
  extend_together(op, alone, steps_wanted, on_step ? [&] { on_step(*this); } : std::function<void()>{});
  return steps() - before;
}

void extend_together(LinearOperator& op, std::span<Lanczos* const> runs, std::int64_t steps,
                     const std::function<void()>& on_step) {
  const at::NoGradGuard no_grad;
  std::vector<std::int64_t> target;
  bool room = true;
  const auto rows = [&](const Lanczos* run) { return std::min(run->rows() + steps + 1, run->n_); };
  for (const Lanczos* run : runs) {
    target.push_back(run->steps() + steps);
    room = room && (!run->full() || rows(run) <= run->basis_.capacity());
  }
  if (!room)
    agree(op.comm(), [&] {
      for (Lanczos* run : runs)
        if (run->full()) run->basis_.reserve(rows(run));
    });
  for (std::size_t i = 0; i < runs.size(); ++i)
    while (runs[i]->replaying() && runs[i]->steps() < target[i] && !runs[i]->breakdown()) runs[i]->take_again();

  std::vector<Lanczos*> going;
  for (;;) {
    going.clear();
    for (std::size_t i = 0; i < runs.size(); ++i)
      if (runs[i]->steps() < target[i] && !runs[i]->breakdown()) going.push_back(runs[i]);
    if (going.empty()) return;
    Lanczos::step_together(op, going);
    if (on_step) on_step();
  }
}

/// A step of one run on its way.
struct Lanczos::Step {
  Lanczos* run;
  std::vector<double> h;  // of the last projection
  int projections = 1;
  bool recent_only = false;  // the first one was with two rows
  double alpha = 0, product_norm = 0;

  /// All steps' sums over ranks, in one message.
  static void reduce_together(Communicator& comm, std::span<Step* const> steps) {
    std::vector<double> all;
    for (const Step* step : steps) all.insert(all.end(), step->h.begin(), step->h.end());
    all = comm.sum(std::move(all));
    auto from = all.cbegin();
    for (Step* step : steps)
      for (double& sum : step->h) sum = *from++;
  }
};

// Golub & Van Loan, Matrix Computations 4e, §10.1 (the recurrence) and §10.3.4 (re-orthogonalisation). No run changes
// before its product and all others' are known to be finite.
void Lanczos::step_together(LinearOperator& op, std::span<Lanczos* const> runs) {
  std::vector<at::Tensor> x, y;
  for (const Lanczos* run : runs) {
    x.push_back(run->current_);
    y.push_back(run->work_);
  }
  op.apply_block(x, y);

  std::vector<Step> steps;
  for (Lanczos* run : runs) {
    steps.push_back({run, dots(run->recent(), run->work_)});
    steps.back().recent_only = static_cast<std::int64_t>(steps.back().h.size()) <= run->basis_.rows();
  }
  std::vector<Step*> going;
  for (Step& step : steps) going.push_back(&step);
  Step::reduce_together(op.comm(), going);
  for (const Step& step : steps) require_finite(step.h, step.run->steps());
  for (Step& step : steps) {
    step.alpha = step.h[step.h.size() - 2];  // q_m is the last row
    step.product_norm = std::sqrt(step.h.back());
  }

  // The second projection mends what rounding left of the first; it costs one pass since it shares the first update's,
  // or that one was with two rows alone.
  while (!going.empty()) {
    for (Step* step : going) {
      const std::vector<at::Tensor> rows = step->run->operands();
      at::Tensor& w = step->run->work_;
      if (step->projections == 1 && step->recent_only) {
        subtract(step->run->recent(), coefficients(step->h), w);
        step->h = dots(rows, w);
      } else {
        step->h = subtract_and_dots(rows, coefficients(step->h), w);
      }
    }
    Step::reduce_together(op.comm(), going);
    for (Step* step : going) {
      ++step->projections;
      step->alpha += step->h[step->h.size() - 2];
    }
    std::erase_if(going, [](const Step* step) { return step->run->projected(*step); });
  }

  std::vector<double> residual_sq;
  for (const Step& step : steps)
    residual_sq.push_back(subtract(step.run->operands(), coefficients(step.h), step.run->work_));
  residual_sq = op.comm().sum(std::move(residual_sq));
  for (std::size_t i = 0; i < steps.size(); ++i) steps[i].run->finish(steps[i], std::sqrt(residual_sq[i]));
}

/// Whether two projections, or those so far, are enough. They are where rows are as exact as the vectors and both were
/// with all of them; where the first was with the last two rows alone, the second, as a rule, finds rounding only, and
/// otherwise (after a thick restart, or where β is no larger than rounding) a third one follows. Narrower rows are
/// orthonormal to their own rounding only, and each projection leaves as much of what it takes away: too much where β
/// is that much smaller than the outliers that the product brings back, and growing from step to step.
bool Lanczos::projected(const Step& step) const {
  if ((!narrow() && !step.recent_only) || step.projections >= kMostProjections) return true;
  double taken = 0;
  for (const double h : coefficients(step.h)) taken += h * h;
  const double left = step.h.back() - taken;
  const double closed = options_.breakdown_tolerance * std::max(scale_, step.product_norm);
  return taken <= kProjectedSq * left || left <= closed * closed;
}

void Lanczos::finish(const Step& step, double beta) {
  // In n dimensions there is no n-th direction left: what remains is rounding, whatever its size.
  const bool closed =
      beta <= options_.breakdown_tolerance * std::max(scale_, step.product_norm) || (full() && rows() + 1 >= n_);
  commit(step.alpha, beta, step.product_norm, closed);
  if (!closed) keep(work_, beta);
}

void Lanczos::commit(double alpha, double beta, double product_norm, bool closed) {
  alpha_.push_back(alpha);
  beta_.push_back(beta);
  product_norm_.push_back(product_norm);
  scale_ = std::max(scale_, product_norm);
  Block& block = blocks_.back();
  block.end = steps();
  block.residual_norm = beta;
  block.closed = closed;
}

bool Lanczos::restart(LinearOperator&, const at::Tensor& start_local) {
  const at::NoGradGuard no_grad;
  if (!full()) throw Error(ExitCode::kInternal, "Lanczos::restart needs full re-orthogonalisation");
  if (!breakdown()) throw Error(ExitCode::kInternal, "Lanczos::restart: the Krylov space has not closed");
  if (complete()) return false;
  if (!begin_recorded_block()) {
    if (basis_.capacity() < basis_.rows() + 1) agree(*comm_, [&] { basis_.reserve(basis_.rows() + 1); });
    work_.copy_(start_local);
    const std::vector<at::Tensor> rows = operands();
    const std::vector<double> h = comm_->sum(dots(rows, work_));
    const std::vector<double> h2 = comm_->sum(subtract_and_dots(rows, coefficients(h), work_));
    double left = std::sqrt(comm_->sum(subtract(rows, coefficients(h2), work_)));
    if (!(left > least_left(dtype_of(basis_.options())) * std::sqrt(h.back()))) return false;
    if (left < 1e-3 * std::sqrt(h.back())) {
      // So little is left that rounding shows in it: once more, at its own scale.
      scale_into(work_, 1 / left, work_);
      const std::vector<double> h3 = comm_->sum(dots(rows, work_));
      left = std::sqrt(comm_->sum(subtract(rows, coefficients(h3), work_)));
    }
    keep(work_, left);
    blocks_.push_back(Block{steps(), steps(), false, 0});
  }
  beta_.back() = 0;
  return true;
}

}  // namespace hesspect
