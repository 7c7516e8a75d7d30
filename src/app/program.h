// The program behind `main`: from arguments to an exit code.
#pragma once

#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/config/options.h"
#include "hesspect/core/stop_signal.h"

namespace hesspect {

/// Collective over host. Help, versions and inspections go to stdout, everything else to stderr; rank 0 alone talks.
/// Rank 0's command line and environment count for all ranks.
/// @param argv  with the program's name
/// @throws whatever went wrong, on every rank where all could agree on it
int run_program(const std::vector<std::string>& argv, const Environment& environment, const StopSignal& signal,
                Communicator& host);

}  // namespace hesspect
