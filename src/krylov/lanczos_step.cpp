// The steps of Lanczos runs, each alone or many in lock-step.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/krylov/lanczos.h"
#include "hesspect/krylov/vector_math.h"

namespace hesspect {
namespace {

constexpr int kMostStepProjections = 8;  // of a step; three where two are not enough, as a rule
constexpr double kProjectedSq = 1e-6;    // (what a projection may still take, of the vector's norm)²

void require_finite_sums(const std::vector<double>& sums, std::int64_t step) {
  for (const double sum : sums)
    if (!std::isfinite(sum))
      throw NumericalError(step, sum,
                           "the product of Lanczos step " + std::to_string(step) + " is not finite (a sum over it is " +
                               std::to_string(sum) + "): loss or weights overflow, or hold NaN");
}

}  // namespace

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
  const auto rows = [&](const Lanczos* run) { return std::min(run->t_.rows() + steps + 1, run->t_.n); };
  for (const Lanczos* run : runs) {
    target.push_back(run->steps() + steps);
    room = room && (!run->full() || rows(run) <= run->basis_.capacity());
  }
  if (!room)
    agree(op.comm(), [&] {
      for (Lanczos* run : runs)
        if (run->full()) run->basis_.reserve(rows(run));
    });
  for (std::size_t i = 0; i < runs.size(); ++i) {
    Lanczos& run = *runs[i];
    while (!run.replay_.over(run.t_) && run.steps() < target[i] && !run.t_.breakdown()) run.replay_.take_next(run.t_);
  }

  std::vector<Lanczos*> going;
  for (;;) {
    going.clear();
    for (std::size_t i = 0; i < runs.size(); ++i)
      if (runs[i]->steps() < target[i] && !runs[i]->t_.breakdown()) going.push_back(runs[i]);
    if (going.empty()) return;
    Lanczos::step_together(op, going);
    if (on_step) on_step();
  }
}

/// A step of one run under way.
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
  for (const Step& step : steps) require_finite_sums(step.h, step.run->steps());
  for (Step& step : steps) {
    step.alpha = step.h[step.h.size() - 2];  // q_m is the last row
    step.product_norm = std::sqrt(step.h.back());
  }

  // The second projection mends what rounding left of the first; it costs one pass since it shares the first update's.
  while (!going.empty()) {
    for (Step* step : going) {
      const std::vector<at::Tensor> rows = step->run->operands();
      at::Tensor& w = step->run->work_;
      const bool recent_alone = step->projections == 1 && step->recent_only;
      step->h = recent_alone ? subtract_and_dots(step->run->recent(), coefficients(step->h), rows, w)
                             : subtract_and_dots(rows, coefficients(step->h), w);
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
  if ((!narrow() && !step.recent_only) || step.projections >= kMostStepProjections) return true;
  double taken = 0;
  for (const double h : coefficients(step.h)) taken += h * h;
  const double left = step.h.back() - taken;
  const double closed = options_.breakdown_tolerance * std::max(t_.scale(), step.product_norm);
  return taken <= kProjectedSq * left || left <= closed * closed;
}

void Lanczos::finish(const Step& step, double beta) {
  // In n dimensions there is no n-th direction left: what remains is rounding, whatever its size.
  const bool closed = beta <= options_.breakdown_tolerance * std::max(t_.scale(), step.product_norm) ||
                      (full() && t_.rows() + 1 >= t_.n);
  t_.add_step(step.alpha, beta, step.product_norm, closed);
  if (!closed) keep(work_, beta);
}

}  // namespace hesspect
