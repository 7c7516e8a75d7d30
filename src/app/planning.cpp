#include "planning.h"

#include <ATen/ATen.h>
#include <malloc.h>

#include <algorithm>
#include <set>
#include <type_traits>

#include "goals.h"
#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/memory.h"
#include "hesspect/core/text.h"
#include "hesspect/core/timer.h"
#include "hesspect/curvature/measure.h"
#include "plan_model.h"

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

PlanProblem plan_problem(const Problem& problem) {
  PlanProblem p;
  p.parameters = problem.program->layout().size();
  p.element_bytes = problem.program->options().dtype == at::kDouble ? 8 : 4;
  p.buffer_bytes = problem.program->buffer_bytes();
  p.rows = problem.rows;
  p.row_bytes = problem.row_bytes;
  p.unit_rows = problem.options.units.rows;
  p.static_batch = problem.program->static_batch().has_value() || p.unit_rows > 1;
  p.on_gpu = problem.device.is_cuda();
  p.process_bytes = p.on_gpu ? 0 : problem.process_bytes;
  return p;
}

/// What a process takes beside what the plan counts by itself: libraries as far as they have been read in, the model's
/// program, threads. Known only once a product has run; the trials' memory goes back first.
std::int64_t process_bytes(const PlanProblem& p, Communicator& world) {
  if (p.on_gpu) return 0;
  malloc_trim(0);
  const std::int64_t counted = p.parameters * p.element_bytes + p.buffer_bytes;
  return world.max(std::max(p.process_bytes, resident_memory_bytes() - counted));
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
  return available_memory_bytes() / std::max(1, problem.placement.ranks_on_node) + resident_memory_bytes();
}

PlanMachine plan_machine(const RunConfig& config, const Problem& problem, Communicator& world) {
  PlanMachine machine;
  machine.world = world.size();
  machine.memory_bytes = world.min(memory_for_a_rank(config, problem));
  if (problem.device.is_cuda())
    machine.host_memory_bytes =
        world.min(available_memory_bytes() / (2 * std::max(1, problem.placement.ranks_on_node)));
  const std::set<std::string> hosts(problem.placement.hosts.begin(), problem.placement.hosts.end());
  const Wire wire = assumed_wire(problem.device.is_cuda(), hosts.size() <= 1);
  machine.bandwidth = config.plan.bandwidth > 0 ? 1e9 * config.plan.bandwidth : wire.bandwidth;
  machine.latency_s = wire.latency_s;
  return machine;
}

/// What a rank could take on its device now.
std::int64_t free_for_a_rank(const Problem& problem) {
  const std::int64_t sharing = problem.device.is_cpu() ? std::max(1, problem.placement.ranks_on_node) : 1;
  return free_memory_bytes(problem.device) / sharing;
}

/// What a rank's trials may take on its device, of what the run may take and the device has.
std::int64_t room_for_trials(const Problem& problem, const PlanMachine& machine) {
  const bool on_gpu = problem.device.is_cuda();
  const std::int64_t usable = plan_model::usable_bytes(machine.memory_bytes, on_gpu);
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
BatchCost batch_cost(Problem& problem, std::int64_t micro_batch, std::int64_t memory_bytes) {
  HessianOptions options = problem.options;
  options.micro_batch = micro_batch;
  const DataShard rows = first_rows(problem, std::max(micro_batch, kRowsToMeasureOn));
  try {
    return measure_batch_cost(*problem.program, rows, options, memory_bytes);
  } catch (const MemoryError&) {
    options.micro_batch = few_rows(*problem.program, micro_batch, options.units.rows);
    return measure_batch_cost(*problem.program, rows, options, free_for_a_rank(problem));
  }
}

/// Collective. Ranks that share the first one's host measure at once, as they will run: alone it would seem faster.
PlanCost measured_cost(Problem& problem, std::int64_t micro_batch, std::int64_t memory_bytes, Communicator& world) {
  BatchCost cost;
  const std::vector<std::string>& hosts = problem.placement.hosts;
  agree(world, [&] {
    if (hosts[static_cast<std::size_t>(world.rank())] == hosts.front())
      cost = batch_cost(problem, micro_batch, memory_bytes);
  });
  problem.options.check_double_backward = false;  // has been tried
  cost = world.of_rank0(cost);
  return {cost.micro_batch,
          cost.gradient_s,
          cost.graph_s,
          cost.pullback_s,
          cost.graph_fixed_bytes,
          cost.graph_row_bytes,
          cost.transient_fixed_bytes,
          cost.transient_row_bytes,
          cost.output_row_bytes};
}

/// Costs, and what the process takes now that they are known. Collective.
void measure(Problem& problem, Planned& p, Communicator& world) {
  p.cost = measured_cost(problem, p.request.micro_batch, world.min(room_for_trials(problem, p.machine)), world);
  p.problem.process_bytes = process_bytes(p.problem, world);
}

std::string joined(const std::vector<std::string>& texts) {
  std::string text;
  for (const std::string& one : texts) text += (text.empty() ? "" : "; ") + one;
  return text;
}

/// Where no layout has room for the longest run's basis: as many rows as fit, and thick restarts, if they are enough
/// for the wanted eigenvalues and the least steps of a run.
void restart_thick(const RunConfig& config, const std::string& work, Planned& p) {
  const std::int64_t wanted = config.eigs.top + config.eigs.bottom + config.eigs.magnitude;
  if (!wants_eigenvalues(config, work) || !p.work.reorthogonalize || config.eigs.max_basis > 0) return;
  PlanRequest request = p.request;  // of the vectors' own dtype, on their device
  if (!request.basis_dtype) request.basis_dtype = plan_model::vector_dtype(p.problem);
  if (request.basis_dtype != plan_model::vector_dtype(p.problem) || request.basis_memory == BasisMemory::kHost) return;
  request.basis_memory = BasisMemory::kDevice;
  const auto plan_with = [&](std::int64_t rows) {
    PlanWork limited = p.work;
    limited.max_basis = rows;
    limited.most_steps = std::min(limited.most_steps, rows);
    return make_plan(p.problem, p.cost, limited, p.machine, request);
  };
  std::int64_t enough = std::max(p.work.steps + 1, 2 * wanted + 16), too_many = p.work.eigen_steps;
  if (enough >= too_many || !plan_with(enough).fits) return;
  while (too_many - enough > 1) {
    const std::int64_t middle = enough + (too_many - enough) / 2;
    (plan_with(middle).fits ? enough : too_many) = middle;
  }
  p.plan = plan_with(enough);
  p.work.max_basis = enough;
}

std::string would_fit(const Planned& p) {
  const auto ideas = what_would_fit(p.problem, p.cost, p.work, p.machine, p.request);
  return ideas.empty() ? "nothing tried would fit" : "would fit: " + joined(ideas);
}

}  // namespace

bool wants_eigenvalues(const RunConfig& config, const std::string& work) {
  return work == "eigs" || (work == "analyze" && config.eigs.top + config.eigs.bottom + config.eigs.magnitude > 0);
}

PlanWork plan_work(const RunConfig& config, const std::string& work, std::int64_t parameters) {
  const std::int64_t asked = config.eigs.top + config.eigs.bottom + config.eigs.magnitude;
  const std::int64_t most = std::min(most_steps(config.eigs, parameters), parameters);
  const bool eigenvalues = wants_eigenvalues(config, work), full = config.quadrature.reorthogonalize;
  const bool density = work == "analyze" || work == "density", fine = density && config.accuracy.density_w1 > 0;
  const bool trace = (work == "analyze" || work == "trace") && config.accuracy.rtol_trace > 0;
  const TraceMethod method = config.trace.trace_method;
  const bool own_trace = (work == "analyze" || work == "trace") &&
                         (method == TraceMethod::kHutchPlusPlus || method == TraceMethod::kXTrace);
  const bool deflated = work != "eigs" && full && method == TraceMethod::kDeflated;
  PlanWork w;
  w.probes = std::max<std::int64_t>(1, lanczos_runs(config, work));
  const bool told = work == "trace" && deflated && !trace;
  w.steps = density || told ? std::min(config.quadrature.steps, parameters) : 1;
  if (eigenvalues || fine || (trace && deflated)) w.eigen_steps = std::max(most, w.steps);
  w.most_steps = fine ? w.eigen_steps : 0;
  w.max_basis = eigenvalues ? config.eigs.max_basis : 0;
  w.keeps_basis = deflated;
  if (eigenvalues && config.eigs.true_residuals && full) w.other_products += std::min(asked, parameters);
  if (work == "trace") w.other_products += std::max<std::int64_t>(0, config.quadrature.probes - w.other_products);
  if (eigenvalues && (config.eigs.block > 1 || config.eigs.method == EigenMethod::kPower))
    w.other_rows += config.eigs.method == EigenMethod::kPower ? asked : most + config.eigs.block;
  if (own_trace) w.other_rows += most;
  if (deflated && trace) w.other_rows += 2;                              // the forecast's probes
  if (work != "eigs" && !own_trace) w.other_rows += 2 * kTraceTogether;  // the trace's, and their products
  // Sums, mean and error in double, what a product leaves, and a whole vector on its way to the file.
  if (trace && !config.trace.diagonal.empty()) w.other_rows += 12;
  w.adaptive = trace || fine;
  w.max_products = config.accuracy.max_hvps;
  w.reorthogonalize = full;
  return w;
}

std::int64_t expected_products(const PlanWork& work) {
  return work.other_products + work.probes * work.steps + std::max<std::int64_t>(0, work.eigen_steps - work.steps);
}

Planned plan_run(const RunConfig& config, const std::string& work, Problem& problem, const Plan* kept,
                 Communicator& world) {
  Planned p;
  p.problem = plan_problem(problem);
  p.work = plan_work(config, work, p.problem.parameters);
  p.machine = plan_machine(config, problem, world);
  p.request = plan_request(config, kept);
  measure(problem, p, world);
  p.plan = make_plan(p.problem, p.cost, p.work, p.machine, p.request);
  if (!p.plan.fits) restart_thick(config, work, p);
  if (!p.plan.fits)
    throw MemoryError(p.plan.bytes.total(), p.machine.memory_bytes,
                      "the run takes " + format_bytes(p.plan.bytes.total()) + " a rank (of it " +
                          format_bytes(p.plan.bytes.basis + p.plan.bytes.basis_host) + " for the Krylov basis), and " +
                          format_bytes(p.machine.memory_bytes) + " may be taken; " + would_fit(p));
  return p;
}

std::vector<std::string> plan_command(const RunConfig& config, Communicator& world, bool& fits) {
  Problem problem = read_problem(config, 0, Weights::kStandIns, world);
  Planned p;
  p.problem = plan_problem(problem);
  p.work = plan_work(config, to_string(config.plan.work), p.problem.parameters);
  p.machine = plan_machine(config, problem, world);
  p.request = plan_request(config);
  if (config.plan.measure)
    measure(problem, p, world);
  else
    p.problem.process_bytes = process_bytes(p.problem, world);
  if (config.plan.world > 0) {
    if (config.plan.bandwidth <= 0 && config.plan.world > world.size()) {  // more hosts, it must be assumed
      const Wire wire = assumed_wire(p.problem.on_gpu, false);
      p.machine.bandwidth = wire.bandwidth;
      p.machine.latency_s = wire.latency_s;
    }
    p.machine.world = static_cast<int>(config.plan.world);
  }
  p.plan = make_plan(p.problem, p.cost, p.work, p.machine, p.request);
  if (!p.plan.fits) restart_thick(config, to_string(config.plan.work), p);
  std::vector<std::string> lines = describe(p.plan, p.problem, p.cost, p.work, p.machine);
  fits = p.plan.fits;
  if (!fits) lines.push_back(would_fit(p));
  if (const auto names = problem.program->lacking(); !names.empty())
    lines.push_back("the model holds no data for " + format_count(static_cast<std::int64_t>(names.size())) +
                    " of its weights: " + (config.plan.measure ? "measured with made-up values; " : "") +
                    "a run needs --weights");
  return lines;
}

}  // namespace hesspect
