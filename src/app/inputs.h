// hesspect inputs: how sharp each row's loss is in the row's own inputs.
#pragma once

#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/config/options.h"
#include "hesspect/core/stop_signal.h"

namespace hesspect {

/// Collective over world: each rank takes a share of the rows. @return the exit code
int run_inputs(const Invocation& run, const std::vector<std::string>& argv, const StopSignal& signal,
               Communicator& world);

/// hesspect plan --for inputs. Collective over world. @return the lines to print; fits says whether the run would
std::vector<std::string> plan_inputs(const RunConfig& config, Communicator& world, bool& fits);

}  // namespace hesspect
