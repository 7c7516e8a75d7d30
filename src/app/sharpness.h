// hesspect sharpness: what finite steps of known kinds do to the loss.
#pragma once

#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/config/options.h"

namespace hesspect {

/// Collective over world, one group of all ranks. @param argv  for the record
/// @return the exit code: not converged where the eigenvectors are not
int run_sharpness(const Invocation& run, const std::vector<std::string>& argv, Communicator& world);

}  // namespace hesspect
