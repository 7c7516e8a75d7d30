// Eigenvalues, trace, density and norm of one operator, from one Lanczos run and a few random vectors, within a number
// of products.
//
// It is what a run does for a diagonal block, all in a row on one group. (What it does for the whole matrix is dealt
// out to several groups, and may stop between any two products: room `run`.)
#pragma once

#include <cstdint>
#include <functional>

#include "hesspect/core/random_probe.h"
#include "hesspect/krylov/linear_operator.h"
#include "hesspect/spectrum/analysis_figures.h"
#include "hesspect/spectrum/eigenvalues.h"

namespace hesspect {

struct AnalysisOptions {
  bool eigenvalues = true, trace = true, density = true;
  bool true_residuals = true;
  EigenOptions eigen;        // seed and max_steps are set here
  std::int64_t probes = 1;   // Lanczos runs at least, as far as max_products goes
  std::int64_t steps = 80;   // of each, at least
  double density_w1 = 0;     // as DensityGoal
  double density_error = 0;  // likewise
  TraceRule rule;            // of the trace; its floor is found here
  LanczosOptions lanczos;    // full re-orthogonalisation
  ProbeDistribution distribution = ProbeDistribution::kRademacher;
  std::uint64_t seed = 0;
  std::int64_t max_products = 200;  // those of true residuals included
};

/// Collective over op.comm().
/// @param on_product  called on every rank between products
/// @param first_eigenvector  set to that of the first eigenvalue that is listed, this rank's shard [chunk]; left
///                           undefined where none is
/// @throws as Lanczos::extend
Analysis analyse(LinearOperator& op, const AnalysisOptions& options, const std::function<void()>& on_product = {},
                 at::Tensor* first_eigenvector = nullptr);

}  // namespace hesspect
