// The commands that compute: analyze, density, eigs and trace, from the configuration to the result file.
#pragma once

#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/config/options.h"
#include "hesspect/core/stop_signal.h"

namespace hesspect {

/// Collective over world, the communicator of all ranks.
/// @param argv  for the record
/// @return the exit code: done, finished but not converged, or stopped with a checkpoint
int run_spectrum(const Invocation& run, const std::vector<std::string>& argv, const StopSignal& signal,
                 Communicator& world);

}  // namespace hesspect
