// The plan of a run: the problem's sizes, a measured micro-batch and the machine, put to make_plan.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/config/options.h"
#include "plan.h"
#include "problem.h"

namespace hesspect {

/// All that the plan was made from, and the plan.
struct Planned {
  PlanProblem problem;
  PlanCost cost;
  PlanWork work;
  PlanMachine machine;
  PlanRequest request;
  Plan plan;
};

/// @param work  as of plan_work
bool wants_eigenvalues(const RunConfig& config, const std::string& work);

/// What a command asks for. @param work  "analyze", "density", "eigs" or "trace"
PlanWork plan_work(const RunConfig& config, const std::string& work, std::int64_t parameters);

/// Hessian-vector products, at most: eigenvalues may converge, and probes break down, earlier.
std::int64_t expected_products(const PlanWork& work);

/// Measures a micro-batch on the first host and plans the run for the ranks there are. Collective over world.
/// @param kept  the plan of an earlier start, whose micro-batch and basis dtype are kept; or null
/// @throws MemoryError (on every rank) with what would fit, where the run does not
Planned plan_run(const RunConfig& config, const std::string& work, Problem& problem, const Plan* kept,
                 Communicator& world);

/// hesspect plan. Collective over world. @return the lines to print; fits says whether the run would
std::vector<std::string> plan_command(const RunConfig& config, Communicator& world, bool& fits);

}  // namespace hesspect
