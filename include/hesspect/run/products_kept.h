#pragma once

#include <cstdint>

#include "hesspect/io/checkpoint.h"

namespace hesspect {

/// Products that a run which goes on from this checkpoint need not take again: of finished runs and blocks, of the
/// trace's samples but for those that every run begins with, and the steps of Lanczos runs under way that lie there.
/// What was taken and not kept does not count. 0 where there is no checkpoint, or none that can be read.
std::int64_t products_kept(const CheckpointFolder& folder);

}  // namespace hesspect
