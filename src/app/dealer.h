// What rank 0 knows and decides while the groups work: which probe goes to whom, what is finished, whether to stop. And
// the other end of that line, with which each group's first rank asks and reports.
#pragma once

#include <cstdint>
#include <deque>
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
  /// @param probes   still to be done, in the order of dealing
  /// @param expected products of the whole run, at most
  /// @param since_start  of this start's clock
  Dealer(RunState state, std::deque<std::int64_t> probes, CheckpointFolder& folder, const SourceHashing& hashing,
         const Timer& since_start, std::string label, std::int64_t expected, int groups);

  std::string answer(int rank, const std::string& question);

  /// Writes what is not written yet, with the files' digests, for which it waits. After the groups' work.
  /// @throws InputError
  void write_last();
  /// The state with all that has been reported.
  RunState state() const;
  const std::optional<Failure>& failure() const { return failure_; }
  /// Some probe is not finished.
  bool stopped() const { return state_.finished.size() < probes_; }
  void finish_progress() { progress_.finish(); }

 private:
  std::string reply_to(const std::string& question);
  void save();
  std::int64_t products() const;

  RunState state_;
  std::deque<std::int64_t> left_;
  CheckpointFolder& folder_;
  const SourceHashing& hashing_;
  Progress progress_;
  Timer since_start_;
  std::vector<Tally> tallies_;         // by group
  std::vector<std::int64_t> written_;  // probes finished whose own checkpoints can go when the state is written
  std::optional<Failure> failure_;
  std::size_t probes_;   // of the whole run
  std::set<int> ended_;  // groups that have no more to do
  Timer since_written_;
  bool stop_ = false;
  bool dirty_ = true;   // there is something that no state on disk tells
  bool urgent_ = true;  // and it is a finished probe, or the first state
  bool warned_ = false;
};

/// A group's line to the dealer, used by its first rank alone. Each call tells what the group has spent.
class Line {
 public:
  Line(Desk& desk, int group) : desk_(desk), group_(group) {}
  /// Up to `count` probes; none where none are left, or the run stops.
  std::vector<std::int64_t> next(std::int64_t count, const Tally& tally);
  /// @return true where the run is to stop
  bool progress(const Tally& tally);
  bool finished(const FinishedProbe& probe, const Tally& tally);
  void checkpointed(const Tally& tally);
  void symmetry(double error, double curvature_scale);
  /// The group has no probe any more. @return true where no group has: until then it waits, and may hear of a stop
  bool ended();
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
