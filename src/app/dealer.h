// What rank 0 knows and decides while the groups work: which probe goes to whom, what is finished, whether to stop. And
// the other end of that line, with which each group's first rank asks and reports.
#pragma once

#include <cstdint>
#include <deque>
#include <future>
#include <optional>
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

/// On rank 0. `answer` is the desk's; the rest is for before and after the groups' work.
class Dealer {
 public:
  /// @param probes   still to be done, in the order of dealing
  /// @param sources  the files' digests, which a run state holds: none is written before they are there
  /// @param expected products of the whole run, at most
  Dealer(RunState state, std::deque<std::int64_t> probes, CheckpointFolder& folder, std::shared_future<Sources> sources,
         std::string label, std::int64_t expected, int groups);

  std::string answer(int rank, const std::string& question);

  /// Writes the state of a stopped run, waiting for the digests. @throws InputError
  void write_stopped();
  /// The state with all that has been reported.
  RunState state() const;
  const std::optional<Failure>& failure() const { return failure_; }
  bool stopped() const { return stop_; }
  void finish_progress() { progress_.finish(); }

 private:
  void save(bool wait);

  RunState state_;
  std::deque<std::int64_t> left_;
  CheckpointFolder& folder_;
  std::shared_future<Sources> sources_;
  Progress progress_;
  Timer since_start_;
  std::vector<Tally> tallies_;         // by group
  std::vector<std::int64_t> written_;  // probes finished whose own checkpoints can go when the state is written
  std::optional<Failure> failure_;
  bool stop_ = false;
  bool dirty_ = true;
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
  /// The group stops, having been asked to: so do the others.
  void stopping(const Tally& tally);
  /// The group failed; the others stop.
  void failed(const Failure& failure);
  void say(const std::string& text);
  void warn(const std::string& text);

 private:
  Desk& desk_;
  int group_;
};

}  // namespace hesspect
