// What of a model and its data the command `features` takes as features.
#pragma once

#include "hesspect/comm/communicator.h"
#include "hesspect/run/goals.h"
#include "problem.h"

namespace hesspect {

/// Finds the features that the configuration names, and how often the data use them, and asks for their analysis.
/// Collective.
/// @throws InputError, UsageError for a feature that does not exist, or cannot be read
void set_features_of(const RunConfig& config, const Problem& problem, Goals& goals, Communicator& world);

}  // namespace hesspect
