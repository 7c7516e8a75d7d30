// `hesspect run`: the command's options are checked, then its ranks are started and looked after.
#pragma once

#include <string>
#include <vector>

namespace hesspect {

/// @param args  what follows `run`
/// @return the exit code of the ranks
/// @throws UsageError, InputError: what can be told before they start
int run_ranks(const std::vector<std::string>& args);

}  // namespace hesspect
