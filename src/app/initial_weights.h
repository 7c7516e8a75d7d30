// --initial-weights: how far training has moved the parameters.
#pragma once

#include <optional>

#include "hesspect/comm/communicator.h"
#include "hesspect/config/run_config.h"
#include "hesspect/spectrum/distance.h"
#include "problem.h"

namespace hesspect {

/// Reads the initial weights and measures the distances: on rank 0, in host memory, with room for the parameters twice;
/// or, where parameters are sharded, on each rank of its share, a stretch at a time. Rank 0 warns, in the problem's
/// warnings too, where they are the model's own. Before the parameters' file is let go of. Collective.
/// @return rank 0's; nothing elsewhere
/// @throws InputError as a run with these weights
std::optional<InitialDistance> distance_from(const RunConfig& config, Problem& problem, Communicator& world);

}  // namespace hesspect
