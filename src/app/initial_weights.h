// --initial-weights: how far training has moved the parameters.
#pragma once

#include "hesspect/config/run_config.h"
#include "hesspect/spectrum/distance.h"
#include "problem.h"

namespace hesspect {

/// Reads the initial weights, all of them, and measures the distances. On one rank, in host memory: takes room for the
/// parameters twice. Warns, in the problem's warnings too, where they are the model's own.
/// @throws InputError as a run with these weights
InitialDistance distance_from(const RunConfig& config, Problem& problem);

}  // namespace hesspect
