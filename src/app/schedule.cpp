#include "schedule.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "hesspect/spectrum/cumulative.h"

namespace hesspect {
namespace {

/// Samples that other groups may take before probe 0's basis says how many are needed.
constexpr std::int64_t kAhead = 4;
/// What further Lanczos runs leave of the sampling error, at most, for more of them to be made.
constexpr double kHelped = 0.85;
/// Of samples that are corrected at a time.
constexpr std::size_t kCorrectAtOnce = 16;

const FinishedProbe* find(const RunState& state, std::int64_t probe) {
  for (const FinishedProbe& one : state.finished)
    if (one.quadrature.probe == probe) return &one;
  return nullptr;
}

template <class Sample>
const Sample* find(const std::vector<Sample>& samples, std::int64_t probe) {
  for (const Sample& one : samples)
    if (one.probe == probe) return &one;
  return nullptr;
}

std::int64_t trace_probe(std::int64_t i) { return static_cast<std::int64_t>(kTraceProbes) + i; }

/// Products of a finished run. After restarts it has taken more steps than its quadrature has.
std::int64_t products_of(const FinishedProbe& one) {
  auto steps = static_cast<std::int64_t>(one.quadrature.alpha.size());
  if (!one.eigenvalues) return steps;
  return std::max(steps, one.eigenvalues->steps) + one.eigenvalues->residual_products;
}

/// Products of the symmetry check, of the first Lanczos runs as far as they are finished, and of block or power runs.
std::int64_t products_used(const RunState& state, std::int64_t runs) {
  std::int64_t products = kSymmetryProbes;
  for (const FinishedProbe& one : state.finished)
    if (one.quadrature.probe < runs) products += products_of(one);
  if (state.eigenvalues) products += state.eigenvalues->steps + state.eigenvalues->residual_products;
  return products;
}

}  // namespace

Schedule::Schedule(const Goals& goals, std::int64_t n, int groups) : goals_(goals), n_(n), groups_(groups) {}

// --- the density ---

/// Of the first `count` runs, which are finished and never change.
const CumulativeDensity& Schedule::cumulative_of(const RunState& state, std::int64_t count) const {
  const auto known = cumulative_.find(count);
  if (known != cumulative_.end()) return known->second;
  std::vector<ProbeQuadrature> prefix;
  for (std::int64_t p = 0; p < count; ++p) prefix.push_back(find(state, p)->quadrature);
  return cumulative_.emplace(count, cumulative_density(prefix, n_, {goals_.confidence})).first->second;
}

DensityAnswer Schedule::density_answer(const RunState& state) const {
  DensityAnswer answer;
  const std::int64_t count = lanczos_wanted(state);
  for (std::int64_t p = 0; p < count; ++p) answer.quadratures.push_back(find(state, p)->quadrature);
  if (!goals_.density || answer.quadratures.empty()) return answer;
  answer.cumulative = cumulative_of(state, count);
  CumulativeDensity& c = answer.cumulative;
  c.converged = goals_.w1 <= 0 || c.w1 <= goals_.w1 * (c.range_hi - c.range_lo);
  return answer;
}

std::int64_t Schedule::lanczos_wanted(const RunState& state) const {
  std::int64_t count = goals_.probes, before = 0;
  if (!goals_.density || goals_.w1 <= 0) return count;
  while (true) {
    for (std::int64_t p = 0; p < count; ++p)
      if (find(state, p) == nullptr) return count;
    const CumulativeDensity& now = cumulative_of(state, count);
    const double target = goals_.w1 * (now.range_hi - now.range_lo);
    // What steps leave open no further probe mends.
    if (now.w1 <= target || !(now.w1_quadrature < target)) return count;
    // Nor do probes help where they have not: multiplicities that no single start vector can tell.
    if (before >= 3 && now.w1_sampling > kHelped * cumulative_of(state, before).w1_sampling) return count;
    before = count;
    const double ratio = now.w1_sampling / (target - now.w1_quadrature);
    double forecast = std::min(1e6, std::ceil(static_cast<double>(count) * ratio * ratio));
    // From the third probe on the error is estimated from so few by Student's quantile, which is wider at first.
    if (count < 3 && forecast > 2) forecast = std::max(4.0, 2 * forecast);
    std::int64_t more = std::clamp<std::int64_t>(static_cast<std::int64_t>(forecast), count + 1, 2 * count + 4);
    std::int64_t taken = 0;
    for (std::int64_t p = 0; p < count; ++p)
      taken += static_cast<std::int64_t>(find(state, p)->quadrature.alpha.size());
    const std::int64_t each = std::max<std::int64_t>(1, taken / count);
    // What the runs beyond these have cost is no part of it, or finished ones would be given up again.
    const std::int64_t used = products_used(state, count) + trace_products(state);
    if (more > count + goals_.products_left(used) / each) return count;
    count = more;
  }
}

// --- the trace ---

/// The number of the i-th sample. The symmetry check's come first, then the first products of the Lanczos runs that are
/// made in any case, but for the one whose basis corrects them, then probes of the trace's own. A diagonal needs the
/// products themselves, so that it has its own alone.
std::int64_t Schedule::place(std::int64_t i) const {
  if (!goals_.diagonal.empty()) return trace_probe(kSymmetryProbes + i);
  if (i < kSymmetryProbes) return trace_probe(i);
  const std::int64_t first = goals_.trace == TraceMethod::kDeflated ? 1 : 0;
  const std::int64_t runs = std::max<std::int64_t>(0, goals_.probes - first);
  return i < kSymmetryProbes + runs ? i - kSymmetryProbes + first : trace_probe(i - runs);
}

/// Samples that max_products allows.
std::int64_t Schedule::trace_limit(const RunState& state) const {
  const std::int64_t own = goals_.products_left(products_used(state, goals_.probes));
  std::int64_t free = 0;
  if (goals_.diagonal.empty())
    while (place(free) < trace_probe(kSymmetryProbes)) ++free;
  return own > std::numeric_limits<std::int64_t>::max() - free ? own : own + free;
}

/// Products taken for the trace alone, of those that the estimate uses.
std::int64_t Schedule::trace_products(const RunState& state) const {
  if (!goals_.samples_trace()) return state.trace ? state.trace->products : 0;
  const std::int64_t enough = trace_need(state).enough;
  std::int64_t products = 0;
  for (std::int64_t i = 0; i < enough; ++i) products += place(i) >= trace_probe(kSymmetryProbes);
  return products;
}

/// The floor is known once probe 0's run has finished, and the same from then on.
TraceRule Schedule::rule(const RunState& state) const {
  const FinishedProbe* first = find(state, 0);
  if (!floor_ && first != nullptr) floor_ = trace_floor(first->quadrature, n_);
  TraceRule rule = goals_.rule;
  rule.floor = floor_.value_or(0);
  return rule;
}

Schedule::TraceNeed Schedule::trace_need(const RunState& state) const {
  TraceNeed need;
  const bool deflated = goals_.trace == TraceMethod::kDeflated;
  std::int64_t base = std::max(goals_.rule.min_samples, kSymmetryProbes);
  if (goals_.rule.rtol <= 0 && goals_.diagonal.empty())  // what comes for nothing
    while (place(base) < trace_probe(kSymmetryProbes)) ++base;
  const bool ready = deflated ? state.deflation.has_value() : true;
  // Without the layers, which only the answer needs.
  std::map<std::int64_t, DeflatedSample> there;
  const auto add = [&](const auto& samples) {
    for (const auto& one : samples)
      there.emplace(one.probe, DeflatedSample{one.probe, one.quadratic_form, one.product_norm_sq, {}});
  };
  deflated ? add(state.deflated) : add(state.samples);
  for (std::int64_t i = 0; ready; ++i) {
    const auto one = there.find(place(i));
    if (one == there.end()) break;
    need.prefix.push_back(std::move(one->second));
  }
  const auto have = static_cast<std::int64_t>(need.prefix.size());
  const std::int64_t limit = trace_limit(state);
  const double captured = state.deflation ? state.deflation->captured : 0;
  if (goals_.rule.rtol <= 0)
    need.enough = have >= base ? base : 0;
  else
    need.enough = samples_needed(captured, need.prefix, rule(state));
  if (need.enough == 0 && have >= limit && ready) need.enough = std::max<std::int64_t>(limit, 1);
  need.enough = std::min(need.enough, have);
  if (need.enough > 0) {
    need.target = need.enough;
  } else if (!ready || have < base) {
    need.target = base + (groups_ > 1 && goals_.rule.rtol > 0 && goals_.diagonal.empty() ? kAhead : 0);
  } else {
    need.target = std::min(samples_forecast(captured, need.prefix, rule(state)), 2 * have + kAhead);
  }
  need.target = std::min(need.target, std::max<std::int64_t>(1, limit));
  return need;
}

bool Schedule::trace_satisfied(const RunState& state) const {
  return !goals_.samples_trace() || trace_need(state).enough > 0;
}

TraceAnswer Schedule::trace_answer(const RunState& state) const {
  const TraceNeed need = trace_need(state);
  TraceAnswer answer;
  const auto count =
      static_cast<std::size_t>(need.enough > 0 ? need.enough : static_cast<std::int64_t>(need.prefix.size()));
  const bool deflated = goals_.trace == TraceMethod::kDeflated;
  for (std::size_t i = 0; i < count; ++i) {
    const std::int64_t number = need.prefix[i].probe;
    answer.samples.push_back(deflated ? *find(state.deflated, number)
                                      : undeflated(std::span(find(state.samples, number), 1)).front());
  }
  const TraceRule asked = rule(state);
  answer.floor = asked.floor;
  answer.estimate = trace_estimate(deflated && state.deflation ? state.deflation->captured : 0, answer.samples, asked);
  answer.estimate.method = deflated ? "deflated" : "hutchinson";
  answer.estimate.half_width += goals_.rounding * std::max(std::abs(answer.estimate.value), answer.floor);
  if (deflated && state.deflation) answer.estimate.deflated = state.deflation->rank;
  if (answer.estimate.samples < goals_.rule.min_samples) answer.estimate.converged = false;
  for (const DeflatedSample& one : answer.samples)
    if (one.probe >= trace_probe(kSymmetryProbes)) ++answer.estimate.products;
  return answer;
}

// --- tasks ---

bool Schedule::done(const RunState& state) const {
  const std::int64_t wanted = lanczos_wanted(state);
  for (std::int64_t p = 0; p < wanted; ++p)
    if (find(state, p) == nullptr) return false;
  if ((goals_.power || goals_.block) && !state.eigenvalues) return false;
  if (goals_.own_trace_method() && !state.trace) return false;
  if (!trace_satisfied(state)) return false;
  return goals_.diagonal.empty() || diagonal_written_;
}

std::optional<Task> Schedule::lanczos_task(const RunState& state, int group, std::int64_t together,
                                           std::int64_t wanted) {
  std::vector<std::int64_t> left;
  for (std::int64_t p = 0; p < wanted; ++p)
    if (!dealt_.contains(p) && find(state, p) == nullptr) left.push_back(p);
  // Probe 0 is group 0's: its basis is wanted there afterwards.
  if (group != 0 && !left.empty() && left.front() == 0) left.erase(left.begin());
  if (left.empty()) return std::nullopt;
  // No more than its share of the last ones, that no group goes without.
  const auto groups = static_cast<std::size_t>(groups_);
  const auto share = std::max<std::size_t>(1, (left.size() + groups - 1) / groups);
  left.resize(std::min({left.size(), share, static_cast<std::size_t>(together)}));
  dealt_.insert(left.begin(), left.end());
  return Task{Task::Kind::kLanczos, left};
}

std::optional<Task> Schedule::trace_task(const RunState& state, int group, std::int64_t together) {
  const TraceNeed need = trace_need(state);
  std::set<std::int64_t> sampled, corrected;
  for (const TraceSample& one : state.samples) sampled.insert(one.probe);
  for (const DeflatedSample& one : state.deflated) corrected.insert(one.probe);
  const bool deflated = goals_.trace == TraceMethod::kDeflated, with_diagonal = !goals_.diagonal.empty();
  if (group == 0 && deflated && find(state, 0) != nullptr) {
    const bool needed = need.enough == 0 || (with_diagonal && !diagonal_written_);
    if (needed && !deflation_there_ && !rebuilding_) {
      rebuilding_ = true;
      return Task{Task::Kind::kRebuild, {0}};
    }
    Task correct{Task::Kind::kCorrect, {}};
    for (std::int64_t i = 0; i < need.target && deflation_there_ && correct.probes.size() < kCorrectAtOnce; ++i)
      if (sampled.contains(place(i)) && !corrected.contains(place(i))) correct.probes.push_back(place(i));
    if (!correct.probes.empty()) return correct;
  }
  if (need.enough > 0 || (with_diagonal && (group != 0 || (deflated && !deflation_there_)))) return std::nullopt;
  Task task{Task::Kind::kTrace, {}};
  // A few while many are needed, one when the next may be enough.
  const std::int64_t few = (need.target - static_cast<std::int64_t>(need.prefix.size())) / (2 * groups_);
  const std::int64_t most = with_diagonal ? 1 : std::max(together, std::clamp<std::int64_t>(few, 1, kTraceTogether));
  for (std::int64_t i = 0; i < need.target && static_cast<std::int64_t>(task.probes.size()) < most; ++i) {
    const std::int64_t probe = place(i);
    if (probe >= trace_probe(kSymmetryProbes) && !dealt_.contains(probe) && !sampled.contains(probe))
      task.probes.push_back(probe);
  }
  if (task.probes.empty()) return std::nullopt;
  dealt_.insert(task.probes.begin(), task.probes.end());
  return task;
}

Task Schedule::next(const RunState& state, int group, std::int64_t together) {
  if (auto task = lanczos_task(state, group, together, goals_.probes)) return *task;
  if (group == 0 && (goals_.power || goals_.block) && !state.eigenvalues && !eigenvalues_dealt_) {
    eigenvalues_dealt_ = true;
    return {Task::Kind::kEigenvalues, {}};
  }
  if (group == 0 && goals_.own_trace_method() && !state.trace && !trace_dealt_) {
    trace_dealt_ = true;
    return {Task::Kind::kOwnTrace, {}};
  }
  if (goals_.samples_trace())
    if (auto task = trace_task(state, group, together)) return *task;
  const bool satisfied = trace_satisfied(state);
  if (group == 0 && satisfied && !goals_.diagonal.empty() && !diagonal_dealt_) {
    diagonal_dealt_ = true;
    return {Task::Kind::kDiagonal, {}};
  }
  // Further runs for the density: where probe 0's basis is, only when it is not needed any more.
  if (group != 0 || satisfied)
    if (auto task = lanczos_task(state, group, together, lanczos_wanted(state))) return *task;
  return {done(state) ? Task::Kind::kDone : Task::Kind::kWait, {}};
}

std::int64_t Schedule::expected_products(const RunState& state) const {
  const std::int64_t wanted = lanczos_wanted(state);
  std::int64_t products = kSymmetryProbes;
  for (std::int64_t p = 0; p < wanted; ++p) {
    const FinishedProbe* one = find(state, p);
    if (one != nullptr) {
      products += products_of(*one);
    } else {
      const bool longest = p == 0 && (goals_.eigenvalues || goals_.trace == TraceMethod::kDeflated);
      products +=
          longest ? std::max(goals_.probe.steps, goals_.max_steps) : std::max<std::int64_t>(1, goals_.probe.steps);
    }
  }
  if (goals_.power || goals_.block) products += goals_.max_steps;
  if (goals_.samples_trace()) {
    const TraceNeed need = trace_need(state);
    for (std::int64_t i = 0; i < std::min<std::int64_t>(need.target, 100'000); ++i)
      products += place(i) >= trace_probe(kSymmetryProbes);
  }
  return products;
}

}  // namespace hesspect
