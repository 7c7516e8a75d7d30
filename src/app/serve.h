// `hesspect serve`: the jobs of a spool, one after the other, on all ranks.
#pragma once

#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/config/options.h"
#include "hesspect/core/stop_signal.h"

namespace hesspect {

/// Collective over host, the communicator of all ranks.
/// @param args         what follows `serve`; rank 0's on all ranks
/// @param environment  the same
/// @return the exit code: done, or stopped by a signal (75)
int serve(const std::vector<std::string>& args, const Environment& environment, const StopSignal& signal,
          Communicator& host);

}  // namespace hesspect
