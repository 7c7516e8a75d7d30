#include "hesspect/spectrum/eigenvalues.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>

#include "eigen_lists.h"
#include "hesspect/core/errors.h"
#include "hesspect/krylov/ghosts.h"
#include "hesspect/krylov/tridiagonal_eigen.h"
#include "hesspect/spectrum/probe.h"

namespace hesspect {
namespace {

std::vector<RitzPair> pairs_of(const Lanczos& run) {
  return run.full() ? run.t().ritz_pairs() : genuine_ritz_pairs(run.t().alpha, run.t().beta, run.rounding());
}

EigenResult lists_of(const Lanczos& run, const std::vector<RitzPair>& pairs, const EigenOptions& options) {
  const Tridiagonal& t = run.t();
  EigenResult result = listed(pairs, wanted_counts(t.n, options), options, run.rounding(), t.complete());
  const std::size_t found = result.top.size() + result.bottom.size() + result.magnitude.size();
  const std::int64_t asked = options.top + options.bottom + options.magnitude;
  result.steps = t.steps();
  result.thick_restarts = static_cast<std::int64_t>(t.thick_restarts.size());
  result.exhausted = (run.full() ? t.complete() : t.breakdown()) && static_cast<std::int64_t>(found) < asked;
  return result;
}

std::vector<double> values_of(const EigenResult& result) {
  std::vector<double> values;
  for (const auto* list : {&result.top, &result.bottom, &result.magnitude})
    for (const EigenEstimate& one : *list) values.push_back(one.value);
  return values;
}

bool moved(const std::vector<double>& a, const std::vector<double>& b, double tolerance) {
  return !std::ranges::equal(a, b, [&](double x, double y) { return std::abs(x - y) <= tolerance; });
}

/// After a breakdown the run holds several diagonal blocks of T, each from a fresh start vector. The last one adds
/// nothing if its own extreme Ritz values are converged and do not pass the wanted ones of the blocks before it.
bool last_block_adds_nothing(const Lanczos& run, const std::vector<RitzPair>& pairs, const WantedCounts& wanted,
                             double tolerance) {
  const std::size_t last = run.t().blocks.size() - 1;
  std::vector<RitzPair> before, own;
  for (const RitzPair& pair : pairs) (pair.block == last ? own : before).push_back(pair);
  if (own.empty() || before.size() < std::max({wanted.top, wanted.bottom, wanted.magnitude})) return false;
  const bool upper = wanted.top > 0 || wanted.magnitude > 0, lower = wanted.bottom > 0 || wanted.magnitude > 0;
  if ((upper && own.back().residual > tolerance) || (lower && own.front().residual > tolerance)) return false;
  if (wanted.top > 0 && own.back().value > before[before.size() - wanted.top].value + tolerance) return false;
  if (wanted.bottom > 0 && own.front().value < before[wanted.bottom - 1].value - tolerance) return false;
  if (wanted.magnitude == 0) return true;
  const std::size_t least = select_wanted(before, wanted, true).magnitude.back();
  return largest_magnitude(own) <= std::abs(before[least].value) + tolerance;
}

/// β of a space that closes, as rounding leaves it: in float32 mostly above the breakdown's tolerance, in float64 where
/// many steps have amplified it.
double weak_beta(const Lanczos& run) {
  return 100 * std::max(run.rounding(), run.options().breakdown_tolerance * run.t().scale());
}

/// Notes since which step the lists have not moved, which T alone does not tell after a thick restart. A resumed run is
/// looked at after the same steps again.
class Steadiness {
 public:
  void look(const EigenResult& now, double tolerance) {
    std::vector<double> values = values_of(now);
    if (moved(values, values_, tolerance)) since_ = now.steps;
    values_ = std::move(values);
  }
  std::int64_t since() const { return since_; }

 private:
  std::vector<double> values_;
  std::int64_t since_ = 0;
};

/// Where β fell to rounding (row `first`), the space closed unseen and rounding chose the next vector, as a restart
/// would: later rows hold further copies of multiple eigenvalues, in rounds of at most first + 1 rows, one for each
/// distinct eigenvalue seen. They add nothing more once a whole round leaves the lists as they were.
///
/// β is also that small in a bulk so much narrower than the outliers. There the round, which may double the products,
/// is not needed: a copy as far out as the wanted values would by now have shown in α or β, growing from its share of
/// some 1/√n by 2|wanted|/reach or more in each step.
bool copies_may_be_missing(const Lanczos& run, const EigenResult& now, const EigenOptions& options, double tolerance,
                           const Steadiness& steady) {
  constexpr std::size_t kStepsToShow = 8;
  const std::vector<double>&alpha = run.t().alpha, &beta = run.t().beta;
  const std::size_t m = alpha.size();
  const double weak = weak_beta(run);
  std::size_t first = 0;
  while (first < m && beta[first] > weak) ++first;
  if (first == m) return false;

  // A basis that has restarted thick holds no more of the eigenvalues seen than it has rows.
  std::size_t round = first + 1;
  const bool thick = !run.t().thick_restarts.empty();
  if (thick && options.max_basis > 0) round = std::min(round, static_cast<std::size_t>(options.max_basis));
  if (m >= first + 1 + kStepsToShow) {
    double reach = 0, smallest = largest_magnitude(run.t().ritz_pairs());
    for (std::size_t i = first + 1; i < m; ++i) reach = std::max(reach, std::abs(alpha[i]) + beta[i - 1] + beta[i]);
    for (const double value : values_of(now)) smallest = std::min(smallest, std::abs(value));
    if (2 * reach < smallest) return false;
  }

  if (m < first + 1 + round) return true;
  if (thick) return now.steps - steady.since() < static_cast<std::int64_t>(round);
  std::vector<RitzPair> before;
  for (const double value : tridiagonal_eigen(std::span(alpha).first(m - round), beta).values)
    before.push_back({value, 0, 0, 0});
  return moved(values_of(now), values_of(lists_of(run, before, options)), tolerance);
}

bool finished(const Lanczos& run, const EigenOptions& options, Steadiness& steady) {
  const Tridiagonal& t = run.t();
  const std::vector<RitzPair> pairs = pairs_of(run);
  const EigenResult now = lists_of(run, pairs, options);
  const double tolerance = std::max(options.rtol * largest_magnitude(pairs), run.rounding());
  steady.look(now, tolerance);
  if (!run.full()) return t.breakdown() || now.converged;
  if (t.complete()) return true;
  if (!now.converged) return false;
  const auto missing = [&] { return copies_may_be_missing(run, now, options, tolerance, steady); };
  if (t.first_block() + 1 == t.blocks.size()) return !t.breakdown() && !missing();
  if (last_block_adds_nothing(run, pairs, wanted_counts(t.n, options), tolerance)) return true;
  const auto rows = std::span(t.beta).subspan(static_cast<std::size_t>(t.blocks.back().begin));
  const bool weak = std::ranges::any_of(rows, [least = weak_beta(run)](double beta) { return beta <= least; });
  return weak && !t.breakdown() && !missing();
}

/// Rows that T may have: one less than the basis, whose last row is the next vector.
std::int64_t most_rows(const Lanczos& run, const EigenOptions& options) {
  const WantedCounts wanted = wanted_counts(run.t().n, options);
  const std::int64_t never = std::min(run.t().n, options.max_steps + 1);
  if (!run.full() || options.max_basis <= 0 || options.max_basis >= never)
    return std::numeric_limits<std::int64_t>::max();
  const std::int64_t least = std::min(never, smallest_basis(wanted));
  if (options.max_basis < least)
    throw UsageError("a Krylov basis of " + std::to_string(options.max_basis) + " vectors is too small for " +
                     std::to_string(wanted.all()) + " eigenvalues: " + std::to_string(least) +
                     " would do; ask for fewer, or give it more memory");
  if (!run.can_restart_thick())
    throw UsageError("a Krylov basis of at most " + std::to_string(options.max_basis) +
                     " vectors needs thick restarts, and those need it in the vectors' own dtype and memory: " +
                     std::to_string(never) + " vectors would do without");
  return options.max_basis - 1;
}

}  // namespace

namespace {

/// Of T's pairs that are copies of an eigenvalue, the one whose vector has most of it: the start vector's part of a
/// Ritz vector tells.
std::size_t best_copy(const std::vector<RitzPair>& all, double value, double tolerance) {
  std::size_t best = all.size();
  for (std::size_t i = 0; i < all.size(); ++i) {
    const double apart = std::abs(all[i].value - value);
    if (apart > tolerance && apart > 0) continue;
    if (best == all.size() || std::abs(all[i].first) > std::abs(all[best].first)) best = i;
  }
  return best;
}

}  // namespace

EigenPairs eigenvalues_so_far(const Lanczos& run, const EigenOptions& options) {
  const Tridiagonal& t = run.t();
  const std::vector<RitzPair> pairs = run.comm().of_rank0(pairs_of(run));
  EigenPairs look{lists_of(run, pairs, options), t, {}};
  const std::vector<std::size_t> wanted = select_wanted(pairs, wanted_counts(t.n, options), t.complete()).all();
  if (run.full()) {
    look.indices = wanted;
    return look;
  }
  const std::vector<RitzPair> copies = run.comm().of_rank0(t.ritz_pairs());
  for (const std::size_t i : wanted) look.indices.push_back(best_copy(copies, pairs[i].value, run.rounding()));
  return look;
}

EigenPairs eigenvalues(LinearOperator& op, Lanczos& run, const EigenOptions& options, const StepCallback& on_step) {
  if (options.max_steps < 1 || !(options.rtol >= 0))
    throw UsageError("eigenvalues: max_steps must be 1 or more, rtol 0 or more");
  const std::int64_t most = most_rows(run, options);
  Steadiness steady;
  while (!op.comm().of_rank0(finished(run, options, steady)) && run.steps() < options.max_steps) {
    const Tridiagonal& t = run.t();
    if (t.breakdown() && !restart_afresh(op, run, options.seed)) break;
    if (t.rows() >= most) run.thick_restart(kept_pairs(t.ritz_pairs(), wanted_counts(t.n, options), most));
    // Looking costs O(m³): seldom enough not to show, often enough not to waste products.
    const std::int64_t more = std::min({t.steps() / 16, options.max_steps - t.steps(), most - t.rows()});
    run.extend(op, std::max<std::int64_t>(1, more), on_step);
  }
  return eigenvalues_so_far(run, options);
}

}  // namespace hesspect
