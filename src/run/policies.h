// What is to be done next, and what is enough, for each goal: decided from the ledger, on rank 0.
//
// Whatever decides the result is taken from prefixes, of the Lanczos runs by number and of the trace's samples in a
// fixed order, so that it does not depend on how many groups there are, nor on which was faster. What other groups had
// under way when a prefix was enough is surplus.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "hesspect/run/ledger.h"
#include "messages.h"

namespace hesspect {

/// The trace: its samples and their corrections, the diagonal, or an estimator that chooses its own vectors.
class TracePolicy {
 public:
  TracePolicy(const Goals& goals, const Plan& plan)
      : goals_(goals), plan_(plan), planned_steps_(demand_of(goals).longest_steps) {}

  std::optional<Task> next(const Ledger& ledger, int group);
  /// Samples are enough: nothing needs probe 0's basis any more but the diagonal.
  bool sampled_enough(const Ledger& ledger) const;
  bool done(const Ledger& ledger) const;
  ProductRange expected(const Ledger& ledger) const;

  /// How many samples of the prefix are the answer; 0 where they are not enough yet.
  std::int64_t enough(const Ledger& ledger) const;
  /// The rule with its floor, which is known once probe 0 has finished, and the same from then on.
  TraceRule rule(const Ledger& ledger) const;
  /// Products taken for the trace alone, of those that the estimate uses.
  std::int64_t own_products(const Ledger& ledger) const;

 private:
  /// The sums over the prefix as far as it has been looked at, by one rule.
  struct Scan {
    std::int64_t generation = -1;
    double floor = 0, captured = 0;
    TraceSums sums;
    std::int64_t enough = 0;
  };
  const Scan& scan(const Ledger& ledger) const;
  std::int64_t least_samples(const Ledger& ledger) const;
  std::int64_t limit(const Ledger& ledger) const;
  std::int64_t target(const Ledger& ledger) const;
  std::int64_t together(const Ledger& ledger) const;
  bool ready(const Ledger& ledger) const { return !goals_.deflates() || ledger.deflation(); }
  double captured(const Ledger& ledger) const { return ledger.deflation() ? ledger.deflation()->captured : 0; }
  std::optional<Task> by_basis(const Ledger& ledger);
  std::optional<Task> sample(const Ledger& ledger, int group);

  const Goals& goals_;
  const Plan& plan_;
  const std::int64_t planned_steps_;  // that probe 0's basis has room for, where it may go on
  std::set<std::int64_t> dealt_;      // samples, by number, in this start
  std::int64_t next_to_sample_ = 0;   // samples before it in the order are taken or dealt
  bool rebuilding_ = false, estimate_dealt_ = false, diagonal_dealt_ = false;
  mutable Scan scan_;
  mutable std::optional<double> floor_;
};

/// The Lanczos runs: first the least number of them, then more as long as the density's bound asks for more and they
/// would mend it.
class DensityPolicy {
 public:
  /// @param trace  whose products leave fewer for more runs
  DensityPolicy(const Goals& goals, const Plan& plan, const TracePolicy& trace)
      : goals_(goals), plan_(plan), trace_(trace) {}

  /// The next runs for a group among the least number, and among all that are wanted.
  std::optional<Task> next_of_least(const Ledger& ledger, int group) { return deal(ledger, group, goals_.runs); }
  std::optional<Task> next(const Ledger& ledger, int group) { return deal(ledger, group, wanted(ledger)); }
  bool done(const Ledger& ledger) const { return ledger.finished_runs() >= wanted(ledger); }
  ProductRange expected(const Ledger& ledger) const;

  /// Lanczos runs that are wanted, as far as is known by now.
  std::int64_t wanted(const Ledger& ledger) const;
  /// Of the first `count` runs, which are finished and never change.
  const CumulativeDensity& cumulative(const Ledger& ledger, std::int64_t count) const;
  bool met(const CumulativeDensity& density) const { return density.w1 <= bound(density); }

 private:
  std::optional<Task> deal(const Ledger& ledger, int group, std::int64_t count);
  bool mends(const Ledger& ledger, std::int64_t count, std::int64_t before) const;
  std::int64_t forecast(const Ledger& ledger, std::int64_t count) const;
  double bound(const CumulativeDensity& density) const;

  const Goals& goals_;
  const Plan& plan_;
  const TracePolicy& trace_;
  std::set<std::int64_t> dealt_;                                  // in this start
  mutable std::map<std::int64_t, CumulativeDensity> cumulative_;  // by the number of runs
};

/// Diagonal blocks, one after the other, the largest first.
class BlockPolicy {
 public:
  explicit BlockPolicy(const Goals& goals);

  std::optional<Task> next(const Ledger& ledger);
  bool done(const Ledger& ledger) const;
  /// Products with blocks.
  ProductRange expected(const Ledger& ledger) const;

 private:
  const Goals& goals_;
  std::vector<std::size_t> order_;
  std::set<std::size_t> dealt_;  // in this start
};

/// Eigenvalues by a run of their own. Those of probe 0's run come with it.
class EigenPolicy {
 public:
  explicit EigenPolicy(const Goals& goals) : goals_(goals) {}

  std::optional<Task> next(const Ledger& ledger, int group);
  bool done(const Ledger& ledger) const { return !own_run() || ledger.eigenvalues(); }
  ProductRange expected(const Ledger& ledger) const;

 private:
  bool own_run() const { return goals_.eigen && goals_.eigen->solver != EigenSolver::kProbe; }
  const Goals& goals_;
  bool dealt_ = false;
};

}  // namespace hesspect
