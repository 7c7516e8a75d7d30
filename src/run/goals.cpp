#include "hesspect/run/goals.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "hesspect/core/errors.h"
#include "hesspect/spectrum/analysis_figures.h"

namespace hesspect {
namespace {

std::optional<EigenGoal> eigen_goal(Command command, const RunConfig& config) {
  const EigsConfig& eigs = config.eigs;
  EigenGoal goal;
  goal.top = eigs.top;
  goal.bottom = eigs.bottom;
  goal.magnitude = eigs.magnitude;
  if (command != Command::kEigs && !(command == Command::kAnalyze && goal.wanted() > 0)) return std::nullopt;
  if (eigs.method == EigenMethod::kPower)
    goal.solver = EigenSolver::kPower;
  else if (eigs.block > 1)
    goal.solver = EigenSolver::kBlock;
  goal.rtol = eigs.rtol_eigs;
  goal.block = eigs.block;
  goal.max_basis = eigs.max_basis;
  // Power iteration has measured its pairs' residuals when it ends.
  goal.true_residuals = eigs.true_residuals && goal.solver != EigenSolver::kPower;
  goal.vectors_file = eigs.eigenvectors;
  if (!config.quadrature.reorthogonalize && goal.solver == EigenSolver::kProbe) {
    // Vectors come of a second pass, and nothing but their residuals says how good they are.
    goal.true_residuals = goal.true_residuals || !goal.vectors_file.empty();
    goal.second_pass = goal.true_residuals;
  }
  return goal;
}

std::optional<TraceGoal> trace_goal(Command command, const RunConfig& config) {
  if (command == Command::kEigs || command == Command::kFeatures) return std::nullopt;
  const bool asked = command != Command::kDensity;  // a density has samples of the trace that cost nothing
  TraceGoal goal;
  goal.method = config.trace.trace_method;
  if (goal.deflated() && !config.quadrature.reorthogonalize) goal.method = TraceMethod::kHutchinson;
  if (!asked && !goal.sampled()) return std::nullopt;
  if (asked && goal.sampled()) {
    goal.layers = config.trace.layers;
    goal.diagonal_file = config.trace.diagonal;
  }
  goal.rule.confidence = config.accuracy.confidence;
  goal.rule.rtol = asked ? config.accuracy.rtol_trace : 0;
  const bool by_number = command == Command::kTrace || (!config.trace.diagonal.empty() && goal.rule.rtol <= 0);
  goal.rule.min_samples = by_number ? std::max(kSymmetryProbes, config.quadrature.probes) : kSymmetryProbes;
  return goal;
}

std::int64_t lanczos_runs(const Goals& g, const RunConfig& config) {
  if (g.density) return config.quadrature.probes;
  return g.solves_by(EigenSolver::kProbe) || g.deflates() ? 1 : 0;
}

/// Steps of the Lanczos runs, within the products that there are.
void set_steps(Goals& g, const RunConfig& config) {
  // A trace that has no accuracy to go by takes the space that it is given.
  const bool by_number = g.command == Command::kTrace && g.deflates() && g.trace->rule.rtol <= 0;
  g.steps = g.density || by_number ? config.quadrature.steps : 0;
  g.most_steps = most_steps(config.eigs, g.n);
  if (g.max_products == 0) return;
  const std::int64_t residuals = g.eigen && g.eigen->true_residuals ? g.eigen->wanted() : 0;
  std::int64_t left = std::max<std::int64_t>(1, g.max_products - kSymmetryProbes - residuals);
  if (g.eigen && g.eigen->second_pass) left = std::max<std::int64_t>(1, (left + 1) / 2);
  const std::int64_t runs = g.runs + (g.eigen && g.eigen->solver != EigenSolver::kProbe ? 1 : 0);
  g.steps = std::min(g.steps, std::max<std::int64_t>(1, left / std::max<std::int64_t>(1, runs)));
  g.most_steps = std::min(g.most_steps, std::max<std::int64_t>(1, left - (runs - 1) * g.steps));
}

/// Products of Hutch++, XTrace or XNysTrace, at most. Two vectors are kept for three products of the first, one for two
/// of the second, one for each of the third: as many as there may be rows in a Lanczos basis.
void set_own_products(Goals& g, const RunConfig& config) {
  TraceGoal& trace = *g.trace;
  const bool xtrace = trace.method == TraceMethod::kXTrace, xnystrace = trace.method == TraceMethod::kXNysTrace;
  const std::int64_t rows = most_steps(config.eigs, g.n);
  std::int64_t products = xnystrace ? rows : xtrace ? 2 * rows : 3 * rows / 2;
  if (trace.rule.rtol <= 0) products = std::min(products, (xnystrace ? 1 : xtrace ? 2 : 3) * config.quadrature.probes);
  products = std::max(products, kLeastOwnProducts);
  if (g.max_products > 0) products = std::min(products, g.max_products - kSymmetryProbes);
  if (products < kLeastOwnProducts)
    throw UsageError("--trace-method " + std::string(to_string(trace.method)) + " takes " +
                     std::to_string(kLeastOwnProducts) + " products at least, beside " +
                     std::to_string(kSymmetryProbes) + " of the symmetry check: --max-hvps " +
                     std::to_string(g.max_products) + " is too few");
  trace.own_products = products;
}

// --- what they take ---

/// Of a block's length, beside its basis: what comes and goes with its samples, and its Lanczos run's own.
constexpr std::int64_t kBlockVectors = 4;

/// A plan has room for a Lanczos run of one step where there is none: two rows, a work vector, the next run's start.
constexpr std::int64_t kRowsOfNoRun = 4;

/// Vectors that are held beside the Lanczos runs' bases, in rows of a shard each.
std::int64_t rows_for_eigenvalues(const Goals& g) {
  const EigenGoal& eigen = *g.eigen;
  if (eigen.solver == EigenSolver::kPower) {
    const std::int64_t rows = eigen.wanted() + 2;  // an iterate, and its product
    return g.runs > 0 ? rows : std::max<std::int64_t>(0, rows - kRowsOfNoRun);
  }
  const std::int64_t longest = std::min(g.most_steps, g.n) + eigen.block;
  return (eigen.max_basis > 0 ? std::min(longest, eigen.max_basis) : longest) + eigen.block;
}

/// Products for the trace that are taken at once where the longest run takes all its steps: of few that --max-hvps then
/// leaves no more than these. Where it ends earlier its vectors make room (TracePolicy).
std::int64_t trace_together(const Goals& g, const Demand& d) {
  if (g.writes_diagonal()) return 1;
  // Where no accuracy is asked for, there are no more samples than the fewest, of which the symmetry check has taken
  // its.
  if (g.samples_trace() && g.trace->rule.rtol <= 0)
    return std::clamp<std::int64_t>(g.trace->rule.min_samples - kSymmetryProbes, 1, kTraceTogether);
  if (g.max_products == 0) return kTraceTogether;
  const std::int64_t runs = (d.probes - 1) * d.steps + std::max(d.steps, d.longest_steps);
  return std::clamp<std::int64_t>(g.max_products - runs - d.other_products, 1, kTraceTogether);
}

/// @param together  samples that are taken at once
std::int64_t rows_for_trace(const Goals& g, std::int64_t together) {
  const TraceGoal& trace = *g.trace;
  // Random vectors, their products, and what the deflated space takes of them. They come and go with every task.
  const auto passing = [](std::int64_t joint) { return 3 * joint; };
  if (trace.method == TraceMethod::kXTrace) return trace.own_products / 2 + passing(kTraceTogether);
  if (trace.method == TraceMethod::kXNysTrace) return trace.own_products + passing(kTraceTogether);
  if (trace.method == TraceMethod::kHutchPlusPlus) return 2 * trace.own_products / 3 + passing(kTraceTogether);
  // The symmetry check's two samples are corrected together.
  std::int64_t rows = std::max(passing(together), g.writes_diagonal() ? 0 : 2 * kSymmetryProbes);
  if (trace.deflated() && trace.rule.rtol > 0) rows += kSymmetryProbes;  // by which the run's length is chosen
  // Sums, mean, error and what they are worked out through, all in double, and a whole vector on its way to the file.
  if (g.writes_diagonal()) rows += 18;
  return rows;
}

std::int64_t residuals_of_block(const BlocksGoal& blocks, std::int64_t n) {
  return blocks.eigen && blocks.eigen->true_residuals ? std::min(n, blocks.eigen->wanted()) : 0;
}

/// Steps of a block's first run, at most, within its products (spectrum/analysis.h).
std::int64_t steps_with_block(const BlocksGoal& blocks, std::int64_t n) {
  const std::int64_t held_back = residuals_of_block(blocks, n) + (blocks.trace ? kNormSamples : 0);
  return std::max<std::int64_t>(2, blocks.max_products - held_back);
}

/// Blocks and features are dealt one by one when the whole matrix's work is done. Their vectors are as short as they.
void add_blocks(Demand& d, const Goals& g) {
  const BlocksGoal& blocks = *g.blocks;
  std::int64_t rows = 0, largest = 0;  // of the part's own length
  for (const std::size_t i : blocks_in_turn(blocks)) {
    const std::int64_t n = blocks.parts[i].size();
    BlockDemand& one = d.blocks.emplace_back();
    one.parameters = n;
    one.products = products_with_block(g, n).most;
    if (blocks.changes)
      one.losses = 1 + 2 * std::ssize(blocks.changes->rho) * ((n == 1 ? 1 : blocks.changes->draws) + 1);
    if (n <= largest) continue;
    largest = n;
    rows = std::min(n, steps_with_block(blocks, n)) + 1 + kBlockVectors;
  }
  if (const std::int64_t most = g.eigen ? g.eigen->max_basis : 0; most > 0)
    rows = std::min(rows, most + 1 + kBlockVectors);
  const double share = static_cast<double>(largest) / static_cast<double>(std::max<std::int64_t>(1, g.n));
  d.block_rows = static_cast<std::int64_t>(std::ceil(share * static_cast<double>(rows)));
  if (blocks.changes) d.block_rows += 2;  // the parameters again, and a step
  d.are_features = !blocks.features.empty();
  if (d.are_features)
    --d.other_products;  // nothing but the symmetry check is of the whole: the probe is one of its two
}

}  // namespace

std::int64_t Goals::products_left(std::int64_t used) const {
  if (max_products == 0) return std::numeric_limits<std::int64_t>::max();
  return std::max<std::int64_t>(0, max_products - used);
}

double Goals::sampling_rtol() const {
  const double asked = trace->rule.rtol;
  return eigen_error > 0 ? std::max(asked - rounding, asked / 2) : asked;
}

Goals goals_of(Command command, const RunConfig& config, std::int64_t n) {
  Goals g;
  g.command = command;
  g.n = n;
  g.reorthogonalize = config.quadrature.reorthogonalize;
  g.seed = config.quadrature.seed;
  g.matrix = matrix_name(config.curvature.curvature);
  g.semidefinite = is_semidefinite(config.curvature.curvature);
  g.distribution = config.quadrature.distribution;
  g.confidence = config.accuracy.confidence;
  g.rounding =
      10 * (config.compute.dtype == ElementType::kF64 ? std::numeric_limits<double>::epsilon()
                                                      : static_cast<double>(std::numeric_limits<float>::epsilon()));
  g.max_products = config.accuracy.max_hvps;
  g.data_error = config.accuracy.data_error != 0;
  g.eigen = eigen_goal(command, config);
  g.trace = trace_goal(command, config);
  if (command == Command::kAnalyze || command == Command::kDensity)
    g.density = DensityGoal{config.accuracy.density_w1, config.quadrature.sigma};
  g.runs = lanczos_runs(g, config);
  set_steps(g, config);
  if (g.estimates_trace_by_itself()) set_own_products(g, config);
  return g;
}

void set_blocks(Goals& goals, std::vector<Part> parts, const ParameterLayout& layout, std::int64_t max_products) {
  BlocksGoal blocks;
  blocks.max_products = max_products;
  blocks.rest = count_outside(layout, parts, blocks.overlap);
  blocks.parts = std::move(parts);
  if (!blocks.overlap.empty())
    blocks.off_block_obstacle = "blocks overlap in '" + blocks.overlap + "'";
  else if (!goals.samples_trace())
    blocks.off_block_obstacle =
        "the norm of the whole matrix takes samples of the trace, which 'eigs' and --trace-method hutch++ and xtrace "
        "don't have";
  else
    goals.trace->rule.min_samples = std::max(goals.trace->rule.min_samples, kNormSamples);
  blocks.eigen = goals.eigen;
  blocks.trace = goals.trace;
  blocks.density = goals.density;
  goals.blocks = std::move(blocks);
}

void set_features(Goals& goals, const RunConfig& config, std::vector<FeatureResult> features, std::vector<Part> parts) {
  BlocksGoal blocks;
  blocks.max_products = config.parts.block_hvps;
  blocks.features = std::move(features);
  blocks.parts = std::move(parts);
  EigenGoal& eigen = blocks.eigen.emplace();
  eigen.top = 1;
  eigen.rtol = config.eigs.rtol_eigs;
  eigen.true_residuals = config.eigs.true_residuals;
  blocks.trace = TraceGoal{};
  blocks.trace->rule.confidence = config.accuracy.confidence;
  blocks.trace->rule.rtol = config.accuracy.rtol_trace;
  blocks.trace->rule.min_samples = kNormSamples;
  ChangesGoal changes{config.features.rho, config.features.draws, std::numeric_limits<double>::epsilon()};
  if (config.compute.dtype != ElementType::kF64) changes.epsilon = std::numeric_limits<float>::epsilon();
  std::ranges::sort(changes.rho);
  changes.rho.erase(std::unique(changes.rho.begin(), changes.rho.end()), changes.rho.end());
  if (!changes.rho.empty()) blocks.changes = std::move(changes);
  goals.blocks = std::move(blocks);
}

void set_precision(Goals& goals, const PrecisionEffect& effect) {
  constexpr double kOneMeasurement = 2;
  goals.rounding += kOneMeasurement * effect.rayleigh_error;
  goals.eigen_error = kOneMeasurement * effect.leading_error;
  goals.density_error = kOneMeasurement * effect.moved;
}

ProductRange products_with_block(const Goals& g, std::int64_t n) {
  const BlocksGoal& blocks = *g.blocks;
  if (n == 0) return {};
  const std::int64_t residuals = residuals_of_block(blocks, n);
  const std::int64_t draws = blocks.changes ? (n == 1 ? 1 : blocks.changes->draws) : 0;
  const std::int64_t more = residuals + draws, run = steps_with_block(blocks, n);
  const bool by_steps = blocks.trace || blocks.density;
  const std::int64_t least = by_steps ? std::min({g.steps > 0 ? g.steps : kStepsOfTrace, run, n}) : 1;
  if (n <= run) return {std::min(least, n) + more, n + more};  // found whole
  const std::int64_t samples = blocks.trace ? std::max(blocks.trace->rule.min_samples, kNormSamples) : 0;
  return {least + samples + more, std::max(blocks.max_products, run + residuals + samples) + draws};
}

std::vector<std::size_t> blocks_in_turn(const BlocksGoal& blocks) {
  std::vector<std::size_t> order(blocks.parts.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, std::greater<>(), [&](std::size_t i) { return blocks.parts[i].size(); });
  return order;
}

Demand demand_of(const Goals& g) {
  Demand d;
  const std::int64_t most = std::min(g.most_steps, g.n);
  d.probes = std::max<std::int64_t>(1, g.runs);
  d.steps = std::max<std::int64_t>(1, std::min(g.steps, g.n));
  const bool refined = g.density && g.density->w1 > 0, adaptive_trace = g.trace && g.trace->rule.rtol > 0;
  if (g.runs > 0 && (g.solves_by(EigenSolver::kProbe) || refined || (g.deflates() && adaptive_trace)))
    d.longest_steps = std::max(most, d.steps);
  if (refined) d.most_steps = d.longest_steps;
  d.reorthogonalize = g.reorthogonalize;
  d.keeps_basis = g.deflates();
  d.adaptive = refined || adaptive_trace;
  d.max_products = g.max_products;
  d.other_products = kSymmetryProbes;
  if (g.blocks) add_blocks(d, g);
  if (g.eigen) {
    if (g.eigen->true_residuals) {
      d.other_products += std::min(g.eigen->wanted(), g.n);
      if (g.data_error && !g.trace) d.other_rows += kSymmetryProbes;  // which the trace has room for
    }
    if (g.eigen->solver == EigenSolver::kProbe) {
      d.max_basis = g.eigen->max_basis;
      d.wanted = std::min(g.eigen->wanted(), g.n);
      if (g.eigen->second_pass) {
        d.other_products += std::max(most, d.steps) - 1;
        d.other_rows += 2 + d.wanted;  // the second pass's own two
      }
    } else {
      d.other_products += most;
      d.other_rows += rows_for_eigenvalues(g);
      if (g.eigen->solver == EigenSolver::kBlock) d.joint = g.eigen->block;
    }
  }
  if (g.trace) {
    const std::int64_t together = trace_together(g, d);
    d.other_rows += rows_for_trace(g, together);
    if (g.samples_trace()) {
      d.other_products += std::max<std::int64_t>(0, g.trace->rule.min_samples - kSymmetryProbes);
      d.joint_where_room = together;
    } else {
      d.other_products += g.trace->own_products;
      d.joint = std::max(d.joint, kTraceTogether);
    }
  }
  return d;
}

}  // namespace hesspect
