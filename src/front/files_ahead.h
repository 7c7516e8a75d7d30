// What can be said of a run's files before it starts.
#pragma once

#include "hesspect/config/options.h"

namespace hesspect {

/// Looks whether input files are there and the output can be written, so that no ranks start for nothing. The run looks
/// again, in its own way: where a checkpoint is there, or is to be gone on from, what the output may be is left to it.
/// @throws InputError: a file that is missing, a folder that can't be written; UsageError: a result that is there
void check_files_ahead(const Invocation& run);

}  // namespace hesspect
