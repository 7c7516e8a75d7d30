// Eigenvalues by a run of their own, and what is done with pairs whoever found them.
#include <cmath>
#include <limits>

#include "context.h"
#include "grouped_products.h"
#include "hesspect/core/probe_numbers.h"
#include "hesspect/spectrum/zero_eigenvalues.h"

namespace hesspect {

EigenResult measured_and_written(Context& context, EigenResult result, const VectorSource& vectors, bool are_measured) {
  const EigenGoal& goal = *context.goals.eigen;
  // They are not stopped in between: nothing would be kept of them.
  if (vectors && goal.true_residuals && !are_measured) {
    const MatrixPrecision precision = context.op.precision();
    context.op.set_precision(MatrixPrecision::kFp32);  // of the matrix itself
    const RowGroups& groups = context.op.row_groups();
    std::vector<at::Tensor> probes;  // those of the symmetry check, of whose products groups of rows are known too
    for (std::int64_t i = 0; i < kSymmetryProbes && !groups.empty(); ++i)
      probes.push_back(context.probe(trace_probe(i)));
    GroupedProducts op(context.op, std::move(probes), context.layers);
    measure_residuals(op, vectors, result, context.plan.lock_step, [&] { context.report(StillAtWork{}); });
    add_groups(op.products(), groups.share, result);
    context.op.set_precision(precision);
  }
  EigenvaluesWithZeros all =
      with_zeros(result, {goal.top, goal.bottom, goal.magnitude}, context.goals.n, context.goals.zeros);
  if (goal.vectors_file.empty() || !vectors) return std::move(all.result);
  VectorsInfo info;
  info.quantity = "eigenvectors of the " + context.goals.matrix;
  for (const auto* list : {&all.result.top, &all.result.bottom, &all.result.magnitude})
    for (const EigenEstimate& one : *list) info.values.push_back(one.value);
  if (!info.values.empty()) context.write_vectors(goal.vectors_file, std::move(info), all.source, vectors);
  return std::move(all.result);
}

namespace {

/// Power iteration measures its pairs by the products that it takes, in their precision.
/// @param product_error  over the largest |λ|
void add_product_error(double product_error, EigenResult& result) {
  if (product_error == 0 || result.magnitude.empty()) return;
  const double error = product_error * std::abs(result.magnitude.front().value);
  for (EigenEstimate& one : result.magnitude) {
    one.residual += error;
    one.error += error;
    one.true_residual = std::numeric_limits<double>::quiet_NaN();
  }
}

}  // namespace

void perform(Context& context, const SolveEigen&) {
  VectorSource vectors;
  const auto on_step = [&] { context.between_products(); };
  EigenResult result;
  if (context.goals.solves_by(EigenSolver::kPower)) {
    PowerOptions options;
    options.count = context.goals.eigen->magnitude;
    options.rtol = context.goals.eigen->rtol;
    options.max_products = context.goals.most_steps;
    options.seed = context.goals.seed;
    result = power_iteration(context.op, options, &vectors, on_step);
    add_product_error(context.goals.eigen_error, result);
  } else {
    result = block_eigenvalues(context.op, context.eigen_options(), &vectors, on_step);
  }
  context.report(EigenSolved{measured_and_written(context, std::move(result), vectors)});
}

}  // namespace hesspect
