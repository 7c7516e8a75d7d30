// hesspect inputs: how sharp each row's loss is in the row's own inputs.
#pragma once

#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/config/options.h"

namespace hesspect {

/// Collective over world: each rank takes a share of the rows. @return the exit code
int run_inputs(const Invocation& run, const std::vector<std::string>& argv, Communicator& world);

}  // namespace hesspect
