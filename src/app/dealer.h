// What rank 0 knows while the groups work: what is finished, who does what next (schedule.h decides), whether to stop.
// And the other end of that line, with which each group's first rank asks and reports.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "failure.h"
#include "hesspect/comm/desk.h"
#include "hesspect/core/log.h"
#include "hesspect/core/timer.h"
#include "hesspect/io/checkpoint.h"
#include "schedule.h"
#include "sources.h"

namespace hesspect {

/// What a group has spent since this start.
struct Tally {
  std::int64_t products = 0;
  double product_s = 0;
  double communication_s = 0;
};

/// On rank 0. `answer`, which never throws, is the desk's; the rest is for before and after the groups' work.
class Dealer {
 public:
  /// @param since_start    of this start's clock
  /// @param checkpoints_s  between the groups' checkpoints, in seconds; 0: only when stopped
  Dealer(RunState state, const Goals& goals, std::int64_t n, CheckpointFolder& folder, const SourceHashing& hashing,
         const Timer& since_start, int groups, double checkpoints_s);

  std::string answer(int rank, const std::string& question);

  /// Writes what is not written yet, with the files' digests, for which it waits. After the groups' work.
  /// @throws InputError
  void write_last();
  /// The state with all that has been reported.
  RunState state() const;
  const std::optional<Failure>& failure() const { return failure_; }
  /// Something is not finished.
  bool stopped() const { return !schedule_.done(state_); }
  const Schedule& schedule() const { return schedule_; }
  void finish_progress() { progress_.finish(); }

 private:
  std::string reply_to(const std::string& question);
  void take_in(const std::string& verb, const nlohmann::json& question);
  void save();
  std::int64_t products() const;

  RunState state_;
  Schedule schedule_;
  CheckpointFolder& folder_;
  const SourceHashing& hashing_;
  Progress progress_;
  Timer since_start_;
  std::vector<Tally> tallies_;         // by group
  std::vector<std::int64_t> written_;  // probes finished whose own checkpoints can go when the state is written
  std::optional<Failure> failure_;
  bool deflates_ = false;
  double write_every_s_;
  Timer since_written_;
  bool stop_ = false;
  bool dirty_ = true;   // there is something that no state on disk tells
  bool urgent_ = true;  // and it is a finished probe, or the first state
  bool warned_ = false;
};

/// A group's next work.
struct Assignment {
  Task task;
  std::vector<TraceSample> samples;  // that the task is about: the symmetry check's, or those to be corrected
};
/// As text, for all ranks of the group, and back.
std::string to_text(const Assignment& assignment);
Assignment assignment_from(const std::string& text);

/// A group's line to the dealer, used by its first rank alone. Each call tells what the group has spent.
class Line {
 public:
  Line(Desk& desk, int group) : desk_(desk), group_(group) {}
  /// What to do next. @param together  probes that the group takes at a time
  Assignment next(std::int64_t together, const Tally& tally);
  /// @return true where the run is to stop
  bool progress(const Tally& tally);
  bool finished(const FinishedProbe& probe, const Tally& tally);
  void sample(const TraceSample& sample, const Tally& tally);
  void deflated(const std::vector<DeflatedSample>& samples);
  /// Probe 0's basis is there to correct samples by.
  void deflation(const DeflationState& state);
  void trace(const TraceEstimate& estimate, const Tally& tally);
  void eigenvalues(const EigenResult& result, const Tally& tally);
  void diagonal_written();
  void checkpointed(const Tally& tally);
  void symmetry(double error, double curvature_scale);
  /// The group stops, having been asked to: so do the others.
  void stopping(const Tally& tally);
  /// The group failed; the others stop.
  void failed(const Failure& failure);
  void say(const std::string& text);
  void warn(const std::string& text);

 private:
  std::string ask(const char* verb, nlohmann::json fields);

  Desk& desk_;
  int group_;
};

}  // namespace hesspect
