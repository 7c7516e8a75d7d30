// The run itself: probes, Lanczos, what is drawn from them, and the result file.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/config/options.h"
#include "stop_signal.h"

namespace hesspect {

/// analyze, density, eigs or trace. Collective over world, the communicator of all ranks.
/// @param argv  for the record
/// @return the exit code: done, finished but not converged, or stopped with a checkpoint
int run_spectrum(const Invocation& run, const std::vector<std::string>& argv, const StopSignal& signal,
                 Communicator& world);

/// density --from: an earlier result's probes under another kernel. Collective over host.
int smooth_again(const Invocation& run, const std::vector<std::string>& argv, Communicator& host);

}  // namespace hesspect
