// A run's work once it has been planned: rank 0 deals tasks from its ledger, groups carry them out and report.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "hesspect/comm/failure.h"
#include "hesspect/core/phases.h"
#include "hesspect/core/stop_signal.h"
#include "hesspect/core/timer.h"
#include "hesspect/io/checkpoint.h"
#include "hesspect/run/goals.h"
#include "hesspect/run/group.h"
#include "hesspect/run/ledger.h"
#include "hesspect/run/sources.h"

namespace hesspect {

/// When a group stops or writes a checkpoint by itself.
struct WorkClock {
  double checkpoint_every_s = 0;  // 0: only when stopped
  double stop_after_s = 0;        // of since_start; 0: never
  Timer since_start;
};

/// What the work needs that every rank has.
struct WorkContext {
  const Goals& goals;
  const Plan& plan;
  Group& group;
  CheckpointFolder& folder;
  const ParameterParts& parameters;
  const StopSignal& signal;
  WorkClock clock;
  SourceHashing& hashing;  // under way
  std::string run_id;
  Phases* phases = nullptr;  // the rank's clock
  /// Of group 0: vectors near the wanted eigenvectors, in their order, [chunk] each, which the search begins with
  /// beside probe 0's run (spectrum/augmented_eigenvalues.h); none: the run alone goes on to the eigenvalues.
  std::vector<at::Tensor> start_vectors = {};
};

/// How the work ended.
struct WorkDone {
  std::unique_ptr<Ledger> ledger;  // on rank 0
  bool stopped = false;            // with a checkpoint, and something is not finished
  bool is_saved = false;           // rank 0: the folder has the ledger's last state; a run that was short has none
};

/// Works until nothing is left to do, or the run stops: then what is under way is in a checkpoint. Collective over
/// world.
/// @param state  of rank 0's ledger at the start
/// @throws what a group failed with, on every rank; InputError where the checkpoint of a stopped run cannot be written.
///         An error that met one rank alone is thrown there alone, and has to end the job.
WorkDone work(const WorkContext& run, LedgerState state, Communicator& world);

}  // namespace hesspect
