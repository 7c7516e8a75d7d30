#include "hesspect/report/assemble.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"
#include "hesspect/core/probe_numbers.h"
#include "hesspect/core/text.h"
#include "hesspect/report/feature_summary.h"
#include "hesspect/run/answers.h"
#include "hesspect/spectrum/analysis_figures.h"
#include "hesspect/spectrum/cumulative.h"
#include "hesspect/spectrum/data_error.h"
#include "hesspect/spectrum/density.h"
#include "hesspect/spectrum/js_error.h"
#include "hesspect/spectrum/zero_eigenvalues.h"

namespace hesspect {
namespace {

/// Points of a block's cumulative density over all probes: there may be many blocks.
constexpr std::int64_t kBlockPoints = 4'000;

/// What decides how a run ends. A block's density takes what its products give.
bool converged(const BlockResult& b) {
  return (!b.eigenvalues || b.eigenvalues->converged) && (!b.trace || b.trace->converged);
}

void add_layout(Diagnostics& d, const Plan& plan) {
  d.groups = plan.groups;
  d.data_ranks = plan.data_ranks;
  d.lock_step = plan.lock_step;
  d.basis_dtype = to_string(plan.basis_dtype);
  d.basis_memory = to_string(plan.basis_memory);
  d.basis_bytes = std::max(plan.bytes.basis, plan.bytes.basis_host);
  d.messages_per_step = plan.messages_per_step;
  d.message_bytes_per_step = plan.message_bytes_per_step;
  d.forecast_memory_bytes = plan.bytes.total();
  if (plan.run_s > 0) d.forecast_s = plan.run_s;
  if (plan.product_s > 0) d.forecast_product_s = plan.product_s;
}

void add_spent(Diagnostics& d, const LedgerState& state) {
  d.symmetry_error = state.symmetry_error;
  d.orthogonality_loss = Diagnostics::kNotMeasured;
  for (const FinishedProbe& one : state.finished)
    if (const double loss = one.quadrature.orthogonality_loss; std::isfinite(loss))
      d.orthogonality_loss = std::isnan(d.orthogonality_loss) ? loss : std::max(d.orthogonality_loss, loss);
  d.products = state.products;
  d.product_s = state.product_s;
  d.communication_s = state.communication_s;
  d.cost_in_gradients = state.products > 0 && d.gradient_s > 0
                            ? state.product_s / static_cast<double>(state.products) / d.gradient_s
                            : Diagnostics::kNotMeasured;
  d.elapsed_s = state.elapsed_s;
  d.starts = state.starts;
}

void say(RunResult& r, const std::string& text) {
  r.warnings.push_back(text);
  log_warning(text);
}

void draw_density(RunResult& r, double sigma_asked, const Goals& goals) {
  std::vector<double> widths{0};  // chosen
  if (sigma_asked > 0) widths.insert(widths.begin(), sigma_asked);
  for (const double sigma : widths) {
    DensityOptions options;
    options.sigma = sigma;
    options.n = goals.n;
    options.zeros = goals.zeros;
    try {
      r.density = density(r.quadrature, options);
      return;
    } catch (const UsageError& error) {  // known only now: the run is still worth keeping
      say(r, std::string(error.what()) + (sigma > 0 ? "; the density has a chosen width" : "; there is no density"));
    }
  }
}

/// `part` in per cent of `whole`.
std::string share(double part, double whole) { return format_number(100 * part / std::abs(whole)) + " %"; }

/// @param floor  what its accuracy was relative to at least
void warn_of_trace(RunResult& r, const Goals& goals, double floor) {
  const TraceEstimate& trace = *r.trace;
  const std::string asked = format_number(100 * goals.trace->rule.rtol) + " %";
  if (std::abs(trace.value) < floor && goals.trace->rule.rtol > 0) {
    const std::string why =
        "positive and negative eigenvalues cancel to a trace of less than 1 % of their magnitudes' "
        "sum: its half width ";
    if (!trace.converged)
      say(r, why + format_number(trace.half_width) + " is not within " + asked + " of that 1 % (" +
                 format_number(goals.trace->rule.rtol * floor) + "): raise --max-hvps or --rtol-trace");
    else if (trace.half_width > goals.trace->rule.rtol * std::abs(trace.value))
      say(r, why + format_number(trace.half_width) + " is within " + asked + " of that 1 % (" +
                 format_number(goals.trace->rule.rtol * floor) + "), not of the trace");
    return;
  }
  if (!trace.converged)
    say(r, "the trace is known to " + share(trace.half_width, trace.value) + ", not to the " + asked +
               " asked for: raise " + (goals.estimates_trace_by_itself() ? "--max-steps, " : "") +
               "--max-hvps or --rtol-trace");
}

/// A matrix without negative eigenvalues has none, but for rounding: of products, and of the Lanczos vectors.
void warn_of_negative(RunResult& r, const Goals& goals) {
  constexpr double kRounding = 100;  // times goals.rounding, 10 ε
  double least = 0, largest = 0;
  const auto see = [&](double value) {
    least = std::min(least, value);
    largest = std::max(largest, std::abs(value));
  };
  for (const ProbeQuadrature& q : r.quadrature)
    for (const double value : q.ritz) see(value);
  if (r.eigenvalues)
    for (const auto* list : {&r.eigenvalues->top, &r.eigenvalues->bottom, &r.eigenvalues->magnitude})
      for (const EigenEstimate& one : *list) see(one.value);
  const double bound = (kRounding * goals.rounding + goals.eigen_error) * largest + goals.density_error;
  if (least < -bound)
    say(r, "the " + goals.matrix + " has no negative eigenvalues, and yet " + format_number(least) +
               " was found, beyond rounding (" + format_number(bound) +
               "): products are wrong, or data or weights too large for --dtype");
}

void warn(RunResult& r, const Goals& goals, double floor, double symmetry_bound) {
  const auto& d = r.diagnostics;
  if (!(d.symmetry_error <= symmetry_bound))
    say(r, "products are not symmetric: relative error " + format_number(d.symmetry_error) + ", expected below " +
               format_number(symmetry_bound));
  if (!d.widened_weights.empty())
    say(r, format_count(static_cast<std::int64_t>(d.widened_weights.size())) +
               " weights stored as bfloat16 or float16 were widened: " + format_names(d.widened_weights, 3));
  if (const auto& names = r.process.weights_not_covered; !names.empty())
    say(r, format_count(static_cast<std::int64_t>(names.size())) +
               " weights are those in the model, for no --weights holds them: " + format_names(names, 3));
  if (r.eigenvalues && !r.eigenvalues->converged)
    say(r, "not all eigenvalues converged in " + std::to_string(r.eigenvalues->steps) +
               " products: raise --max-steps, --max-hvps or --rtol-eigs");
  if (goals.semidefinite) warn_of_negative(r, goals);
  if (r.trace) warn_of_trace(r, goals, floor);
  if (r.cumulative && !r.cumulative->converged)
    say(r, "the density's Wasserstein-1 bound is " +
               share(r.cumulative->w1, r.cumulative->range_hi - r.cumulative->range_lo) +
               " of the spectrum's width, not the " + format_number(100 * goals.density->w1) +
               " % asked for: raise --max-steps, " + "--probes, --max-hvps or --density-w1" +
               (2 * r.cumulative->w1_precision > r.cumulative->w1 ? "; most of it is --precision's" : ""));
}

/// Products by what they were for. Those that no answer uses are surplus: of other groups when a prefix was enough, and
/// of earlier starts where they were lost.
ProductCount counts_of(const RunResult& r, const LedgerState& state) {
  ProductCount counts;
  counts.symmetry = kSymmetryProbes;
  for (const ProbeQuadrature& q : r.quadrature)
    (q.probe == 0 ? counts.first_probe : counts.density) += static_cast<std::int64_t>(q.alpha.size());
  if (r.trace) counts.trace = r.trace->products;
  if (r.eigenvalues) {
    counts.residuals = r.eigenvalues->residual_products;
    if (state.eigenvalues) counts.eigenvalues = r.eigenvalues->steps;
    // A run that restarted thick has gone on beyond its quadrature.
    if (!state.eigenvalues) counts.first_probe = std::max(counts.first_probe, r.eigenvalues->steps);
  }
  counts.surplus = state.products - (counts.symmetry + counts.first_probe + counts.density + counts.trace +
                                     counts.eigenvalues + counts.residuals);
  return counts;
}

/// Where groups of rows were told apart.
void add_data_error(RunResult& r, const RunFacts& facts, const Goals& goals, const LedgerState& state) {
  if (facts.row_groups.empty()) return;
  std::vector<TraceSample> samples;  // the symmetry check's, in the order of its probes
  for (std::int64_t i = 0; i < kSymmetryProbes; ++i)
    for (const TraceSample& sample : state.samples)
      if (sample.probe == trace_probe(i)) samples.push_back(sample);
  r.data_error =
      estimate_data_error({.groups = facts.row_groups,
                           .confidence = goals.confidence,
                           .loss = r.diagnostics.loss,
                           .samples = samples,
                           .eigenvalues = r.eigenvalues ? &*r.eigenvalues : nullptr,
                           .ritz = r.quadrature.empty() ? std::span<const double>() : r.quadrature.front().ritz,
                           .trace = r.trace ? &*r.trace : nullptr,
                           .layers = r.layers});
}

// --- blocks ---

BlockResult block_result(const Part& part, const FinishedBlock& finished, const Goals& goals) {
  const Analysis& a = finished.analysis;
  // A block of zeros alone has the first of them in the place of a matrix.
  const std::int64_t n = std::max<std::int64_t>(1, part.size()), zeros = part.size() + part.zeros() - n;
  BlockResult b;
  b.name = part.name;
  b.parameters = n + zeros;
  b.unused = part.zeros();
  b.tensors = part.tensors;
  b.products = a.products;
  b.product_s = finished.product_s;
  if (a.eigenvalues) {
    const EigenGoal& asked = *goals.eigen;
    b.eigenvalues = with_zeros(*a.eigenvalues, {asked.top, asked.bottom, asked.magnitude}, n, zeros).result;
  }
  b.quadrature = a.quadratures;
  std::erase_if(b.quadrature, [](const ProbeQuadrature& q) { return q.alpha.empty(); });
  if (goals.trace) {
    b.trace = trace_of(a, n, goals.trace->rule, goals.rounding);
    b.norm_sq = norm_sq_of(a, n);
  }
  if (goals.density) {
    b.cumulative = with_zeros(
        cumulative_density(b.quadrature, n,
                           {.confidence = goals.confidence, .moved = goals.density_error, .most_points = kBlockPoints}),
        n, zeros);
    b.cumulative->converged = goals.density->w1 <= 0 ||
                              b.cumulative->w1 <= goals.density->w1 * (b.cumulative->range_hi - b.cumulative->range_lo);
  }
  return b;
}

/// ‖H‖²_F of the whole, from the trace's samples.
Estimate whole_norm_sq(const RunResult& r, const Goals& goals, const LedgerState& state) {
  if (r.cumulative && r.cumulative->band == "exact")
    return {static_cast<double>(goals.n + goals.zeros) * r.cumulative->moments.at(1).value, 0};
  return norm_sq_of(goals.deflates() && state.deflation ? state.deflation->captured_sq : 0, r.samples);
}

/// The densities of all blocks with one kernel, and how far they are from each other. The kernel is as wide as the
/// widest that any of them needs by itself, but for those that are known exactly: a narrower one would tell one comb of
/// nodes from another.
void compare_densities(BlocksResult& blocks, double sigma_asked, double confidence) {
  double widest = 0, widest_exact = 0;
  for (const BlockResult& b : blocks.each)
    (b.cumulative->band == "exact" ? widest_exact : widest) =
        std::max(b.cumulative->band == "exact" ? widest_exact : widest, default_sigma(b.quadrature));
  blocks.js_sigma = sigma_asked > 0 ? sigma_asked : widest > 0 ? widest : widest_exact;
  std::vector<SampledSpectrum> spectra;
  for (const BlockResult& b : blocks.each) spectra.push_back({b.quadrature, b.sampled(), b.zeros()});
  const JsDistances distances = js_distances(spectra, blocks.js_sigma, confidence);
  for (std::size_t i = 0; i < spectra.size(); ++i)
    for (std::size_t j = 0; j < spectra.size(); ++j) {
      const JsDistance& one = distances.each[i][j];
      blocks.js_distance[i][j] = one.value;
      blocks.js_error[i][j] = one.standard_error;
      blocks.js_lower[i][j] = one.lower;
      blocks.js_upper[i][j] = one.upper;
    }
  if (spectra.size() < 2) return;
  blocks.js_mean = distances.mean.value;
  blocks.js_mean_error = distances.mean.standard_error;
  blocks.js_mean_lower = distances.mean.lower;
  blocks.js_mean_upper = distances.mean.upper;
}

void draw_block_densities(RunResult& r, const Goals& goals) {
  BlocksResult& blocks = *r.blocks;
  try {
    for (BlockResult& b : blocks.each)
      b.density = density(b.quadrature, {.sigma = goals.density->sigma, .n = b.sampled(), .zeros = b.zeros()});
    compare_densities(blocks, goals.density->sigma, goals.confidence);
  } catch (const UsageError& error) {  // of a width that the user gave
    say(r, std::string(error.what()) + "; blocks have no smoothed density, and there are no distances between them");
  }
}

void add_blocks(RunResult& r, const Goals& goals, const Ledger& ledger, const LedgerState& state) {
  const BlocksGoal& goal = *goals.blocks;
  BlocksResult& blocks = r.blocks.emplace();
  blocks.rest = goal.rest;
  blocks.off_block_obstacle = goal.off_block_obstacle;
  std::vector<std::string> short_of;
  std::vector<Estimate> norms;
  for (const Part& part : goal.parts) {
    const FinishedBlock* finished = ledger.block(part.name);
    if (finished == nullptr) continue;
    const BlockResult& b = blocks.each.emplace_back(block_result(part, *finished, goals));
    norms.push_back(b.norm_sq);
    if (!converged(b)) short_of.push_back(quote(b.name));
  }
  for (auto* table : {&blocks.js_distance, &blocks.js_error, &blocks.js_lower, &blocks.js_upper})
    table->assign(blocks.each.size(), std::vector<double>(blocks.each.size(), BlockResult::kUnknown));
  if (goals.density) draw_block_densities(r, goals);
  if (blocks.off_block_obstacle.empty()) {
    blocks.norm_sq = whole_norm_sq(r, goals, state);
    blocks.off_block_share = off_block_share(blocks.norm_sq, norms);
  }
  if (!short_of.empty())
    say(r, "eigenvalues or trace of " + format_count(std::ssize(short_of)) + " of " +
               format_count(std::ssize(blocks.each)) +
               " blocks are not known as well as asked: " + format_names(short_of, 3) + "; raise --block-hvps " +
               std::to_string(goal.max_products) + ", --rtol-eigs or --rtol-trace");
}

}  // namespace

RunResult assemble(RunFacts facts, const Goals& goals, const Ledger& ledger, double elapsed_s, double product_s) {
  const LedgerState state = ledger.state(elapsed_s);
  RunResult r;
  r.warnings = std::move(facts.warnings);
  r.process = std::move(facts.process);
  r.process.run_id = state.run_id;
  r.process.model = state.model;
  r.process.weights = state.weights;
  r.process.data = state.data;
  r.diagnostics = std::move(facts.diagnostics);
  r.initial = std::move(facts.initial);
  add_layout(r.diagnostics, state.layout.plan);
  add_spent(r.diagnostics, state);
  r.diagnostics.product_share = product_s / (state.layout.plan.groups * elapsed_s);

  if (state.eigenvalues)
    r.eigenvalues = state.eigenvalues;
  else if (const FinishedProbe* first = ledger.finished(0))
    r.eigenvalues = first->eigenvalues;
  DensityAnswer density = density_answer(goals, ledger);
  r.quadrature = std::move(density.quadratures);
  // A run that went straight to eigenvalues and restarted thick has no quadrature of its start vector.
  std::erase_if(r.quadrature, [](const ProbeQuadrature& q) { return q.alpha.empty(); });
  if (goals.density) {
    r.cumulative = std::move(density.cumulative);
    draw_density(r, goals.density->sigma, goals);
  }
  double floor = 0;  // of the trace
  if (goals.estimates_trace_by_itself()) {
    r.trace = state.trace;
  } else if (goals.samples_trace()) {
    TraceAnswer trace = trace_answer(goals, ledger);
    floor = trace.floor;
    r.trace = std::move(trace.estimate);
    if (goals.trace->layers) {
      const bool deflated = goals.deflates() && state.deflation;
      const std::vector<double> captured = deflated ? state.deflation->layers : std::vector<double>();
      r.layers = layer_estimates(facts.layer_names, facts.layer_sizes, captured, trace.samples);
      if (r.initial)
        weigh_by_distance(*r.initial, r.layers, captured, trace.samples, goals.trace->rule.confidence, goals.rounding);
    }
    r.samples = std::move(trace.samples);
  }
  add_data_error(r, facts, goals, state);
  if (goals.blocks && !goals.blocks->features.empty())
    r.features = features_of(goals, ledger, r.diagnostics);
  else if (goals.blocks)
    add_blocks(r, goals, ledger, state);
  r.counts = counts_of(r, state);
  warn(r, goals, floor, facts.symmetry_bound);
  if (r.features)
    for (const std::string& warning : feature_warnings(*r.features, goals.blocks->max_products)) say(r, warning);
  return r;
}

bool converged(const RunResult& result) {
  return (!result.eigenvalues || result.eigenvalues->converged) && (!result.trace || result.trace->converged) &&
         (!result.cumulative || result.cumulative->converged) &&
         (!result.sharpness || !result.sharpness->adam || result.sharpness->adam->converged) &&
         (!result.sharpness || !result.sharpness->blocks ||
          std::ranges::all_of(result.sharpness->blocks->each, &BlockSteps::converged)) &&
         (!result.inputs ||
          std::ranges::all_of(result.inputs->rows,
                              [](const InputRow& row) { return row.converged || std::isnan(row.gradient_norm); })) &&
         (!result.features || std::ranges::all_of(result.features->each, &FeatureResult::converged)) &&
         (!result.blocks ||
          std::ranges::all_of(result.blocks->each, [](const BlockResult& b) { return converged(b); }));
}

}  // namespace hesspect
