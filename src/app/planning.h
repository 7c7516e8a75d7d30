// The plan of a run: the problem's sizes, a measured micro-batch, the goals' demand and the machine, put to make_plan.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/plan/plan.h"
#include "hesspect/run/goals.h"
#include "problem.h"

namespace hesspect {

PlanProblem plan_problem(const Problem& problem);
/// Collective.
PlanMachine plan_machine(const RunConfig& config, const Problem& problem, Communicator& world);
/// What a process takes beside what the plan counts by itself: libraries as far as they have been read in, the model's
/// program, threads. Known only once a product has run; the trials' memory goes back first. Collective.
/// @param left_bytes  of what is held now and counted elsewhere
std::int64_t process_bytes(const PlanProblem& p, std::int64_t left_bytes, Communicator& world);

/// What a command asks of a run, blocks and features included. Collective.
Goals goals_with_blocks(Command command, const RunConfig& config, Problem& problem, Communicator& world);

/// Measures a micro-batch on the first host and plans the run for the ranks there are. Collective over world.
/// @param kept  the plan of an earlier start, whose micro-batch and basis dtype are kept; or null
/// @throws MemoryError (on every rank) with what would fit, where the run does not
Plan plan_run(const RunConfig& config, const Goals& goals, Problem& problem, const Plan* kept, Communicator& world);

/// hesspect plan. Collective over world. @return the lines to print; fits says whether the run would
std::vector<std::string> plan_command(const RunConfig& config, Communicator& world, bool& fits);

}  // namespace hesspect
