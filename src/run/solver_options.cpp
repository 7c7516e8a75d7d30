#include "hesspect/run/solver_options.h"

#include <algorithm>

namespace hesspect {

LanczosOptions lanczos_options(const Goals& goals, const Plan& plan) {
  LanczosOptions options;
  if (!goals.reorthogonalize) options.reorthogonalisation = Reorthogonalisation::kNone;
  options.basis.storage = plan.basis_dtype == ElementType::kF64    ? at::kDouble
                          : plan.basis_dtype == ElementType::kBF16 ? at::kBFloat16
                                                                   : at::kFloat;
  options.basis.on_host = plan.basis_memory == BasisMemory::kHost;
  return options;
}

EigenOptions eigen_options(const Goals& goals, const Plan& plan) {
  return eigen_options(goals, goals.eigen.value_or(EigenGoal{}), plan);
}

EigenOptions eigen_options(const Goals& goals, const EigenGoal& goal, const Plan& plan) {
  EigenOptions options;
  options.top = goal.top;
  options.bottom = goal.bottom;
  options.magnitude = goal.magnitude;
  options.max_steps = std::max(goals.most_steps, goals.steps);
  options.max_basis = goal.max_basis > 0 ? goal.max_basis : plan.max_basis;
  options.rtol = goal.rtol;
  options.product_error = goals.eigen_error;
  options.seed = goals.seed;
  options.block = goal.block;
  return options;
}

}  // namespace hesspect
