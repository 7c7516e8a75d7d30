// A group's analysis of one diagonal block, from its first product to its last: what a stop interrupts is made again.
#include <algorithm>

#include "context.h"
#include "hesspect/core/text.h"
#include "hesspect/curvature/part_operator.h"
#include "hesspect/spectrum/analysis.h"

namespace hesspect {
namespace {

/// Of the run that the trace is deflated by, where nothing else asks for steps.
constexpr std::int64_t kStepsOfTrace = 40;

/// Of a block's own probes: its vectors have nothing to do with the whole's, nor with another block's, whichever blocks
/// there are. FNV-1a.
std::uint64_t seed_of(std::uint64_t seed, const std::string& name) {
  std::uint64_t hash = 14695981039346656037u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  return seed ^ hash;
}

AnalysisOptions options_for(const Context& context, const Part& part) {
  const Goals& goals = context.goals;
  AnalysisOptions options;
  options.eigenvalues = goals.eigen.has_value();
  options.trace = goals.trace.has_value();
  options.density = goals.density.has_value();
  // They are of the matrix itself: products in low precision measure none.
  options.true_residuals =
      goals.eigen && goals.eigen->true_residuals && context.op.precision() == MatrixPrecision::kFp32;
  options.eigen = context.eigen_options();
  // The plan's basis has room for so many rows of the whole's length.
  const std::int64_t rows = options.eigen.max_basis;
  const std::int64_t wanted = options.eigen.top + options.eigen.bottom + options.eigen.magnitude;
  if (rows > 0) options.eigen.max_basis = std::max(rows * goals.n / part.size(), 2 * wanted + 8);
  options.probes = goals.density ? std::max<std::int64_t>(1, goals.runs) : 1;
  options.steps = goals.steps > 0 ? goals.steps : kStepsOfTrace;
  options.density_w1 = goals.density ? goals.density->w1 : 0;
  options.density_error = goals.density_error;
  if (goals.trace) options.rule = goals.trace->rule;
  options.rule.confidence = goals.confidence;
  options.lanczos = context.lanczos_options();
  options.distribution = goals.distribution;
  options.seed = seed_of(goals.seed, part.name);
  options.max_products = goals.blocks->max_products;
  return options;
}

}  // namespace

void perform(Context& context, const AnalyseBlock& task) {
  const Part& part = context.goals.blocks->parts.at(static_cast<std::size_t>(task.part));
  context.deflation.reset();  // its vectors make room
  PartOperator op(context.op, part);
  Analysis analysis = analyse(op, options_for(context, part), [&] { context.between_products(); });
  context.say("block " + quote(part.name) + ": " + format_count(part.size()) + " parameters, " +
              format_count(analysis.products) + " products in " + format_duration(op.product_s()));
  context.report(BlockAnalysed{{part.name, std::move(analysis), op.product_s()}});
}

}  // namespace hesspect
