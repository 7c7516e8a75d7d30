// What is to be done next, and what is enough: decided from what has been reported, on rank 0.
//
// Whatever decides the result is taken from prefixes, of the Lanczos runs by number and of the trace's samples in a
// fixed order, so that it does not depend on how many groups there are, nor on which was faster. What other groups had
// under way when a prefix was enough is surplus.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "goals.h"
#include "hesspect/io/checkpoint.h"

namespace hesspect {

/// A piece of work for a group.
struct Task {
  enum class Kind {
    kWait,         // nothing now, but more may come
    kDone,         // nothing any more, for anyone
    kLanczos,      // these Lanczos runs, in lock-step
    kTrace,        // one product with each of these probes
    kRebuild,      // probe 0's Lanczos run again, for its basis; it was finished by an earlier start
    kCorrect,      // these samples, by probe 0's basis
    kEigenvalues,  // a block or power run
    kOwnTrace,     // Hutch++ or XTrace
    kDiagonal      // write it
  };
  Kind kind = Kind::kWait;
  std::vector<std::int64_t> probes;
};

/// The Lanczos runs that count.
struct DensityAnswer {
  std::vector<ProbeQuadrature> quadratures;
  CumulativeDensity cumulative;
};

/// The samples that count.
struct TraceAnswer {
  TraceEstimate estimate;
  double floor = 0;  // what its accuracy is relative to at least (trace_floor)
  std::vector<DeflatedSample> samples;
};

class Schedule {
 public:
  /// @param n  dimensions
  Schedule(const Goals& goals, std::int64_t n, int groups);

  /// The next task for a group. @param together  probes that it takes at a time
  Task next(const RunState& state, int group, std::int64_t together);
  bool done(const RunState& state) const;
  /// Group 0 holds probe 0's basis.
  void deflation_is_there() { deflation_there_ = true; }
  void diagonal_is_written() { diagonal_written_ = true; }

  /// Lanczos runs that are wanted, as far as is known by now.
  std::int64_t lanczos_wanted(const RunState& state) const;
  DensityAnswer density_answer(const RunState& state) const;
  /// Of the samples as they are.
  TraceAnswer trace_answer(const RunState& state) const;
  /// Products of the whole run, as far as can be told.
  std::int64_t expected_products(const RunState& state) const;

 private:
  struct TraceNeed {
    std::vector<DeflatedSample> prefix;  // that are there, in order
    std::int64_t enough = 0;             // how many of them are; 0: not yet
    std::int64_t target = 0;             // samples that are wanted, as far as is known by now
  };
  TraceRule rule(const RunState& state) const;
  TraceNeed trace_need(const RunState& state) const;
  std::int64_t place(std::int64_t i) const;
  std::int64_t trace_limit(const RunState& state) const;
  std::int64_t trace_products(const RunState& state) const;
  std::optional<Task> lanczos_task(const RunState& state, int group, std::int64_t together, std::int64_t wanted);
  std::optional<Task> trace_task(const RunState& state, int group, std::int64_t together);
  bool trace_satisfied(const RunState& state) const;
  const CumulativeDensity& cumulative_of(const RunState& state, std::int64_t count) const;

  const Goals goals_;
  const std::int64_t n_;
  const int groups_;
  std::set<std::int64_t> dealt_;  // Lanczos runs and samples, by number, in this start
  bool eigenvalues_dealt_ = false, trace_dealt_ = false, diagonal_dealt_ = false;
  mutable std::map<std::int64_t, CumulativeDensity> cumulative_;  // of the first so many Lanczos runs, once finished
  mutable std::optional<double> floor_;                           // of the trace
  bool deflation_there_ = false, rebuilding_ = false, diagonal_written_ = false;
};

}  // namespace hesspect
