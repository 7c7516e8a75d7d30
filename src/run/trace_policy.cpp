#include <algorithm>
#include <cmath>
#include <limits>

#include "hesspect/core/probe_numbers.h"
#include "policies.h"

namespace hesspect {
namespace {

/// Samples that other groups may take before probe 0's basis says how many are needed.
constexpr std::int64_t kAhead = 4;
/// Samples that are corrected at a time.
constexpr std::size_t kCorrectAtOnce = 16;
constexpr double kMostSamples = 1e15;  // of a forecast
/// Vectors that a further product at once takes: in and out, and what comes and goes with its sample.
constexpr std::int64_t kVectorsOfASample = 5;

}  // namespace

// --- how many samples are enough ---

TraceRule TracePolicy::rule(const Ledger& ledger) const {
  const FinishedProbe* first = ledger.finished(0);
  if (!floor_ && first != nullptr) floor_ = trace_floor(first->quadrature, goals_.n);
  TraceRule rule = goals_.trace->rule;
  rule.rtol = goals_.sampling_rtol();
  rule.floor = floor_.value_or(0);
  return rule;
}

/// Looks at what the prefix has got since the last call; from its begin where it or the rule is another one.
const TracePolicy::Scan& TracePolicy::scan(const Ledger& ledger) const {
  const SamplePrefix& prefix = ledger.prefix();
  const TraceRule asked = rule(ledger);
  if (scan_.generation != prefix.generation || scan_.floor != asked.floor || scan_.captured != captured(ledger))
    scan_ = {prefix.generation, asked.floor, captured(ledger), {}, 0};
  for (auto i = static_cast<std::size_t>(scan_.sums.count()); i < prefix.samples.size(); ++i) {
    scan_.sums.add(prefix.samples[i]);
    if (scan_.enough == 0 && scan_.sums.enough(scan_.captured, asked)) scan_.enough = scan_.sums.count();
  }
  return scan_;
}

/// Samples that are taken in any case. Without an accuracy to go by, what comes for nothing is taken too.
std::int64_t TracePolicy::least_samples(const Ledger& ledger) const {
  const std::int64_t asked = std::max(goals_.trace->rule.min_samples, kSymmetryProbes);
  return goals_.trace->rule.rtol <= 0 ? std::max(asked, ledger.order().free()) : asked;
}

/// Samples that --max-hvps allows.
std::int64_t TracePolicy::limit(const Ledger& ledger) const {
  const std::int64_t own = goals_.products_left(ledger.products_before_trace(goals_.runs));
  const std::int64_t free = ledger.order().free();
  return own > std::numeric_limits<std::int64_t>::max() - free ? own : own + free;
}

std::int64_t TracePolicy::enough(const Ledger& ledger) const {
  const auto have = static_cast<std::int64_t>(ledger.prefix().samples.size());
  const std::int64_t least = least_samples(ledger), most = limit(ledger);
  std::int64_t enough = 0;
  if (goals_.trace->rule.rtol > 0)
    enough = scan(ledger).enough;
  else if (have >= least)
    enough = least;
  if (enough == 0 && have >= most && ready(ledger)) enough = std::max<std::int64_t>(most, 1);
  return std::min(enough, have);
}

/// Samples that are wanted, as far as is known by now.
std::int64_t TracePolicy::target(const Ledger& ledger) const {
  if (const std::int64_t known = enough(ledger); known > 0) return known;
  const auto have = static_cast<std::int64_t>(ledger.prefix().samples.size());
  const std::int64_t least = least_samples(ledger), most = std::max<std::int64_t>(1, limit(ledger));
  const bool by_accuracy = goals_.trace->rule.rtol > 0;
  if (!ready(ledger) || have < least)
    return std::min(least + (plan_.groups > 1 && by_accuracy && !goals_.writes_diagonal() ? kAhead : 0), most);
  return std::min({scan(ledger).sums.forecast(captured(ledger), rule(ledger)), 2 * have + kAhead, most});
}

std::int64_t TracePolicy::own_products(const Ledger& ledger) const {
  if (!goals_.samples_trace()) return ledger.trace() ? ledger.trace()->products : 0;
  return std::max<std::int64_t>(0, enough(ledger) - ledger.order().free());
}

bool TracePolicy::sampled_enough(const Ledger& ledger) const { return !goals_.samples_trace() || enough(ledger) > 0; }

bool TracePolicy::done(const Ledger& ledger) const {
  if (goals_.estimates_trace_by_itself() && !ledger.trace()) return false;
  return sampled_enough(ledger) && (!goals_.writes_diagonal() || ledger.diagonal_written());
}

// --- tasks ---

/// What only group 0 can do, with probe 0's basis.
std::optional<Task> TracePolicy::by_basis(const Ledger& ledger) {
  if (!goals_.deflates() || ledger.finished(0) == nullptr) return std::nullopt;
  const bool needed = enough(ledger) == 0 || (goals_.writes_diagonal() && !ledger.diagonal_written());
  if (needed && !ledger.has_basis() && !rebuilding_) {
    rebuilding_ = true;
    RebuildBasis task;
    for (std::int64_t i = 0; i < kSymmetryProbes; ++i)
      if (const TraceSample* sample = ledger.sample(trace_probe(i))) task.known.push_back(*sample);
    return task;
  }
  if (!ledger.has_basis()) return std::nullopt;
  CorrectSamples task;
  const std::int64_t end = target(ledger);
  for (auto i = static_cast<std::int64_t>(ledger.prefix().samples.size());
       i < end && task.samples.size() < kCorrectAtOnce; ++i) {
    const std::int64_t probe = ledger.order().probe(i);
    const TraceSample* sample = ledger.sample(probe);
    if (sample != nullptr && ledger.deflated(probe) == nullptr) task.samples.push_back(*sample);
    if (sample == nullptr && i >= next_to_sample_) break;  // nor are the later ones there
  }
  if (task.samples.empty()) return std::nullopt;
  return task;
}

/// As planned; and where probe 0's run has taken fewer steps than its basis was given room for, in that room too.
std::int64_t TracePolicy::together(const Ledger& ledger) const {
  const FinishedProbe* first = ledger.finished(0);
  std::int64_t spare = 0;
  if (first != nullptr && plan_.max_basis == 0) {
    const std::int64_t steps = std::max(static_cast<std::int64_t>(first->quadrature.alpha.size()),
                                        first->eigenvalues ? first->eigenvalues->steps : 0);
    spare = std::max<std::int64_t>(0, planned_steps_ - steps);
  }
  const std::int64_t planned = std::max<std::int64_t>(1, plan_.joint);
  return goals_.writes_diagonal() ? planned : std::min(kTraceTogether, planned + spare / kVectorsOfASample);
}

std::optional<Task> TracePolicy::sample(const Ledger& ledger, int group) {
  if (enough(ledger) > 0) return std::nullopt;
  // The diagonal's sums are kept by group 0 alone, and what its samples leave is known only with the basis.
  const bool diagonal = goals_.writes_diagonal();
  if (diagonal && (group != 0 || (goals_.deflates() && !ledger.has_basis()))) return std::nullopt;
  // A few are taken at once while many are needed, one when the next may be enough.
  const std::int64_t wanted = target(ledger);
  const std::int64_t few = (wanted - static_cast<std::int64_t>(ledger.prefix().samples.size())) / (2 * plan_.groups);
  const std::int64_t together = this->together(ledger);
  const std::int64_t most =
      diagonal ? 1 : std::max<std::int64_t>(plan_.lock_step, std::clamp<std::int64_t>(few, 1, together));
  SampleTrace task;
  const auto is_open = [&](std::int64_t i) {
    const std::int64_t probe = ledger.order().probe(i);
    return i >= ledger.order().free() && !dealt_.contains(probe) && ledger.sample(probe) == nullptr;
  };
  for (; next_to_sample_ < wanted && static_cast<std::int64_t>(task.probes.size()) < most; ++next_to_sample_)
    if (is_open(next_to_sample_)) task.probes.push_back(ledger.order().probe(next_to_sample_));
  if (task.probes.empty()) return std::nullopt;
  dealt_.insert(task.probes.begin(), task.probes.end());
  return task;
}

std::optional<Task> TracePolicy::next(const Ledger& ledger, int group) {
  if (!goals_.trace) return std::nullopt;
  if (goals_.estimates_trace_by_itself()) {
    if (group != 0 || ledger.trace() || estimate_dealt_) return std::nullopt;
    estimate_dealt_ = true;
    return EstimateTrace{};
  }
  if (group == 0)
    if (auto task = by_basis(ledger)) return task;
  if (auto task = sample(ledger, group)) return task;
  if (group != 0 || !goals_.writes_diagonal() || enough(ledger) == 0 || diagonal_dealt_) return std::nullopt;
  diagonal_dealt_ = true;
  return WriteDiagonal{};
}

ProductRange TracePolicy::expected(const Ledger& ledger) const {
  if (!goals_.trace) return {};
  if (!goals_.samples_trace()) {
    const std::int64_t taken = ledger.trace() ? ledger.trace()->products : 0;
    return ledger.trace() ? ProductRange{taken, taken} : ProductRange{kLeastOwnProducts, goals_.trace->own_products};
  }
  const auto range = [&](double least, double most) {
    const auto own = [&](double samples) {
      const double allowed = std::min({samples, static_cast<double>(limit(ledger)), kMostSamples});
      return std::max<std::int64_t>(0, static_cast<std::int64_t>(allowed) - ledger.order().free());
    };
    return ProductRange{own(least), own(most)};
  };
  const auto least = static_cast<double>(least_samples(ledger));
  if (const auto known = static_cast<double>(enough(ledger)); known > 0) return range(known, known);
  if (goals_.trace->rule.rtol <= 0) return range(least, least);
  // A forecast from k samples is off by some 1/√k of itself. Before there are any of what the deflated space leaves
  // over, those of the whole matrix tell what it would take without deflation: as much at most.
  TraceSums whole;
  const bool sampled = scan(ledger).sums.count() > 0;
  if (!sampled)
    for (std::int64_t i = 0; i < kSymmetryProbes; ++i)
      if (const TraceSample* sample = ledger.sample(trace_probe(i)))
        whole.add({sample->probe, sample->quadratic_form, sample->product_norm_sq, {}});
  const TraceSums& sums = sampled ? scan(ledger).sums : whole;
  if (sums.count() == 0) return range(least, HUGE_VAL);
  const auto forecast = static_cast<double>(sums.forecast(sampled ? captured(ledger) : 0, rule(ledger)));
  const double factor = 1 + 2 / std::sqrt(static_cast<double>(sums.count()));
  // While probe 0's run goes on, what it will say of the trace's floor may yet make fewer samples enough.
  const bool settled = sampled && (goals_.runs == 0 || ledger.finished(0) != nullptr);
  return range(settled ? std::max(forecast / factor, static_cast<double>(sums.count() + 1)) : least, forecast * factor);
}

}  // namespace hesspect
