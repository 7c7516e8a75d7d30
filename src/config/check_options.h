// What no single option can decide or check: defaults that follow from other options, and options that don't go
// together.
#pragma once

#include <set>
#include <string>

#include "hesspect/config/options.h"

namespace hesspect {

/// Gives options that nobody gave the values that follow from others: --magnitude takes the place of --top and
/// --bottom, --method power asks for magnitudes, and without re-orthogonalisation there is neither a true residual nor
/// a deflated trace. Never throws.
/// @param given  names of the options that stand on the command line, in the environment or in the ini file
void resolve_defaults(RunConfig& config, const std::set<std::string>& given);

}  // namespace hesspect
