// One run within a process that goes on after it, however the run ends.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"

namespace hesspect {

struct RunEnd {
  int exit_code = 0;
  std::string line;                          // the error; empty where there is none
  std::vector<std::int64_t> resident_bytes;  // of each rank's process at the run's end
};

/// Carries a run out on all ranks, each run over communicators of its own. Where it fails, on all ranks or on one
/// alone, it ends on all of them, and `host` is as good as before. Only where a rank does not come out of the run for
/// ten minutes after another has failed, the job is ended (MPI_Abort), for nothing else can be done. Collective.
/// @param host  of all ranks
/// @param run   as run_spectrum: over the communicator that it is given. @return the exit code
/// @return the same on all ranks: what the run's lowest rank that failed by itself says
RunEnd run_contained(Communicator& host, const std::function<int(Communicator& world)>& run);

}  // namespace hesspect
