// A group's analysis of one diagonal block, from its first product to its last: what a stop interrupts is made again.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "context.h"
#include "hesspect/comm/agree.h"
#include "hesspect/core/probe_numbers.h"
#include "hesspect/core/text.h"
#include "hesspect/curvature/part_operator.h"
#include "hesspect/krylov/vector_math.h"
#include "hesspect/run/solver_options.h"
#include "hesspect/spectrum/analysis.h"
#include "hesspect/spectrum/probe.h"

namespace hesspect {
namespace {

/// Of blocks and features; of more, each gets no line of its own in the log.
constexpr std::int64_t kMostTold = 60;

/// Of a block's own probes: its vectors have nothing to do with the whole's, nor with another block's, whichever blocks
/// there are. FNV-1a.
std::uint64_t seed_of(std::uint64_t seed, const std::string& name) {
  std::uint64_t hash = 14695981039346656037u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  return seed ^ hash;
}

AnalysisOptions options_for(const Context& context, const Part& part) {
  const Goals& goals = context.goals;
  const BlocksGoal& blocks = *goals.blocks;
  AnalysisOptions options;
  options.eigenvalues = blocks.eigen.has_value();
  options.trace = blocks.trace.has_value();
  options.density = blocks.density.has_value();
  // They are of the matrix itself: products in low precision measure none.
  options.true_residuals =
      blocks.eigen && blocks.eigen->true_residuals && context.op.precision() == MatrixPrecision::kFp32;
  options.eigen = eigen_options(goals, blocks.eigen.value_or(EigenGoal{}), context.plan);
  // The plan's basis has room for so many rows of the whole's length.
  const std::int64_t rows = options.eigen.max_basis;
  const std::int64_t wanted = options.eigen.top + options.eigen.bottom + options.eigen.magnitude;
  if (rows > 0) options.eigen.max_basis = std::max(rows * goals.n / part.size(), 2 * wanted + 8);
  options.probes = blocks.density ? std::max<std::int64_t>(1, goals.runs) : 1;
  options.steps = goals.steps > 0 ? goals.steps : kStepsOfTrace;
  options.density_w1 = blocks.density ? blocks.density->w1 : 0;
  options.density_error = goals.density_error;
  if (blocks.trace) options.rule = blocks.trace->rule;
  options.rule.confidence = goals.confidence;
  options.lanczos = context.lanczos_options();
  options.distribution = goals.distribution;
  options.seed = seed_of(goals.seed, part.name);
  options.max_products = blocks.max_products;
  return options;
}

/// What is known of a block of which vectors hold nothing: as of a matrix of one entry that is zero.
Analysis of_zero(const BlocksGoal& blocks) {
  Analysis analysis;
  ProbeQuadrature& q = analysis.quadratures.emplace_back();
  q.alpha = q.ritz = {0};
  q.weight = {1};
  q.norm_sq = 1;
  q.breakdown = true;
  analysis.all_found = true;
  if (!blocks.eigen) return analysis;
  EigenResult& eigen = analysis.eigenvalues.emplace();
  EigenEstimate zero;
  zero.converged = eigen.converged = eigen.exhausted = true;
  (blocks.eigen->top > 0 ? eigen.top : blocks.eigen->bottom > 0 ? eigen.bottom : eigen.magnitude).push_back(zero);
  return analysis;
}

/// What random steps within the part do to the loss, and steps along its first eigenvector. Collective over the group.
/// @param eigenvector  [chunk] of the part; undefined: none is known
/// @param largest      its eigenvalue
LossChanges measure_changes(Context& context, PartOperator& op, const Part& part, const ChangesGoal& goal,
                            std::uint64_t seed, const at::Tensor& eigenvector, double largest) {
  if (!context.surface) context.surface = std::make_unique<LossSurface>(context.op);
  LossSurface& surface = *context.surface;
  const at::NoGradGuard no_grad;
  at::Tensor step = agreed(op.comm(), [&] { return at::zeros({op.shard().chunk}, op.options()); });
  at::Tensor product = agreed(op.comm(), [&] { return at::zeros_like(step); });
  const auto dot = [&](const at::Tensor& a, const at::Tensor& b) { return op.comm().sum(dot_product(a, b)); };
  const std::int64_t losses = surface.losses();
  const auto loss = [&](const at::Tensor& direction, double length) {
    at::mul_out(step, direction, at::scalar_tensor(length, step.options()));
    const double value = surface.loss(part, step);
    context.between_products();
    return value;
  };
  LossChanges changes;
  changes.norm = surface.parameter_norm(part);
  changes.loss = loss(step.clone(), 0);
  const bool has_apart = eigenvector.defined() && op.shard().n > 1;
  at::Tensor v;
  if (has_apart) {
    const double norm = std::sqrt(dot(eigenvector, eigenvector));
    v = agreed(op.comm(), [&] { return eigenvector / norm; });
    changes.largest_curvature = largest;
  }
  /// Both ways along a direction: their mean less the loss. @param most  is raised to the larger of both
  const auto both_ways = [&](const at::Tensor& direction, double length, double& most) {
    const double up = loss(direction, length) - changes.loss, down = loss(direction, -length) - changes.loss;
    most = std::max({most, up, down});
    return (up + down) / 2;
  };
  for (const double rho : goal.rho) changes.at.push_back({rho, {}, -std::numeric_limits<double>::infinity()});
  const std::int64_t draws = op.shard().n == 1 ? 1 : goal.draws;
  for (std::int64_t i = 0; i < draws; ++i) {
    at::Tensor u =
        probe_vector(op, ProbeDistribution::kGaussian, seed, kDirectionProbes + static_cast<std::uint64_t>(i));
    const double norm = std::sqrt(dot(u, u));
    scale_into(u, 1 / norm, u);
    op.apply(u, product);
    changes.curvature.push_back(dot(u, product));
    ++context.block_products;
    context.between_products();
    if (has_apart) changes.component.push_back(dot(u, v));
    for (RelativeChange& one : changes.at) {
      double unused = 0;
      one.change.push_back(both_ways(u, one.rho * changes.norm, one.largest));
      if (has_apart) one.part.push_back(both_ways(v, one.rho * changes.norm * changes.component.back(), unused));
    }
  }
  for (RelativeChange& one : changes.at) {
    double most = -std::numeric_limits<double>::infinity(), unused = 0;
    if (eigenvector.defined()) {
      both_ways(eigenvector, one.rho * changes.norm, most);
      one.along = most;
    }
    if (!has_apart) continue;
    for (const double t : component_rule(op.shard().n, kAlongNodes).node)
      one.nodes.push_back(both_ways(v, one.rho * changes.norm * t, unused));
  }
  changes.losses = surface.losses() - losses;
  return changes;
}

}  // namespace

void perform(Context& context, const AnalyseBlock& task) {
  const Part& part = context.goals.blocks->parts.at(static_cast<std::size_t>(task.part));
  if (part.size() == 0 && part.zeros() > 0)
    return void(context.report(BlockAnalysed{{part.name, of_zero(*context.goals.blocks), 0, {}}}));
  context.deflation.reset();  // its vectors make room
  PartOperator op(context.op, part);
  const AnalysisOptions options = options_for(context, part);
  const auto& changes_goal = context.goals.blocks->changes;
  at::Tensor eigenvector;
  FinishedBlock done{part.name, {}, 0, {}};
  done.analysis = analyse(
      op, options,
      [&] {
        ++context.block_products;
        context.between_products();
      },
      changes_goal ? &eigenvector : nullptr);
  if (changes_goal) {
    const bool has_value = done.analysis.eigenvalues && !done.analysis.eigenvalues->top.empty();
    const double largest = has_value ? done.analysis.eigenvalues->top.front().value : 0;
    done.changes = measure_changes(context, op, part, *changes_goal, options.seed, eigenvector, largest);
  }
  done.product_s = op.product_s();
  const BlocksGoal& goal = *context.goals.blocks;
  if (std::ssize(goal.parts) <= kMostTold)
    context.say((goal.features.empty() ? "block " : "feature ") + quote(part.name) + ": " + format_count(part.size()) +
                (part.size() == 1 ? " parameter, " : " parameters, ") + format_count(op.products()) + " products in " +
                format_duration(op.product_s()));
  context.report(BlockAnalysed{std::move(done)});
}

}  // namespace hesspect
