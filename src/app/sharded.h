// Runs whose parameters are sharded (--parameters sharded): what they can do, and what is checked where.
#pragma once

#include <vector>

#include "hesspect/config/options.h"
#include "problem.h"

namespace hesspect {

/// Whether the run's parameters are sharded.
bool is_sharded(const RunConfig& config);

/// "; --parameters sharded shares the parameters …", where a run that does not fit could do so; else "".
std::string sharing_advice(const RunConfig& config, int ranks);

/// @throws UsageError for what runs with sharded parameters can't do, and for ways to hold parameters that runs don't
///         know, with what to do instead
void require_shardable(const Invocation& run);

/// Other ways to keep the parameters that so many ranks may take where they don't all fit on every rank, the one to try
/// first in front; none where the user has said which (--parameters), or the run can't.
std::vector<ParameterMemory> ways_beside_replicated(const Invocation& run, int ranks);

/// Whether rows stand alone, which can be tried only once the ranks have the parameters: sets problem.row_check.
/// Collective.
/// @throws InputError where the loss is no sum over rows
void check_rows_of_shards(const RunConfig& config, Problem& problem, HessianOperator& op, Communicator& world);

}  // namespace hesspect
