#include "hesspect/spectrum/eigenvalues.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <string>

#include "hesspect/core/errors.h"
#include "hesspect/krylov/tridiagonal.h"
#include "hesspect/spectrum/probe.h"

namespace hesspect {
namespace {

/// Probe numbers for restarts: out of the way of a run's own probes.
constexpr std::uint64_t kRestartProbes = std::uint64_t{1} << 63;

double largest_magnitude(const std::vector<RitzPair>& pairs) {
  return pairs.empty() ? 0 : std::max(std::abs(pairs.front().value), std::abs(pairs.back().value));
}

struct Wanted {
  std::size_t top, bottom;
};

Wanted wanted(std::int64_t n, const EigenOptions& options) {
  const std::int64_t top = std::min(options.top, n);
  return {static_cast<std::size_t>(top), static_cast<std::size_t>(std::min(options.bottom, n - top))};
}

/// After a breakdown the run holds several diagonal blocks of T, each from a fresh start vector. The last one adds
/// nothing if its own extreme Ritz values are converged and do not pass the wanted ones of the blocks before it.
bool last_block_adds_nothing(const Lanczos& run, const std::vector<RitzPair>& pairs, const Wanted& want,
                             double tolerance) {
  const std::size_t last = run.blocks().size() - 1;
  std::vector<RitzPair> before, own;
  for (const RitzPair& pair : pairs) (pair.block == last ? own : before).push_back(pair);
  if (own.empty() || before.size() < std::max(want.top, want.bottom)) return false;
  if (want.top > 0 &&
      (own.back().residual > tolerance || own.back().value > before[before.size() - want.top].value + tolerance))
    return false;
  if (want.bottom > 0 &&
      (own.front().residual > tolerance || own.front().value < before[want.bottom - 1].value - tolerance))
    return false;
  return true;
}

/// β of a space that closes, as rounding leaves it: in float32 mostly above the breakdown's tolerance.
double weak_beta(const Lanczos& run) { return 100 * run.rounding(); }

/// Where β fell to rounding (row `first`), the space closed unseen and rounding chose the next vector, as a restart
/// would: later rows hold further copies of multiple eigenvalues, in rounds of at most first + 1 rows, one for each
/// distinct eigenvalue seen. They add nothing more once a whole round leaves the lists as they were.
///
/// β is also that small in a bulk so much narrower than the outliers. There the round, which may double the products,
/// is not needed: a copy as far out as the wanted values would by now have shown in α or β, growing from its share of
/// some 1/√n by 2|wanted|/reach or more in each step.
bool copies_may_be_missing(const Lanczos& run, const EigenResult& now, std::int64_t n, const EigenOptions& options,
                           double tolerance) {
  constexpr std::size_t kStepsToShow = 8;
  const std::vector<double>&alpha = run.alpha(), &beta = run.beta();
  const std::size_t m = alpha.size();
  std::size_t first = 0;
  while (first < m && beta[first] > weak_beta(run)) ++first;
  if (first == m) return false;

  const std::size_t round = first + 1;
  if (m >= round + kStepsToShow) {
    double reach = 0, smallest = largest_magnitude(run.ritz_pairs());
    for (std::size_t i = round; i < m; ++i) reach = std::max(reach, std::abs(alpha[i]) + beta[i - 1] + beta[i]);
    for (const auto* list : {&now.top, &now.bottom})
      for (const EigenEstimate& one : *list) smallest = std::min(smallest, std::abs(one.value));
    if (2 * reach < smallest) return false;
  }

  if (m < 2 * round) return true;
  const std::vector<double> before = tridiagonal_eigen(std::span(alpha).first(m - round), beta).values;
  const Wanted want = wanted(n, options);
  if (before.size() < want.top + want.bottom) return true;
  for (std::size_t i = 0; i < want.top; ++i)
    if (std::abs(now.top[i].value - before[before.size() - 1 - i]) > tolerance) return true;
  for (std::size_t i = 0; i < want.bottom; ++i)
    if (std::abs(now.bottom[i].value - before[want.bottom - 1 - i]) > tolerance) return true;
  return false;
}

bool finished(const Lanczos& run, std::int64_t n, const EigenOptions& options) {
  const EigenResult now = eigenvalues_so_far(run, n, options);
  if (run.complete()) return true;
  const Wanted want = wanted(n, options);
  if (!now.converged || now.top.size() < want.top || now.bottom.size() < want.bottom) return false;
  const std::vector<RitzPair> pairs = run.ritz_pairs();
  const double tolerance = std::max(options.rtol * largest_magnitude(pairs), run.rounding());
  if (run.blocks().size() == 1) return !run.breakdown() && !copies_may_be_missing(run, now, n, options, tolerance);
  if (last_block_adds_nothing(run, pairs, want, tolerance)) return true;
  const auto rows = std::span(run.beta()).subspan(static_cast<std::size_t>(run.blocks().back().begin));
  const bool weak = std::any_of(rows.begin(), rows.end(), [&](double beta) { return beta <= weak_beta(run); });
  return weak && !run.breakdown() && !copies_may_be_missing(run, now, n, options, tolerance);
}

/// A decision that rests on floating-point work done by each rank alone: rank 0's holds. Collective.
bool rank0_says(Communicator& comm, bool mine) {
  double flag[1] = {comm.rank() == 0 && mine ? 1.0 : 0.0};
  comm.all_reduce_sum(std::span<double>(flag));
  return flag[0] != 0;
}

}  // namespace

EigenResult eigenvalues_so_far(const Lanczos& run, std::int64_t n, const EigenOptions& options) {
  const std::vector<RitzPair> pairs = run.ritz_pairs();
  const double tolerance = options.rtol * largest_magnitude(pairs);
  const Wanted want = wanted(n, options);
  EigenResult result;
  result.steps = run.steps();
  result.converged = true;
  const auto add = [&](std::vector<EigenEstimate>& list, const RitzPair& pair) {
    // |β s| falls far below what the products' rounding leaves of a residual.
    const double residual = pair.residual + run.rounding();
    list.push_back({pair.value, residual, residual <= std::max(tolerance, 2 * run.rounding())});
    result.converged = result.converged && list.back().converged;
  };
  std::size_t top = std::min(want.top, pairs.size());
  // Too few so far: each end its share, or the smallest value would stand among the largest.
  if (!run.complete() && pairs.size() < want.top + want.bottom)
    top = (2 * pairs.size() * want.top + want.top + want.bottom) / (2 * (want.top + want.bottom));
  const std::size_t bottom = std::min(want.bottom, pairs.size() - top);
  for (std::size_t i = 0; i < top; ++i) add(result.top, pairs[pairs.size() - 1 - i]);
  for (std::size_t i = 0; i < bottom; ++i) add(result.bottom, pairs[bottom - 1 - i]);
  result.exhausted = run.complete() && static_cast<std::int64_t>(top + bottom) < options.top + options.bottom;
  if (top < want.top || bottom < want.bottom) result.converged = false;
  return result;
}

EigenResult eigenvalues(LinearOperator& op, Lanczos& run, const EigenOptions& options, const StepCallback& on_step) {
  if (options.top < 0 || options.bottom < 0 || options.max_steps < 1 || !(options.rtol >= 0))
    throw UsageError("eigenvalues: top and bottom must be 0 or more, max_steps 1 or more, rtol 0 or more");
  if (run.options().reorthogonalisation != Reorthogonalisation::kFull)
    throw UsageError("eigenvalues need re-orthogonalisation: without it converged values appear again as ghosts");
  const std::int64_t n = op.shard().n;
  std::uint64_t restarts = 0;
  while (!rank0_says(op.comm(), finished(run, n, options)) && run.steps() < options.max_steps) {
    if (run.breakdown()) {
      const at::Tensor fresh =
          probe_vector(op, ProbeDistribution::kGaussian, options.seed, kRestartProbes + restarts++);
      if (!run.restart(op, fresh)) break;
    }
    // Looking costs O(m³): seldom enough not to show, often enough not to waste products.
    const std::int64_t more = std::max<std::int64_t>(1, run.steps() / 16);
    run.extend(op, std::min(more, options.max_steps - run.steps()), on_step);
  }
  return eigenvalues_so_far(run, n, options);
}

}  // namespace hesspect
