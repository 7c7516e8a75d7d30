#include "report.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "build_info.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"
#include "hesspect/core/text.h"
#include "hesspect/curvature/measure.h"
#include "hesspect/krylov/vector_math.h"
#include "hesspect/spectrum/density.h"
#include "hesspect/spectrum/trace.h"
#include "summary.h"

namespace hesspect {
namespace {

/// Above these a product is not symmetric to rounding, and something is wrong with the model's operators.
constexpr double kSymmetryFloat = 1e-4, kSymmetryDouble = 1e-10;

ProcessInfo process_info(const RunRecord& record, const RunState& state) {
  const BuildInfo build = build_info();
  const RunConfig& config = record.run.config;
  ProcessInfo p;
  p.run_id = state.run_id;
  p.command = to_string(record.run.command);
  p.argv = record.argv;
  p.config = to_ini(config);
  p.version = build.version;
  p.git_revision = build.git_revision;
  p.build_type = build.build_type;
  p.torch_version = build.torch;
  p.hdf5_version = build.hdf5;
  p.mpi_version = build.mpi;
  p.model_torch_version = record.problem.program->torch_version();
  p.hosts = record.problem.placement.hosts;
  p.seed = config.quadrature.seed;
  p.model = state.model;
  p.weights = state.weights;
  p.data = state.data;
  p.weights_format = record.problem.weights_format;
  p.weights_changes = record.problem.weights_changes;
  p.weights_not_covered = record.problem.overlay.not_covered;
  p.ranks = record.layout.world;
  p.threads = record.layout.threads;
  p.dtype = to_string(config.compute.dtype);
  p.device = record.layout.device;
  p.distribution = std::string(to_string(config.quadrature.distribution));
  p.curvature = to_string(config.curvature.curvature);
  p.loss_kind = config.loss.loss;
  p.reduction = to_string(config.loss.reduction);
  p.start_time = record.start_time;
  p.end_time = utc_time();
  return p;
}

Diagnostics diagnostics(const RunRecord& record, const RunState& state, const Measured& measured) {
  const HessianStats& stats = measured.stats;
  const Plan& plan = record.layout.plan;
  Diagnostics d;
  d.symmetry_error = state.symmetry_error;
  d.orthogonality_loss = Diagnostics::kNotMeasured;
  for (const FinishedProbe& one : state.finished)
    if (const double loss = one.quadrature.orthogonality_loss; std::isfinite(loss))
      d.orthogonality_loss = std::isnan(d.orthogonality_loss) ? loss : std::max(d.orthogonality_loss, loss);
  d.products = state.products;
  d.product_s = state.product_s;
  d.communication_s = state.communication_s;
  if (state.products > 0 && stats.gradient_s > 0)
    d.cost_in_gradients = state.product_s / static_cast<double>(state.products) / stats.gradient_s;
  else
    d.cost_in_gradients = Diagnostics::kNotMeasured;
  d.elapsed_s = state.elapsed_s;
  d.loss = measured.loss;
  d.loss_terms = measured.loss_terms;
  d.gradient_norm = measured.gradient_norm;
  d.parameters = record.problem.program->layout().size();
  d.rows = record.problem.rows;
  d.micro_batch = stats.micro_batch;
  d.unit_rows = record.problem.options.units.rows;
  d.row_check = record.problem.row_check;
  d.widened_weights = record.problem.overlay.widened;
  d.peak_memory_bytes = measured.peak_memory_bytes;
  d.peak_device_bytes = measured.peak_device_bytes;
  d.groups = plan.groups;
  d.data_ranks = plan.data_ranks;
  d.lock_step = plan.lock_step;
  d.basis_dtype = to_string(plan.basis_dtype);
  d.basis_memory = to_string(plan.basis_memory);
  d.basis_bytes = std::max(plan.bytes.basis, plan.bytes.basis_host);
  d.micro_batches = stats.micro_batches;
  d.kept_graphs = stats.kept_graphs;
  d.messages_per_step = plan.messages_per_step;
  d.message_bytes_per_step = plan.message_bytes_per_step;
  d.starts = state.starts;
  d.forecast_memory_bytes = plan.bytes.total();
  if (plan.run_s > 0) d.forecast_s = plan.run_s;
  if (plan.product_s > 0) d.forecast_product_s = plan.product_s;
  d.gradient_s = stats.gradient_s;
  d.product_share = record.product_s / (plan.groups * record.elapsed_s);
  return d;
}

void say(RunResult& r, const std::string& text) {
  r.warnings.push_back(text);
  log_warning(text);
}

void draw_density(RunResult& r, double sigma_asked, std::int64_t n) {
  std::vector<double> widths{0};  // chosen
  if (sigma_asked > 0) widths.insert(widths.begin(), sigma_asked);
  for (const double sigma : widths) {
    DensityOptions options;
    options.sigma = sigma;
    options.n = n;
    try {
      r.density = density(r.quadrature, options);
      return;
    } catch (const UsageError& error) {  // known only now: the run is still worth keeping
      say(r, std::string(error.what()) + (sigma > 0 ? "; the density has a chosen width" : "; there is no density"));
    }
  }
}

/// Of a number that is to be at most so much of another.
std::string share(double part, double whole) { return number(100 * part / std::abs(whole)) + " %"; }

/// @param floor  what its accuracy was relative to at least
void warn_of_trace(RunResult& r, const Goals& goals, double floor) {
  const TraceEstimate& trace = *r.trace;
  const std::string asked = number(100 * goals.rule.rtol) + " %";
  if (std::abs(trace.value) < floor && goals.rule.rtol > 0) {
    const std::string why =
        "positive and negative eigenvalues cancel to a trace of less than 1 % of their magnitudes' "
        "sum: its half width ";
    if (!trace.converged)
      say(r, why + number(trace.half_width) + " is not within " + asked + " of that 1 % (" +
                 number(goals.rule.rtol * floor) + "): raise --max-hvps or --rtol-trace");
    else if (trace.half_width > goals.rule.rtol * std::abs(trace.value))
      say(r, why + number(trace.half_width) + " is within " + asked + " of that 1 % (" +
                 number(goals.rule.rtol * floor) + "), not of the trace");
    return;
  }
  if (!trace.converged)
    say(r, "the trace is known to " + share(trace.half_width, trace.value) + ", not to the " + asked +
               " asked for: raise " + (goals.own_trace_method() ? "--max-steps, " : "") + "--max-hvps or --rtol-trace");
}

void warn(RunResult& r, const Goals& goals, double floor, ElementType dtype) {
  const auto& d = r.diagnostics;
  const double bound = dtype == ElementType::kF64 ? kSymmetryDouble : kSymmetryFloat;
  if (!(d.symmetry_error <= bound))
    say(r,
        "products are not symmetric: relative error " + number(d.symmetry_error) + ", expected below " + number(bound));
  if (!d.widened_weights.empty())
    say(r, format_count(static_cast<std::int64_t>(d.widened_weights.size())) +
               " weights stored as bfloat16 or float16 were widened: " + format_names(d.widened_weights, 3));
  if (const auto& names = r.process.weights_not_covered; !names.empty())
    say(r, format_count(static_cast<std::int64_t>(names.size())) +
               " weights are those in the model, for no --weights holds them: " + format_names(names, 3));
  if (r.eigenvalues && !r.eigenvalues->converged)
    say(r, "not all eigenvalues converged in " + std::to_string(r.eigenvalues->steps) +
               " products: raise --max-steps, --max-hvps or --rtol-eigs");
  if (r.trace) warn_of_trace(r, goals, floor);
  if (r.cumulative && !r.cumulative->converged)
    say(r, "the density's Wasserstein-1 bound is " +
               share(r.cumulative->w1, r.cumulative->range_hi - r.cumulative->range_lo) +
               " of the spectrum's width, not the " + number(100 * goals.w1) + " % asked for: raise --max-steps, " +
               "--probes, --max-hvps or --density-w1");
}

std::vector<LayerEstimate> layers_of(const Problem& problem, const Goals& goals, const RunState& state,
                                     std::span<const DeflatedSample> samples) {
  std::vector<std::string> names;
  std::vector<std::int64_t> sizes;
  for (const ParameterEntry& entry : problem.program->layout().entries()) {
    names.push_back(entry.name);
    sizes.push_back(entry.numel);
  }
  const bool deflated = goals.trace == TraceMethod::kDeflated && state.deflation;
  return layer_estimates(names, sizes, deflated ? state.deflation->layers : std::vector<double>(), samples);
}

/// Products by what they were for. Those that no answer uses are surplus: of other groups when a prefix was enough, and
/// of earlier starts where they were lost.
ProductCount counts_of(const RunResult& r, const RunState& state) {
  ProductCount counts;
  counts.symmetry = kSymmetryProbes;
  for (const ProbeQuadrature& q : r.quadrature)
    (q.probe == 0 ? counts.first_probe : counts.density) += static_cast<std::int64_t>(q.alpha.size());
  if (r.trace) counts.trace = r.trace->products;
  if (r.eigenvalues) {
    counts.residuals = r.eigenvalues->residual_products;
    if (state.eigenvalues) counts.eigenvalues = r.eigenvalues->steps;
    // A run that restarted thick has gone on beyond its quadrature.
    if (!state.eigenvalues && !r.quadrature.empty())
      counts.first_probe = std::max(counts.first_probe, r.eigenvalues->steps);
  }
  counts.surplus = state.products - (counts.symmetry + counts.first_probe + counts.density + counts.trace +
                                     counts.eigenvalues + counts.residuals);
  return counts;
}

}  // namespace

Measured measure(const Group& group, Communicator& world) {
  Measured m;
  m.stats = group.op->stats();
  m.loss = group.op->loss();
  m.loss_terms = group.op->count();
  m.gradient_norm = std::sqrt(group.comm->sum(norm_sq(group.op->gradient())));
  m.peak_memory_bytes = world.max(peak_memory_bytes());
  m.peak_device_bytes = world.max(peak_device_bytes(group.op->options().device()));
  return m;
}

RunResult make_result(const RunRecord& record, const RunState& state, const Measured& measured) {
  RunResult r;
  r.process = process_info(record, state);
  r.diagnostics = diagnostics(record, state, measured);
  const Goals& goals = record.goals;
  for (const FinishedProbe& one : state.finished)
    if (one.eigenvalues) r.eigenvalues = one.eigenvalues;
  if (state.eigenvalues) r.eigenvalues = state.eigenvalues;

  DensityAnswer density = record.schedule.density_answer(state);
  r.quadrature = std::move(density.quadratures);
  if (goals.density) {
    r.cumulative = std::move(density.cumulative);
    draw_density(r, record.run.config.quadrature.sigma, r.diagnostics.parameters);
  }
  double floor = 0;  // of the trace
  if (goals.own_trace_method()) {
    r.trace = state.trace;
  } else if (goals.samples_trace()) {
    TraceAnswer trace = record.schedule.trace_answer(state);
    floor = trace.floor;
    r.trace = std::move(trace.estimate);
    if (!goals.layers.empty()) r.layers = layers_of(record.problem, goals, state, trace.samples);
    r.samples = std::move(trace.samples);
  }
  r.counts = counts_of(r, state);
  r.warnings = record.problem.warnings;  // which were told when it began
  if (const std::int64_t complex = record.problem.program->layout().complex_count(); complex > 0)
    say(r, format_count(complex) + " complex parameters count twice, as real and imaginary parts");
  warn(r, goals, floor, record.run.config.compute.dtype);
  return r;
}

}  // namespace hesspect
