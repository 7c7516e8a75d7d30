#include "planning.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <set>

#include "features.h"
#include "hesspect/comm/agree.h"
#include "hesspect/config/options.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/memory.h"
#include "hesspect/core/probe_numbers.h"
#include "hesspect/core/text.h"
#include "hesspect/core/timer.h"
#include "hesspect/curvature/measure.h"
#include "hesspect/spectrum/probe.h"
#include "process.h"
#include "rows_in_use.h"
#include "shapes.h"
#include "sharded.h"

namespace hesspect {
namespace {

constexpr std::int64_t kRowsToMeasureOn = 1024;
constexpr std::int64_t kFewRows = 4;

/// Bytes per second of a rank's messages, and seconds of one step of a message, where nothing was measured: shared
/// memory, 10 GbE, NVLink, InfiniBand.
struct Wire {
  double bandwidth, latency_s;
};
Wire assumed_wire(bool on_gpu, bool one_host) {
  if (on_gpu) return one_host ? Wire{1e11, 1e-5} : Wire{2e10, 2e-5};
  return one_host ? Wire{3e9, 5e-6} : Wire{1e9, 5e-5};
}

/// @param kept  of an earlier start: what numbers depend on stays, the rest may be chosen anew
PlanRequest plan_request(const RunConfig& config, const Plan* kept = nullptr) {
  PlanRequest request;
  request.groups = config.layout.groups;
  request.lock_step = config.layout.lock_step;
  request.micro_batch = config.data.micro_batch;
  request.basis_dtype = config.layout.basis_dtype;
  request.basis_memory = config.layout.basis_memory;
  request.graph_bytes = config.layout.graph_memory;
  request.parameters = config.layout.parameters;
  request.fetch_ahead = config.layout.fetch_ahead;
  if (kept != nullptr) {
    request.micro_batch = kept->micro_batch;
    request.basis_dtype = kept->basis_dtype;
  }
  return request;
}

/// What a rank of this host may take, this process as it is included: of the GPU, or of the host.
std::int64_t memory_for_a_rank(const RunConfig& config, const Problem& problem) {
  if (config.layout.memory > 0) return config.layout.memory;
  if (problem.device.is_cuda()) return free_memory_bytes(problem.device);
  return available_memory_bytes(problem.placement.ranks_on_node) + resident_memory_bytes();
}

/// What a rank could take on its device now.
std::int64_t free_for_a_rank(const Problem& problem) {
  return problem.device.is_cpu() ? available_memory_bytes(problem.placement.ranks_on_node)
                                 : free_memory_bytes(problem.device);
}

/// What a rank's trials may take on its device, of what the run may take and the device has.
std::int64_t room_for_trials(const Problem& problem, const PlanMachine& machine) {
  const bool on_gpu = problem.device.is_cuda();
  const std::int64_t usable = usable_bytes(machine.memory_bytes, on_gpu);
  const std::int64_t room = on_gpu ? usable : 4 * (usable - resident_memory_bytes()) / 5;
  return std::clamp<std::int64_t>(room, 0, free_for_a_rank(problem));
}

/// Rows of a micro-batch that any model takes, and few.
std::int64_t few_rows(const Program& program, std::int64_t asked, std::int64_t unit_rows) {
  if (const auto fixed = program.static_batch()) return *fixed;
  const std::int64_t few = std::max(asked > 0 ? std::min(asked, kFewRows) : kFewRows, program.fewest_rows());
  return (few + unit_rows - 1) / unit_rows * unit_rows;
}

/// Where the trial of what is asked for takes more than `memory_bytes`, a smaller one takes what the host or GPU has:
/// the plan needs costs to say what would fit.
/// @param alone  the run will have one rank
/// @param warm   what the trials may leave to it; nullptr: nothing
BatchCost batch_cost(Problem& problem, std::int64_t micro_batch, bool alone, std::int64_t memory_bytes,
                     WarmStart* warm) {
  HessianOptions options = problem.options;
  options.micro_batch = micro_batch;
  // A micro-batch reaches no further than a group of rows, but where the program has it fixed.
  const std::int64_t groups = problem.program->static_batch() ? 1 : std::max<std::int64_t>(1, options.row_groups);
  const std::int64_t in_group = std::max((problem.rows + groups - 1) / groups, problem.program->fewest_rows());
  const std::int64_t most =
      groups > 1 && micro_batch == 0 ? std::min(in_group, kRowsToMeasureOn) : std::max(micro_batch, kRowsToMeasureOn);
  const DataShard rows = first_rows(problem, most);
  options.whole_data = alone && options.row_groups <= 0 && rows.rows.size() == problem.rows;
  try {
    return measure_batch_cost(*problem.program, rows, options, memory_bytes, warm);
  } catch (const MemoryError&) {
    options.micro_batch = few_rows(*problem.program, micro_batch, options.units.rows);
    return measure_batch_cost(*problem.program, rows, options, free_for_a_rank(problem));
  }
}

/// Collective. Ranks that share the first one's host measure at once, as they will run: alone it would seem faster.
BatchCost measured_cost(Problem& problem, std::int64_t micro_batch, bool alone, std::int64_t memory_bytes,
                        WarmStart* warm, Communicator& world) {
  BatchCost cost;
  const std::vector<std::string>& hosts = problem.placement.hosts;
  agree(world, [&] {
    if (hosts[static_cast<std::size_t>(world.rank())] == hosts.front())
      cost = batch_cost(problem, micro_batch, alone, memory_bytes, warm);
  });
  problem.options.check_double_backward = false;  // has been tried
  cost = world.of_rank0(cost);
  problem.options.product = cost.product;
  return cost;
}

/// Costs, and what the process takes now that they are known. Collective.
void measure(Problem& problem, PlanInputs& p, bool alone, WarmStart* warm, Communicator& world) {
  problem.options.warm = nullptr;  // of trials before
  p.cost =
      measured_cost(problem, p.request.micro_batch, alone, world.min(room_for_trials(problem, p.machine)), warm, world);
  if (warm != nullptr) {
    problem.options.warm = std::move(warm->products);
    warm->vector = at::Tensor();  // the trials had a copy
  }
  p.problem.process_bytes = process_bytes(p.problem, problem.options.warm ? warm->bytes : 0, world);
}

/// Whether a is to be preferred: it fits, and is faster.
bool better(const Plan& a, const Plan& b) { return a.fits && (!b.fits || a.run_s < b.run_s); }

/// The plan by costs as measured. Where the choice is free and it does not keep all micro-batches, what is made again
/// takes the memory of a whole micro-batch: in segments larger ones fit, and these are measured too. Collective.
/// @param is_free, alone  whether the choice is, and whether the run will have one rank
Plan best_plan(Problem& problem, PlanInputs& p, bool is_free, bool alone, Communicator& world) {
  Plan plan = make_plan(p);
  if (!is_free || p.cost.product != ProductMode::kKept || plan.kept_graphs == plan.micro_batches) return plan;
  PlanInputs in_segments = p;
  problem.options.product = ProductMode::kSegments;
  measure(problem, in_segments, alone, nullptr, world);
  const Plan other = make_plan(in_segments);
  const bool is_better = better(other, plan);
  if (is_better) p = in_segments;
  problem.options.product = p.cost.product;
  return is_better ? other : plan;
}

std::string joined(const std::vector<std::string>& texts) {
  std::string text;
  for (const std::string& one : texts) text += (text.empty() ? "" : "; ") + one;
  return text;
}

/// The demand of the same command with other options, where they go together.
ChangedDemand changed_demand(const RunConfig& config, const Goals& goals) {
  return [&](const DemandChange& change) -> std::optional<Demand> {
    Invocation run;
    run.command = goals.command;
    run.config = config;
    if (change.steps) run.config.quadrature.steps = *change.steps;
    if (change.max_steps) run.config.eigs.max_steps = *change.max_steps;
    if (change.max_basis) run.config.eigs.max_basis = *change.max_basis;
    run.config.quadrature.reorthogonalize = run.config.quadrature.reorthogonalize && change.reorthogonalize;
    // Of the command `plan` these are not the work's own.
    if (run.config.output.output.empty()) run.config.output.output = "any";
    run.config.plan.world = 0;
    try {
      check_whole(run);
      Goals changed = goals_of(goals.command, run.config, goals.n);
      changed.blocks = goals.blocks;
      return demand_of(changed);
    } catch (const UsageError&) {
      return std::nullopt;
    }
  };
}

std::string would_fit(const RunConfig& config, const Goals& goals, const PlanInputs& p) {
  const auto ideas = what_would_fit(p, changed_demand(config, goals));
  return ideas.empty() ? "nothing tried would fit" : "would fit: " + joined(ideas);
}

/// Of a plan by shapes for GPUs, which this host need not have: what a host beside them is assumed to give each.
void set_machine_elsewhere(const RunConfig& config, const Problem& problem, PlanInputs& p) {
  constexpr std::int64_t kHostMemory = std::int64_t{200} << 30;
  if (config.compute.device != DeviceChoice::kCuda || problem.device.is_cuda()) return;
  p.problem.on_gpu = p.machine.overlaps = true;
  p.problem.process_bytes = 0;
  p.machine.host_memory_bytes = kHostMemory;
  const Wire wire = assumed_wire(/*on_gpu=*/true, /*one_host=*/true);
  if (config.plan.bandwidth <= 0) p.machine.bandwidth = wire.bandwidth;
  if (config.plan.latency_us <= 0) p.machine.latency_s = wire.latency_s;
}

/// The program's costs by shapes alone, and what the process takes. Collective. @return remarks on what was counted
std::vector<std::string> count_by_shapes(const RunConfig& config, const Problem& problem, PlanInputs& p,
                                         Communicator& world) {
  // What has no memory is not to be counted as part of the process's.
  const bool is_held = !problem.program->flat_parameters().is_meta();
  const std::int64_t parameters = p.problem.parameters * p.problem.element_bytes;
  p.problem.process_bytes = process_bytes(p.problem, is_held ? 0 : -parameters, world);
  set_machine_elsewhere(config, problem, p);
  return agreed(world, [&] { return set_costs_by_shapes(config, problem, p); });
}

/// The first vector that a run multiplies, which checks that products are symmetric.
at::Tensor first_vector(const Problem& problem, const Goals& goals, Communicator& world) {
  const ParameterLayout& layout = problem.program->layout();
  const Shard shard = Shard::of(layout.size(), 1, 0, layout.numbers());
  const auto options = at::TensorOptions().dtype(problem.program->options().dtype).device(problem.device);
  return probe_vector(world, shard, options, goals.distribution, goals.seed,
                      static_cast<std::uint64_t>(trace_probe(0)));
}

}  // namespace

PlanProblem plan_problem(const Problem& problem) {
  PlanProblem p;
  p.parameters = problem.program->layout().size();
  p.element_bytes = problem.program->options().dtype == at::kDouble ? 8 : 4;
  p.buffer_bytes = problem.program->buffer_bytes();
  p.rows = problem.rows;
  p.row_bytes = problem.row_bytes;
  p.unit_rows = problem.options.units.rows;
  p.precision = problem.options.precision;
  p.static_batch = problem.program->static_batch().has_value() || p.unit_rows > 1;
  p.on_gpu = problem.device.is_cuda();
  p.process_bytes = p.on_gpu ? 0 : problem.process_bytes;
  return p;
}

std::int64_t process_bytes(const PlanProblem& p, std::int64_t left_bytes, Communicator& world) {
  if (p.on_gpu) return 0;
  give_back_unused_memory();
  const std::int64_t counted = p.parameters * p.element_bytes + p.buffer_bytes + left_bytes;
  return world.max(std::max(p.process_bytes, resident_memory_bytes() - counted));
}

PlanMachine plan_machine(const RunConfig& config, const Problem& problem, Communicator& world) {
  PlanMachine machine;
  machine.world = world.size();
  machine.memory_bytes = world.min(memory_for_a_rank(config, problem));
  if (problem.device.is_cuda())
    machine.host_memory_bytes = world.min(available_memory_bytes(problem.placement.ranks_on_node) / 2);
  const std::set<std::string> hosts(problem.placement.hosts.begin(), problem.placement.hosts.end());
  const Wire wire = assumed_wire(problem.device.is_cuda(), hosts.size() <= 1);
  machine.bandwidth = config.plan.bandwidth > 0 ? 1e9 * config.plan.bandwidth : wire.bandwidth;
  machine.latency_s = config.plan.latency_us > 0 ? 1e-6 * config.plan.latency_us : wire.latency_s;
  machine.overlaps = problem.device.is_cuda() || hosts.size() > 1;  // on one host the cores themselves copy
  return machine;
}

Goals goals_with_blocks(Command command, const RunConfig& config, Problem& problem, Communicator& world) {
  const ParameterLayout& parameters = problem.program->layout();
  Goals goals = goals_of(command, config, parameters.size());
  goals.zeros = parameters.model_size() - parameters.size();
  agree(world, [&] {
    if (config.parts.wants_blocks())
      set_blocks(goals, blocks_of(config.parts, parameters), parameters, config.parts.block_hvps);
  });
  if (command == Command::kFeatures) set_features_of(config, problem, goals, world);
  return goals;
}

Plan plan_run(const RunConfig& config, const Goals& goals, Problem& problem, const Plan* kept, Communicator& world) {
  PlanInputs p;
  p.problem = plan_problem(problem);
  p.demand = demand_of(goals);
  p.machine = plan_machine(config, problem, world);
  p.request = plan_request(config, kept);
  if (kept != nullptr && kept->parameters == ParameterMemory::kReplicated) problem.options.product = kept->product;
  const bool is_free = problem.options.product == ProductMode::kAuto;
  Plan plan;
  if (is_sharded(config)) {  // what no rank could try alone
    count_by_shapes(config, problem, p, world);
    plan = make_plan(p);
    plan.product = ProductMode::kSegments;
  } else {
    const PhaseTimer timer(problem.options.phases, Phase::kStart, "trials");
    const bool alone = world.size() == 1;
    WarmStart warm;
    if (alone) warm.vector = first_vector(problem, goals, world);
    measure(problem, p, alone, alone ? &warm : nullptr, world);
    plan = best_plan(problem, p, is_free, alone, world);
    if (plan.product != ProductMode::kKept || plan.micro_batches != 1 || plan.kept_graphs != 1)
      problem.options.warm = nullptr;
  }
  if (!plan.fits)
    throw MemoryError(
        plan.bytes.total(), p.machine.memory_bytes,
        "the run takes " + format_bytes(plan.bytes.total()) + " a rank (of it " + format_bytes(plan.bytes.basis) +
            " for the Krylov basis" +
            (plan.bytes.basis_host > 0 ? ", and " + format_bytes(plan.bytes.basis_host) + " of the host for it" : "") +
            "), and " + format_bytes(p.machine.memory_bytes) + " may be taken, of which " +
            format_bytes(std::max<std::int64_t>(0, usable_bytes(p.machine.memory_bytes, p.problem.on_gpu))) +
            " may be planned with; " + would_fit(config, goals, p) + sharing_advice(config, world.size()));
  return plan;
}

std::vector<std::string> plan_command(const RunConfig& config, Communicator& world, bool& fits) {
  Problem problem = read_problem(readable_here(config), 0, Weights::kStandIns, nullptr, world);
  problem.options.row_groups = config.accuracy.data_error;
  const Goals goals = goals_with_blocks(config.plan.work, config, problem, world);
  PlanInputs p;
  p.problem = plan_problem(problem);
  p.demand = demand_of(goals);
  p.machine = plan_machine(config, problem, world);
  p.request = plan_request(config);
  const bool by_shapes = plans_by_shapes(config, *problem.program);
  const bool is_free = problem.options.product == ProductMode::kAuto && !by_shapes;
  std::vector<std::string> remarks;
  if (by_shapes) {
    remarks = count_by_shapes(config, problem, p, world);
  } else if (config.plan.measure)
    measure(problem, p, /*alone=*/false, nullptr, world);
  else
    p.problem.process_bytes = process_bytes(p.problem, 0, world);
  if (config.plan.world > 0) {
    if (config.plan.world > world.size()) {  // more hosts, it must be assumed
      p.machine.overlaps = true;
      const Wire wire = assumed_wire(p.problem.on_gpu, false);
      if (config.plan.bandwidth <= 0) p.machine.bandwidth = wire.bandwidth;
      if (config.plan.latency_us <= 0) p.machine.latency_s = wire.latency_s;
    }
    p.machine.world = static_cast<int>(config.plan.world);
  }
  const Plan plan = best_plan(problem, p, is_free && config.plan.measure, /*alone=*/false, world);
  std::vector<std::string> lines = describe(plan, p);
  if (by_shapes) {
    lines.push_back("by shapes alone, of one run without values: nothing was tried; parameters on a rank");
    for (std::string& text : describe_ways(p)) lines.push_back(std::move(text));
    for (std::string& text : remarks) lines.push_back(std::move(text));
  }
  const ParameterLayout& layout = problem.program->layout();
  if (goals.zeros > 0)
    lines.push_back("of " + format_count(layout.model_size()) + " parameters " + format_count(layout.size()) +
                    " are in use by these data, and counted: " + joined(tables_in_use(layout)));
  fits = plan.fits;
  if (!fits) lines.push_back(would_fit(config, goals, p));
  if (const auto names = problem.program->lacking(); !names.empty())
    lines.push_back("the model holds no data for " + format_count(static_cast<std::int64_t>(names.size())) +
                    " of its weights: " + (config.plan.measure && !by_shapes ? "measured with made-up values; " : "") +
                    "a run needs --weights");
  return lines;
}

}  // namespace hesspect
