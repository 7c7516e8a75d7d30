// hesspect landscape: the loss along directions through the parameters.
#pragma once

#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/config/options.h"

namespace hesspect {

/// Collective over world, one group of all ranks. @param argv  for the record
/// @return the exit code: not converged where eigenvectors that it goes along are not
int run_landscape(const Invocation& run, const std::vector<std::string>& argv, Communicator& world);

}  // namespace hesspect
