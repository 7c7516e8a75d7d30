// Rank 0's end of the line: it takes reports into the ledger, deals tasks (schedule.h decides), writes run states, and
// tells the groups when to stop.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "hesspect/comm/failure.h"
#include "hesspect/core/log.h"
#include "hesspect/core/timer.h"
#include "hesspect/io/checkpoint.h"
#include "hesspect/run/ledger.h"
#include "hesspect/run/sources.h"
#include "messages.h"
#include "schedule.h"

namespace hesspect {

/// `answer`, which never throws, is the desk's; the rest is for before and after the groups' work.
class Dealer {
 public:
  /// @param since_start    of this start's clock
  /// @param checkpoints_s  between the groups' checkpoints, in seconds; 0: only when stopped
  Dealer(LedgerState state, const Goals& goals, const Plan& plan, CheckpointFolder& folder, SourceHashing& hashing,
         const Timer& since_start, double checkpoints_s);

  std::string answer(int rank, const std::string& question);

  /// Writes what is not written yet, but of a run that is done before it has had a state. After the groups' work.
  /// @return whether there is a state
  /// @throws InputError
  bool write_last();
  const std::optional<Failure>& failure() const { return failure_; }
  bool unfinished() const { return !schedule_.done(ledger_); }
  void finish_progress() { progress_.finish(); }
  Ledger take_ledger() { return std::move(ledger_); }

 private:
  Reply reply_to(Message message);
  void take(Report& report);
  void save_if_due();
  void save();
  void know_sources();
  bool is_young() const;

  Ledger ledger_;
  Schedule schedule_;
  CheckpointFolder& folder_;
  SourceHashing& hashing_;
  Progress progress_;
  Timer since_start_;
  std::vector<std::int64_t> finished_;  // probes whose own checkpoints can go when the state is written
  std::optional<Failure> failure_;
  bool keeps_first_ = false;  // probe 0's vectors are what the trace's samples are corrected by, to the end
  double write_every_s_;
  Timer since_written_;
  bool stop_ = false;
  bool dirty_ = true;       // there is something that no state on disk has
  bool urgent_ = true;      // and it is a finished run, or the first state
  bool has_state_ = false;  // of this start
  bool warned_ = false;
};

}  // namespace hesspect
