#include "hesspect/plan/input_plan.h"

#include <algorithm>

#include "hesspect/core/text.h"
#include "plan_lines.h"

namespace hesspect {
namespace {

using plan_lines::counted;
using plan_lines::line;
using plan_lines::row;

/// Blocks of [rows, D] in double beside the Lanczos vectors: a product, and what is taken off it.
constexpr std::int64_t kWorkBlocks = 3;
/// Freed memory that the heap keeps, of what a micro-batch takes.
constexpr std::int64_t kHolesShare = 8;
/// First derivatives that a micro-batch takes: at the rows' inputs, and where these have been moved.
constexpr double kGradients = 2;

}  // namespace

InputPlan make_input_plan(const PlanProblem& problem, const InputCost& cost, const PlanMachine& machine) {
  InputPlan plan;
  plan.world = machine.world;
  plan.rows = problem.rows_of_rank(machine.world);
  plan.memory_bytes = machine.memory_bytes;
  PlanBytes& bytes = plan.bytes;
  bytes.process = problem.process_bytes;
  bytes.parameters = problem.parameters * problem.element_bytes;
  bytes.buffers = problem.buffer_bytes;
  bytes.data = plan.rows * problem.row_bytes;
  if (cost.micro_batch > 0) {
    const std::int64_t batch = std::min(cost.micro_batch, std::max<std::int64_t>(1, plan.rows));
    plan.micro_batches = (plan.rows + batch - 1) / batch;
    const std::int64_t block = cost.micro_batch * cost.dimensions;
    bytes.basis = block * ((cost.products + 1) * problem.element_bytes + kWorkBlocks * 8);
    bytes.kept_graphs = cost.graph_bytes;
    bytes.transient = cost.transient_bytes;
    if (!problem.on_gpu) bytes.holes = (bytes.kept_graphs + bytes.transient) / kHolesShare;
    plan.run_s = static_cast<double>(plan.micro_batches) *
                 (kGradients * cost.gradient_s + static_cast<double>(cost.products) * cost.product_s);
  }
  plan.fits = bytes.total() <= usable_bytes(machine.memory_bytes, problem.on_gpu);
  return plan;
}

std::vector<std::string> describe(const InputPlan& plan, const PlanProblem& problem, const InputCost& cost) {
  std::vector<std::string> lines;
  if (!plan.fits) lines.push_back(line("does not fit", "what comes nearest:"));
  lines.push_back(line("layout", counted(plan.world, "rank") + ", each with a share of the " +
                                     counted(problem.rows, "row") + ": " + format_count(plan.rows) + " at most"));
  const bool measured = cost.micro_batch > 0;
  if (measured)
    lines.push_back(line("micro-batch", counted(cost.micro_batch, "row") + " of " + counted(cost.dimensions, "number") +
                                            " each, " + format_count(plan.micro_batches) + " of them on a rank"));
  lines.push_back(line("memory", "of the largest rank"));
  const auto add = [&](const std::string& kind, std::int64_t bytes) {
    if (bytes > 0) lines.push_back(row(kind, bytes));
  };
  add("process", plan.bytes.process);
  add("parameters", plan.bytes.parameters);
  add("buffers", plan.bytes.buffers);
  add("data", plan.bytes.data);
  add("Lanczos vectors of a micro-batch", plan.bytes.basis);
  add("its losses' graph", plan.bytes.kept_graphs);
  add("a product", plan.bytes.transient);
  add("holes in the heap", plan.bytes.holes);
  lines.push_back(row("total", plan.bytes.total()) + " of " + format_bytes(plan.memory_bytes) + ", of which " +
                  format_bytes(std::max<std::int64_t>(0, usable_bytes(plan.memory_bytes, problem.on_gpu))) +
                  " may be planned with");
  if (!measured) {
    lines.push_back(line("not measured", "activations and times: they are not in the figures above"));
    return lines;
  }
  lines.push_back(line("products", "at most " + format_count(cost.products) +
                                       " with each micro-batch (--input-steps), " +
                                       format_count(plan.micro_batches * cost.products) + " on a rank"));
  lines.push_back(line("forecast", format_duration(plan.run_s) + " at most, " + format_duration(cost.product_s) +
                                       " for a product of a micro-batch"));
  if (!plan.fits)
    lines.push_back(cost.micro_batch > 1 ? "would fit, perhaps: --micro-batch " + std::to_string(cost.micro_batch / 2) +
                                               ", or fewer --input-steps"
                                         : "would fit, perhaps: fewer --input-steps, or more memory");
  return lines;
}

}  // namespace hesspect
