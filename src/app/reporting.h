// `hesspect report` and `hesspect compare`: what earlier results say.
#pragma once

#include <string>

#include "hesspect/comm/communicator.h"
#include "hesspect/config/options.h"

namespace hesspect {

/// Collective over host. @return what is to be printed: nothing where it went into --output
/// @throws UsageError, InputError: results that can't be read or compared, an output that can't be written
std::string report_command(const Invocation& run, Communicator& host);

}  // namespace hesspect
