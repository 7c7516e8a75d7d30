// `hesspect series`: all that `analyze` finds, of the checkpoints of a training run, one after the other in one
// process.
#pragma once

#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/config/options.h"
#include "hesspect/core/stop_signal.h"

namespace hesspect {

/// Collective over world, the communicator of all ranks. A checkpoint that fails is noted, and the next one taken.
/// @param argv  for the record
/// @return the exit code: done; some checkpoints failed, or not as accurate as asked; or stopped, to be gone on with
/// @throws what ends the series as a whole: its configuration, its ledger, or an error of one rank alone
int run_series(const Invocation& run, const std::vector<std::string>& argv, const StopSignal& signal,
               Communicator& world);

}  // namespace hesspect
