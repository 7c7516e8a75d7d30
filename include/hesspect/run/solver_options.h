// How a group's Lanczos runs store their vectors and look for eigenvalues: as goals and plan say.
#pragma once

#include "hesspect/krylov/lanczos.h"
#include "hesspect/plan/plan.h"
#include "hesspect/run/goals.h"
#include "hesspect/spectrum/eigenvalues.h"

namespace hesspect {

LanczosOptions lanczos_options(const Goals& goals, const Plan& plan);
EigenOptions eigen_options(const Goals& goals, const Plan& plan);
/// The same for another goal: a block's.
EigenOptions eigen_options(const Goals& goals, const EigenGoal& goal, const Plan& plan);

}  // namespace hesspect
