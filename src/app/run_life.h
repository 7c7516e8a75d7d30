// The life of a run that can be stopped: begun, or gone on with from its checkpoint; stopped by a signal or a clock;
// written down; ended with its result.
//
//   RunLife life(run, signal, world);
//   return life.live({}, [&] {
//     Problem problem = read_problem(config, life.threads(), …);
//     life.take_sources(problem);
//     …                                     // all that may fail before anything is worth keeping
//     life.begin();
//     while (!done()) {
//       …
//       const bool stop = world.any(life.is_to_stop());
//       life.save_if_due(stop, stop, layout, add);
//       if (stop) throw RunStopped{};
//     }
//     …
//   });
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/config/options.h"
#include "hesspect/core/stop_signal.h"
#include "hesspect/core/timer.h"
#include "hesspect/io/checkpoint.h"
#include "hesspect/io/result_file.h"
#include "hesspect/run/goals.h"
#include "hesspect/run/ledger.h"
#include "hesspect/run/sources.h"
#include "problem.h"
#include "run_start.h"

namespace hesspect {

/// The run has stopped as it was asked to, with a checkpoint: unwinds to RunLife::live. It is no error.
struct RunStopped {};

/// On every rank. Borrows all that it is made from.
class RunLife {
 public:
  RunLife(const Invocation& run, const StopSignal& signal, Communicator& world);

  /// From the look at outputs and checkpoint to the end. What fails before begin() leaves no trace of the run.
  /// Collective.
  /// @param beside  files that are written beside the result; empty ones are left out
  /// @param work    all else, unless the result is there already. @return the exit code
  /// @return the exit code
  /// @throws what begin_run and `work` throw
  int live(const std::vector<std::string>& beside, const std::function<int()>& work);

  /// Threads of a rank that a resumed run has to have for the same bits; 0: no matter.
  int threads() const;
  /// Once it is known which files the model is read from: their digests are under way from here on, also where the
  /// problem is read again. Collective.
  /// @throws UsageError where an output is one of them; InputError where they are not those of the run that was stopped
  void take_sources(const Problem& problem);
  /// The run's plan: of an earlier start where it fits the ranks and no option asks for another, else a new one, of
  /// which what numbers depend on is kept. Warns where numbers will be rounded otherwise. Collective.
  /// @param kept_what  what that leaves as it is, for the warning: "finished probes are kept"
  /// @param resident   of an earlier run of the same problem and goals, which a run that begins takes over; nullptr:
  /// none
  RunLayout planned(const RunConfig& config, const Goals& goals, Problem& problem, const std::string& kept_what,
                    const Plan* resident = nullptr);
  /// Warns where a resumed run is laid out otherwise than it was.
  void tell_differences(const RunLayout& now, const std::string& kept_what) const;
  /// Something is worth keeping from here on; what an older run has left in the folder goes. Collective.
  void begin();
  bool begun() const { return begun_; }

  /// Whether this rank has had a signal, or its time is up.
  bool is_to_stop() const;
  /// Rank 0 writes the state, when its time has come or at once: no more than one part in twenty of the time goes into
  /// it. Collective.
  /// @param must  not being able to is an error: else a warning, once
  /// @param add   puts in what is finished. On rank 0
  /// @throws InputError
  void save_if_due(bool at_once, bool must, const RunLayout& layout, const std::function<void(LedgerState&)>& add);
  /// Carries out what writes to the folder. @throws InputError where it must be written: else that is a warning, once
  void try_to_write(bool must, const std::function<void()>& write);
  /// Tells of the checkpoint. @return the exit code of a run that has stopped
  int stopped() const;

  /// Rank 0, as the run's last step but for what lies beside: writes the result and removes the checkpoint.
  /// @param save  where the folder does not have what was computed: writes that there, when the result can't be
  /// @throws InputError, with what to do
  void write(const RunResult& result, const std::function<void()>& save = nullptr);

  bool first() const { return world_.rank() == 0; }
  /// Of its state rank 0 has all, the others run_id and layout.
  const RunStart& start() const { return start_; }
  CheckpointFolder& folder() { return folder_; }
  std::string folder_name() const;
  const StopSignal& signal() const { return signal_; }
  const Timer& timer() const { return timer_; }
  const std::string& start_time() const { return start_time_; }
  /// Once take_sources has been.
  SourceHashing& hashing() const { return *hashing_; }

 private:
  bool asks_for_another(const Plan& kept) const;
  void leave_no_trace();

  const Invocation& run_;
  const RunConfig& config_;
  const StopSignal& signal_;
  Communicator& world_;
  CheckpointFolder folder_;
  const Timer timer_;
  const std::string start_time_;
  std::vector<std::string> outputs_;
  RunStart start_;
  std::unique_ptr<SourceHashing> hashing_;
  bool begun_ = false;
  Timer since_written_;
  double write_every_s_ = 1;
  bool warned_ = false;  // that the last checkpoint could not be written
};

}  // namespace hesspect
