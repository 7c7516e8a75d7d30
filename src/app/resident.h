// What stays in a process from one run to the next: the data with this rank's rows, which rows are in use, where the
// ranks are, and plans with what was measured for them. Only weights are read again, and what depends on them is found
// again: whether they fit, whether they are finite, whether rows stand alone.
//
//   ResidentProblem resident;
//   for (const std::string& weights : checkpoints) {
//     config.model.weights = {weights};
//     …
//     run_spectrum(run, argv, signal, world, &resident);
//   }
//
// A run with a resident problem gives bit for bit what a fresh one with the same plan gives. The program itself is
// loaded anew for each run, which takes hundredths of a second: nothing of other weights can be left in it.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "hesspect/config/options.h"
#include "problem.h"

namespace hesspect {

/// What a plan is made of, beside the problem.
std::string plan_key_of(const Invocation& run);

/// On every rank. One problem at a time: another model, other data or other options of theirs take its place.
class ResidentProblem {
 public:
  /// The problem of a run: what stays, with the run's weights laid over it, or read anew where it is another one.
  /// Files count as others where their size, inode or a time of theirs has changed. Collective.
  /// @throws as read_problem, on every rank; what stays is then as it was
  Problem take(const RunConfig& config, int threads, Phases* phases, Communicator& world);
  /// When the run is over, and nothing borrows the problem any more. It need not be called where a run has failed.
  void give_back(Problem problem);

  /// The plan of an earlier run with the problem that was taken last, of the same command and the same options but for
  /// weights and outputs; nullptr: none.
  /// @param key  of plan_key_of
  const Plan* plan_of(const std::string& key) const;
  void keep_plan(const std::string& key, const Plan& plan);

  /// Of the program that was taken last.
  const ParameterLayout& layout() const { return layout_; }

  /// How often a problem was read anew, and how often weights alone.
  int times_read() const { return times_read_; }
  int times_taken_over() const { return times_taken_over_; }

 private:
  std::string key_;         // of the problem that was taken last
  ParameterLayout layout_;  // of its program
  std::optional<Problem> kept_;
  std::map<std::string, Plan> plans_;  // of the same problem
  int times_read_ = 0, times_taken_over_ = 0;
};

}  // namespace hesspect
