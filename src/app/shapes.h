// Plans of models by their shapes alone: what can be said of a model that this machine could not hold.
#pragma once

#include "hesspect/config/run_config.h"
#include "hesspect/plan/plan.h"
#include "problem.h"

namespace hesspect {

/// Whether `plan` goes by shapes: where it is asked for what only shapes tell (--parameters sharded or host, --flops),
/// and of a program without weights that can't be tried, for it is not to be, or its stand-ins would not fit here.
bool plans_by_shapes(const RunConfig& config, const Program& program);

/// The configuration that this machine can read the problem with: a plan by shapes for GPUs needs none.
RunConfig readable_here(const RunConfig& config);

/// Sets the costs of p by one run over shapes, in which p.problem and p.request are known already.
/// @return lines for the plan's reader: ops that could not be counted
/// @throws InputError naming node and op, where shapes are not known without values
std::vector<std::string> set_costs_by_shapes(const RunConfig& config, const Problem& problem, PlanInputs& p);

}  // namespace hesspect
