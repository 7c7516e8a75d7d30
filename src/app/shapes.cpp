#include "shapes.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <span>
#include <tuple>

#include "hesspect/comm/make_communicator.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/memory.h"
#include "hesspect/core/text.h"
#include "hesspect/tangent/program_cost.h"

namespace hesspect {
namespace {

/// Micro-batches of so many rows are tried first, and halves of them.
constexpr std::int64_t kMostRows = 8;
/// Of a product in segments of one vector: docs/tangent.md's units of one matrix product per layer.
constexpr double kUnits = 11;

bool is_shared(const RunConfig& config) {
  return config.layout.parameters == ParameterMemory::kSharded || config.layout.parameters == ParameterMemory::kHost;
}

/// A program's costs for micro-batches of so many rows, each found once.
class Costs {
 public:
  Costs(const Problem& problem, std::vector<at::Tensor> inputs)
      : program_(*problem.program, {static_cast<std::size_t>(problem.options.output_index)}),
        inputs_(std::move(inputs)),
        fixed_(problem.program->static_batch().has_value()) {
    if (!problem.program->is_left_in_file()) return;
    const Program& program = *problem.program;
    for (std::size_t i = 0; i < program.brought_count(); ++i)
      stored_bytes_.push_back(program.brought(i).numel *
                              static_cast<std::int64_t>(c10::elementSize(program.stored_type(i))));
  }

  /// Of all parameters, as they are kept.
  std::int64_t stored_bytes(const ProgramCost& cost) const {
    return stored_bytes_.empty() ? cost.total().stored_bytes
                                 : std::accumulate(stored_bytes_.begin(), stored_bytes_.end(), std::int64_t{0});
  }

  const ProgramCost& of(std::int64_t rows) {
    const auto found = costs_.find(rows);
    if (found != costs_.end()) return found->second;
    std::vector<at::Tensor> inputs;
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      std::vector<std::int64_t> sizes = inputs_[i].sizes().vec();
      if (!fixed_ && !sizes.empty()) sizes[static_cast<std::size_t>(program_.program().inputs()[i].batch_dim)] = rows;
      inputs.push_back(at::empty(sizes, inputs_[i].options().device(at::kMeta)));
    }
    try {
      return costs_.emplace(rows, program_cost(program_, inputs)).first->second;
    } catch (const InputError&) {
      // A run whose parameters are in the file has values to try, if not the parameters'.
      if (!program_.program().is_left_in_file()) throw;
      return costs_.emplace(rows, program_cost(program_, values_of(rows), CostRun::kValues)).first->second;
    }
  }

  const std::vector<PlanSegment>& segments(const ShardedWork& work) {
    const std::tuple key(work.ranks, work.micro_batch, work.micro_batches, work.tangents);
    const auto found = segments_.find(key);
    if (found != segments_.end()) return found->second;
    const ProgramCost& cost = of(work.micro_batch);
    const ShardedSettings run{work.ranks, work.micro_batches, work.tangents, stored_bytes_};
    std::vector<PlanSegment> segments;
    const std::int64_t element = program_.program().options().dtype == at::kDouble ? 8 : 4;
    for (const SegmentCost& s : segment_costs(cost, find_cuts(cost, run), stored_bytes_)) {
      const std::int64_t in_vectors = s.gathered.vector_bytes / element;
      segments.push_back({in_vectors, s.gathered.stored_bytes, s.fixed_bytes, s.tangent_bytes, s.crossing_still_bytes,
                          s.crossing_active_bytes, s.across_active_bytes, s.flops, s.gathered.numel - in_vectors});
      const auto nodes = std::span(cost.nodes).subspan(s.begin, s.end - s.begin);
      segments.back().is_reached = std::ranges::any_of(nodes, &NodeCost::active);
    }
    return segments_.emplace(key, std::move(segments)).first->second;
  }

 private:
  /// The few rows over and over.
  std::vector<at::Tensor> values_of(std::int64_t rows) const {
    if (fixed_) return inputs_;
    std::vector<at::Tensor> values;
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      const std::int64_t dim = program_.program().inputs()[i].batch_dim;
      if (inputs_[i].dim() == 0) {
        values.push_back(inputs_[i]);
        continue;
      }
      const auto whole_numbers = at::TensorOptions(at::kLong).device(inputs_[i].device());
      values.push_back(inputs_[i].index_select(dim, at::arange(rows, whole_numbers).remainder(inputs_[i].size(dim))));
    }
    return values;
  }

  TangentProgram program_;
  std::vector<at::Tensor> inputs_;  // of a few rows
  bool fixed_;
  std::vector<std::int64_t> stored_bytes_;  // of each parameter, as a checkpoint has it; none: as the program has them
  std::map<std::int64_t, ProgramCost> costs_;
  std::map<std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t>, std::vector<PlanSegment>> segments_;
};

/// What a process that has all parameters holds in a product of one vector in segments.
std::int64_t whole_bytes(const ProgramCost& cost, const Cuts& cuts) {
  std::int64_t inside = 0, crossing = 0, adjoints = 0;
  for (const SegmentCost& s : segment_costs(cost, cuts)) {
    inside = std::max(inside, s.inside_bytes(1));
    crossing += s.crossing_still_bytes + 2 * s.crossing_active_bytes;
    adjoints = std::max(adjoints, 2 * s.across_active_bytes);
  }
  return inside + crossing + adjoints;
}

}  // namespace

bool plans_by_shapes(const RunConfig& config, const Program& program) {
  if (config.plan.work == Command::kInputs) return false;
  if (is_shared(config) || config.plan.tflops > 0) return true;
  if (program.lacking().empty()) return false;
  // Parameters, a vector, its product and the gradient.
  const std::int64_t stand_ins = 4 * program.layout().size() * (program.options().dtype == at::kDouble ? 8 : 4);
  return !config.plan.measure || stand_ins > available_memory_bytes();
}

RunConfig readable_here(const RunConfig& config) {
  RunConfig here = config;
  if (config.compute.device == DeviceChoice::kCuda && cuda_device_count() == 0 &&
      (is_shared(config) || config.plan.tflops > 0))
    here.compute.device = DeviceChoice::kCpu;
  return here;
}

std::vector<std::string> set_costs_by_shapes(const RunConfig& config, const Problem& problem, PlanInputs& p) {
  const std::int64_t fewest = problem.program->fewest_rows(), fixed = problem.program->static_batch().value_or(0);
  const DataShard few = first_rows(problem, std::max({fixed, fewest, problem.options.units.rows}));
  const auto costs = std::make_shared<Costs>(problem, problem.program->prepare_inputs(few.inputs));
  std::int64_t rows = p.request.micro_batch;
  if (rows == 0) rows = std::clamp<std::int64_t>(problem.rows, 1, kMostRows);
  const std::int64_t unit = problem.options.units.rows;
  rows = fixed > 0 ? fixed : unit > 1 ? unit : std::max(rows, fewest);

  const ProgramCost& cost = costs->of(rows);
  const ShardedSettings alone{1, 1, 1, {}};
  p.cost = {};
  p.cost.micro_batch = rows;
  p.cost.product = ProductMode::kSegments;
  p.cost.transient_row_bytes = (whole_bytes(cost, find_cuts(cost, alone)) + rows - 1) / rows;
  const double flops_per_s = 1e12 * config.plan.tflops;
  if (flops_per_s > 0) p.cost.pullback_s = kUnits * cost.flops() / flops_per_s;
  const std::int64_t stored = costs->stored_bytes(cost);
  p.sharded = {stored, flops_per_s, stored != cost.total().run_bytes,
               [costs](const ShardedWork& work) { return costs->segments(work); }};
  std::vector<std::string> lines;
  if (!cost.uncounted.empty())
    lines.push_back("matrix products whose operations are not counted: " + format_names(cost.uncounted));
  return lines;
}

}  // namespace hesspect
