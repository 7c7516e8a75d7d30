// hesspect landscape: the loss along directions through the parameters.
#pragma once

#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/config/options.h"
#include "hesspect/core/stop_signal.h"

namespace hesspect {

/// Collective over world, one group of all ranks. @param argv  for the record
/// @param signal  stops it, with a checkpoint
/// @return the exit code: not converged where eigenvectors that it goes along are not
int run_landscape(const Invocation& run, const std::vector<std::string>& argv, const StopSignal& signal,
                  Communicator& world);

/// hesspect plan --for landscape. Collective over world. @return the lines to print; fits says whether the run would
std::vector<std::string> plan_landscape(const RunConfig& config, Communicator& world, bool& fits);

}  // namespace hesspect
