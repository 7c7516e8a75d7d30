#include <algorithm>
#include <cmath>

#include "hesspect/core/probe_numbers.h"
#include "hesspect/spectrum/cumulative.h"
#include "hesspect/spectrum/zero_eigenvalues.h"
#include "policies.h"

namespace hesspect {
namespace {

/// What further Lanczos runs leave of the sampling error, at most, for more of them to be made.
constexpr double kHelped = 0.85;

}  // namespace

ProductRange& ProductRange::operator+=(const ProductRange& other) {
  least += other.least;
  most += other.most;
  return *this;
}

double DensityPolicy::bound(const CumulativeDensity& density) const {
  return goals_.density->w1 * (density.range_hi - density.range_lo);
}

const CumulativeDensity& DensityPolicy::cumulative(const Ledger& ledger, std::int64_t count) const {
  const auto known = cumulative_.find(count);
  if (known != cumulative_.end()) return known->second;
  std::vector<ProbeQuadrature> prefix;
  for (std::int64_t p = 0; p < count; ++p) prefix.push_back(ledger.finished(p)->quadrature);
  const CumulativeOptions bounds_alone{
      .confidence = goals_.confidence, .moved = goals_.density_error, .most_points = 0};
  const CumulativeDensity in_use = cumulative_density(prefix, goals_.n, bounds_alone);
  return cumulative_.emplace(count, with_zeros(in_use, goals_.n, goals_.zeros)).first->second;
}

/// Whether more runs than the first `count` would bring the bound nearer. @param before  what `count` was before
bool DensityPolicy::mends(const Ledger& ledger, std::int64_t count, std::int64_t before) const {
  const CumulativeDensity& now = cumulative(ledger, count);
  // What steps and precision leave open no further probe mends.
  if (met(now) || !(now.w1_quadrature + now.w1_precision < bound(now))) return false;
  // Nor do probes help where they have not: multiplicities that no single start vector can tell.
  return before < 3 || now.w1_sampling <= kHelped * cumulative(ledger, before).w1_sampling;
}

/// How many runs the bound may be expected to take: at least one more, and not many more at a time.
std::int64_t DensityPolicy::forecast(const Ledger& ledger, std::int64_t count) const {
  const CumulativeDensity& now = cumulative(ledger, count);
  const double ratio = now.w1_sampling / (bound(now) - now.w1_quadrature - now.w1_precision);
  double runs = std::min(1e6, std::ceil(static_cast<double>(count) * ratio * ratio));
  // From the third probe on the error is estimated from so few by Student's quantile, which is wider at first.
  if (count < 3 && runs > 2) runs = std::max(4.0, 2 * runs);
  return std::clamp<std::int64_t>(static_cast<std::int64_t>(runs), count + 1, 2 * count + 4);
}

std::int64_t DensityPolicy::wanted(const Ledger& ledger) const {
  std::int64_t count = goals_.runs, before = 0;
  if (!goals_.density || goals_.density->w1 <= 0) return count;
  while (ledger.finished_runs() >= count && mends(ledger, count, before)) {
    before = count;
    const std::int64_t more = forecast(ledger, count);
    const std::int64_t each = std::max<std::int64_t>(1, ledger.quadrature_steps(count) / count);
    // What the runs beyond these have cost is no part of it, or finished ones would be given up again.
    const std::int64_t used = ledger.products_before_trace(count) + trace_.own_products(ledger);
    if (more > count + goals_.products_left(used) / each) return count;
    count = more;
  }
  return count;
}

std::optional<Task> DensityPolicy::deal(const Ledger& ledger, int group, std::int64_t count) {
  std::vector<std::int64_t> left;
  for (std::int64_t p = ledger.finished_runs(); p < count; ++p)
    if (!dealt_.contains(p) && ledger.finished(p) == nullptr) left.push_back(p);
  // Probe 0 is group 0's: its basis is wanted there afterwards.
  if (group != 0 && !left.empty() && left.front() == 0) left.erase(left.begin());
  if (left.empty()) return std::nullopt;
  // A group takes no more than its share of the last ones, so that none goes without.
  const auto groups = static_cast<std::size_t>(plan_.groups);
  const auto share = std::max<std::size_t>(1, (left.size() + groups - 1) / groups);
  left.resize(std::min({left.size(), share, static_cast<std::size_t>(plan_.lock_step)}));
  dealt_.insert(left.begin(), left.end());
  RunLanczos task{left, {}};
  const auto tell = [&](std::int64_t probe) {
    if (const TraceSample* sample = ledger.sample(probe)) task.known.push_back(*sample);
  };
  for (const std::int64_t probe : left) tell(probe);
  if (left.front() == 0)
    for (std::int64_t i = 0; i < kSymmetryProbes; ++i) tell(trace_probe(i));
  return task;
}

ProductRange DensityPolicy::expected(const Ledger& ledger) const {
  const bool refined = goals_.density && goals_.density->w1 > 0;
  const std::int64_t least = std::max<std::int64_t>(1, goals_.steps), most = std::max(least, goals_.most_steps);
  ProductRange range;
  const std::int64_t count = wanted(ledger);
  for (std::int64_t p = 0; p < count; ++p) {
    if (const FinishedProbe* one = ledger.finished(p)) {
      range += {products_of(*one), products_of(*one)};
    } else {
      const bool goes_on = refined || (p == 0 && (goals_.solves_by(EigenSolver::kProbe) || goals_.deflates()));
      range += {least, goes_on ? most : least};
    }
  }
  // Until the last that is wanted has finished nobody can say that no more will be.
  if (refined && ledger.finished_runs() < count) range.most += (count + 4) * most;
  return range;
}

}  // namespace hesspect
