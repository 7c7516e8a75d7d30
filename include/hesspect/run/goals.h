// What a command asks of a run, and to what accuracy. It is derived once from the configuration; the plan (through
// `demand_of`), the policies and the tasks all read it here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "hesspect/config/options.h"
#include "hesspect/core/matrix_precision.h"
#include "hesspect/core/probe_numbers.h"
#include "hesspect/core/random_probe.h"
#include "hesspect/curvature/parts.h"
#include "hesspect/io/feature_result.h"
#include "hesspect/plan/plan.h"
#include "hesspect/spectrum/trace.h"

namespace hesspect {

/// Products for the trace that a group takes at once where the plan has room for them: their corrections share a pass
/// over the basis.
inline constexpr std::int64_t kTraceTogether = 4;

/// Products that Hutch++ and XTrace take at least.
inline constexpr std::int64_t kLeastOwnProducts = 6;

/// Of a block's run that its trace is deflated by, where nothing else asks for steps.
inline constexpr std::int64_t kStepsOfTrace = 40;

/// Who finds the eigenvalues.
enum class EigenSolver {
  kProbe,  // probe 0's Lanczos run
  kBlock,  // a block run of its own
  kPower   // power iterations
};

struct EigenGoal {
  EigenSolver solver = EigenSolver::kProbe;
  std::int64_t top = 0, bottom = 0;
  std::int64_t magnitude = 0;  // instead of top and bottom: of largest |λ|
  double rtol = 0;             // of the residual norm, over the largest |Ritz value|
  std::int64_t block = 1;      // start vectors of a block run
  std::int64_t max_basis = 0;  // rows of the basis before a thick restart; 0: as many as the plan has room for
  bool true_residuals = false;
  bool second_pass = false;  // without re-orthogonalisation: vectors come of a second pass through the recurrence
  std::string vectors_file;  // "": none
  std::int64_t wanted() const { return top + bottom + magnitude; }
};

struct TraceGoal {
  TraceMethod method = TraceMethod::kDeflated;
  TraceRule rule;  // its floor is known only when probe 0 has finished
  bool layers = false;
  std::string diagonal_file;      // "": none
  std::int64_t own_products = 0;  // of Hutch++ or XTrace, at most
  /// The trace is a mean over samples, which any group may take.
  bool sampled() const { return method == TraceMethod::kDeflated || method == TraceMethod::kHutchinson; }
  bool deflated() const { return method == TraceMethod::kDeflated; }
};

struct DensityGoal {
  double w1 = 0;     // bound of the Wasserstein-1 distance over the width of the spectrum; 0: none is asked for
  double sigma = 0;  // of the kernel; 0: chosen
};

/// What random steps within each block do to the loss.
struct ChangesGoal {
  std::vector<double> rho;  // relative to the norm of the block's parameters
  std::int64_t draws = 0;
  double epsilon = 0;  // of the run's dtype, which losses are exact to at best
};

/// Diagonal blocks of the matrix, each with an analysis of its own (hesspect/spectrum/analysis.h).
struct BlocksGoal {
  std::vector<Part> parts;
  std::optional<EigenGoal> eigen;  // of each: the whole's, where these are beside it
  std::optional<TraceGoal> trace;
  std::optional<DensityGoal> density;
  std::optional<ChangesGoal> changes;
  std::vector<FeatureResult>
      features;                    // what is known before: the parts are their parameters in use; none: no features
  std::int64_t max_products = 0;   // of each
  std::int64_t rest = 0;           // entries in none of them
  std::string overlap;             // a tensor that is in two of them; "": none is
  std::string off_block_obstacle;  // why their share of ‖H‖²_F can't be told; "": it can
};

struct Goals {
  Command command = Command::kAnalyze;
  std::int64_t n = 0;      // entries of a vector: parameters in use
  std::int64_t zeros = 0;  // further parameters, which the loss does not depend on: eigenvalues of zero

  // Lanczos runs. Probe 0's serves all goals.
  std::int64_t runs = 0;        // at least
  std::int64_t steps = 0;       // of each, at least
  std::int64_t most_steps = 0;  // of each, and of block and power runs
  bool reorthogonalize = true;
  std::string matrix = "Hessian";  // in texts
  bool semidefinite = false;       // no eigenvalue of it is negative
  std::uint64_t seed = 0;
  ProbeDistribution distribution = ProbeDistribution::kRademacher;

  double confidence = 0.9;
  double rounding = 0;            // relative, of the trace: 10 ε of the vectors' dtype, and the products' precision
  double eigen_error = 0;         // relative to the largest |λ|: what the products' precision adds to a residual
  bool data_error = true;         // groups of rows are told apart, where there are any
  double density_error = 0;       // in loss/parameter²: what it moves eigenvalues by, in the mean
  std::int64_t max_products = 0;  // of the whole run; 0: no limit

  std::optional<EigenGoal> eigen;
  std::optional<TraceGoal> trace;
  std::optional<DensityGoal> density;
  std::optional<BlocksGoal> blocks;  // set_blocks

  /// Of all parameters, those in use.
  double share_in_use() const { return static_cast<double>(n) / (static_cast<double>(n) + static_cast<double>(zeros)); }
  bool samples_trace() const { return trace && trace->sampled(); }
  bool deflates() const { return trace && trace->deflated(); }
  bool estimates_trace_by_itself() const { return trace && !trace->sampled(); }
  bool writes_diagonal() const { return samples_trace() && !trace->diagonal_file.empty(); }
  bool solves_by(EigenSolver solver) const { return eigen && eigen->solver == solver; }
  /// What of the trace's accuracy the samples have to reach: what the products' precision leaves of it, or where that
  /// takes most, half.
  double sampling_rtol() const;
  /// Products that are left of `max_products` when so many have been taken.
  std::int64_t products_left(std::int64_t used) const;
};

/// @param command  analyze, density, eigs, trace or features
/// @param n        parameters in use
/// @throws UsageError where --max-hvps is too few for what the command cannot do with fewer
Goals goals_of(Command command, const RunConfig& config, std::int64_t n);

/// Asks for blocks too. The share of ‖H‖²_F off them is from the trace's samples, of which a few more are taken then.
void set_blocks(Goals& goals, std::vector<Part> parts, const ParameterLayout& layout, std::int64_t max_products);

/// Asks for features instead of anything of the whole matrix: λ₁ and trace of each one's block, and the loss's changes.
/// @param features  what is known of them before
/// @param parts     of those that have parameters in use, by their names
void set_features(Goals& goals, const RunConfig& config, std::vector<FeatureResult> features, std::vector<Part> parts);

/// Takes into account what the precision of products was found to change: twice that, for it is one measurement.
void set_precision(Goals& goals, const PrecisionEffect& effect);

/// Products of one goal, as far as can be told by now.
struct ProductRange {
  std::int64_t least = 0, most = 0;
  ProductRange& operator+=(const ProductRange& other);
};

/// Products with a block or feature of so many parameters in use, losses not counted.
ProductRange products_with_block(const Goals& goals, std::int64_t parameters);

/// Positions of the goals' blocks in the order in which they are dealt: the largest first.
std::vector<std::size_t> blocks_in_turn(const BlocksGoal& blocks);

/// What the goals take, at most: products, steps, vectors.
Demand demand_of(const Goals& goals);

}  // namespace hesspect
