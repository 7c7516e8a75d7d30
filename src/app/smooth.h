// density --from: an earlier result's probes under another kernel.
#pragma once

#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/config/options.h"

namespace hesspect {

/// Collective over host. @return the exit code
int smooth_again(const Invocation& run, const std::vector<std::string>& argv, Communicator& host);

}  // namespace hesspect
