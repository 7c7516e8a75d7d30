// What `hesspect inputs` will take: arithmetic alone, as plan.h has it for runs over the parameters.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hesspect/core/input_cost.h"
#include "hesspect/plan/plan.h"

namespace hesspect {

struct InputPlan {
  std::int64_t world = 1;
  std::int64_t rows = 0;           // of the rank that has most
  std::int64_t micro_batches = 0;  // of that rank
  PlanBytes bytes;                 // basis: the Lanczos vectors of a micro-batch's rows
  std::int64_t memory_bytes = 0;   // that a rank may take
  bool fits = false;
  double run_s = 0;  // at most; 0: not measured
};

/// The plan with the cost's micro-batch.
InputPlan make_input_plan(const PlanProblem& problem, const InputCost& cost, const PlanMachine& machine);

/// Lines of text for people.
std::vector<std::string> describe(const InputPlan& plan, const PlanProblem& problem, const InputCost& cost);

}  // namespace hesspect
