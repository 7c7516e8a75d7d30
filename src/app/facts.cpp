#include "facts.h"

#include <algorithm>
#include <cmath>

#include "build_info.h"
#include "hesspect/core/log.h"
#include "hesspect/core/memory.h"
#include "hesspect/core/text.h"
#include "hesspect/curvature/measure.h"
#include "hesspect/krylov/vector_math.h"
#include "process.h"
#include "rows_in_use.h"

namespace hesspect {
namespace {

/// Above these a product is not symmetric to rounding, and something is wrong with the model's operators.
constexpr double kSymmetryFloat = 1e-4, kSymmetryDouble = 1e-10;

/// Collective over world and the group.
Diagnostics diagnostics(const Problem& problem, const Group& group, Communicator& world) {
  const HessianOperator& op = *group.op;
  const HessianStats& stats = op.stats();
  Diagnostics d;
  d.precision = op.precision_effect();
  d.loss = op.loss();
  d.loss_terms = op.count();
  d.gradient_norm = std::sqrt(group.comm->sum(norm_sq(op.gradient())));
  d.gradient_s = stats.gradient_s;
  d.parameters = problem.program->layout().model_size();
  d.model_parameters = problem.model_parameters;
  d.parameters_in_use = problem.program->layout().size();
  d.rows_in_use = tables_in_use(problem.program->layout());
  d.rows = problem.rows;
  d.micro_batch = stats.micro_batch;
  d.micro_batches = stats.micro_batches;
  d.kept_graphs = stats.kept_graphs;
  d.cuda_graphs = stats.cuda_graphs;
  d.unit_rows = problem.options.units.rows;
  d.row_check = problem.row_check;
  d.widened_weights = problem.overlay.widened;
  d.peak_memory_bytes = world.max(peak_memory_bytes());
  d.peak_device_bytes = world.max(peak_device_bytes(op.options().device()));
  return d;
}

}  // namespace

ProcessInfo process_info(const Invocation& run, const std::vector<std::string>& argv, const Problem& problem,
                         const RunLayout& layout) {
  const BuildInfo build = build_info();
  const RunConfig& config = run.config;
  ProcessInfo p;
  p.command = to_string(run.command);
  p.argv = argv;
  p.config = to_ini(config);
  p.version = build.version;
  p.git_revision = build.git_revision;
  p.build_type = build.build_type;
  p.torch_version = build.torch;
  p.hdf5_version = build.hdf5;
  p.mpi_version = build.mpi;
  p.model_torch_version = problem.program->torch_version();
  p.hosts = problem.placement.hosts;
  p.seed = config.quadrature.seed;
  p.weights_format = problem.weights_format;
  p.weights_changes = problem.weights_changes;
  p.selected = problem.selected;
  p.weights_not_covered = problem.overlay.not_covered;
  p.ranks = layout.world;
  p.threads = layout.threads;
  p.dtype = to_string(config.compute.dtype);
  p.precision = to_string(config.compute.precision);
  p.device = layout.device;
  p.distribution = std::string(to_string(config.quadrature.distribution));
  p.curvature = to_string(config.curvature.curvature);
  p.loss_kind = config.loss.loss;
  p.reduction = to_string(config.loss.reduction);
  return p;
}

void set_sources(ProcessInfo& process, const Sources& sources) {
  process.model = sources.model;
  process.weights = sources.weights;
  process.data = sources.data;
}

RunFacts run_facts(const Invocation& run, const std::vector<std::string>& argv, const Problem& problem,
                   const RunLayout& layout, const Group& group, const std::string& start_time, Communicator& world) {
  RunFacts facts;
  facts.diagnostics = diagnostics(problem, group, world);
  facts.row_groups = group.op->row_groups();
  facts.process = process_info(run, argv, problem, layout);
  facts.process.start_time = start_time;
  facts.process.end_time = utc_time();
  const ParameterLayout& parameters = problem.program->layout();
  for (const ParameterEntry& entry : parameters.entries()) {
    facts.layer_names.push_back(entry.name);
    facts.layer_sizes.push_back(entry.model_numel);
  }
  facts.symmetry_bound = run.config.compute.dtype == ElementType::kF64 ? kSymmetryDouble : kSymmetryFloat;
  // Products in low precision are as unsymmetric as they are inexact, at most.
  facts.symmetry_bound = std::max(facts.symmetry_bound, facts.diagnostics.precision.error);
  facts.warnings = problem.warnings;  // which were told when the run began
  if (const std::int64_t complex = parameters.complex_count(); complex > 0) {
    facts.warnings.push_back(format_count(complex) + " complex parameters count twice, as real and imaginary parts");
    log_warning(facts.warnings.back());
  }
  return facts;
}

}  // namespace hesspect
