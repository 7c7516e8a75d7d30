// Eigenvalues, trace, density and norm of one operator, from one Lanczos run and a few random vectors, within a number
// of products.
//
// It is what a run does for a diagonal block, all in a row on one group. (What it does for the whole matrix is dealt
// out to several groups, and may stop between any two products: room `run`.)
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "hesspect/core/random_probe.h"
#include "hesspect/krylov/linear_operator.h"
#include "hesspect/spectrum/eigenvalues.h"
#include "hesspect/spectrum/estimates.h"
#include "hesspect/spectrum/trace.h"

namespace hesspect {

/// Samples of ‖H‖²_F that are taken at least where it is wanted.
inline constexpr std::int64_t kNormSamples = 6;

struct AnalysisOptions {
  bool eigenvalues = true, trace = true, density = true;
  bool true_residuals = true;
  EigenOptions eigen;        // seed and max_steps are set here
  std::int64_t probes = 1;   // Lanczos runs at least, as far as max_products goes
  std::int64_t steps = 80;   // of each, at least
  double density_w1 = 0;     // as DensityGoal
  double density_error = 0;  // likewise
  TraceRule rule;            // of the trace; its floor is found here
  LanczosOptions lanczos;    // full re-orthogonalisation
  ProbeDistribution distribution = ProbeDistribution::kRademacher;
  std::uint64_t seed = 0;
  std::int64_t max_products = 200;  // those of true residuals included
};

/// Where the Lanczos run has found all eigenvalues there are neither samples nor further runs.
struct Analysis {
  std::vector<ProbeQuadrature> quadratures;
  std::optional<EigenResult> eigenvalues;
  std::vector<DeflatedSample> samples;
  double captured = 0;     // of the trace
  double captured_sq = 0;  // of ‖H‖²_F
  std::int64_t deflated = 0;
  bool all_found = false;
  std::int64_t products = 0;
};

/// Collective over op.comm().
/// @param on_product  called on every rank between products
/// @throws as Lanczos::extend
Analysis analyse(LinearOperator& op, const AnalysisOptions& options, const std::function<void()>& on_product = {});

/// The trace of what was analysed. @param rounding  relative, added to the interval
TraceEstimate trace_of(const Analysis& analysis, std::int64_t n, TraceRule rule, double rounding);

/// ‖H‖²_F = ‖T‖²_F + 2 ‖t‖² + E ‖PHPz‖² (names as in deflation.h), and its standard error over samples.
Estimate norm_sq_of(double captured_sq, const std::vector<DeflatedSample>& samples);
Estimate norm_sq_of(const Analysis& analysis, std::int64_t n);

/// The share of ‖H‖²_F that lies outside diagonal blocks: 1 − Σ ‖H_bb‖²_F / ‖H‖²_F. The errors are taken as
/// independent.
Estimate off_block_share(const Estimate& whole, const std::vector<Estimate>& blocks);

/// The Jensen–Shannon distance of two densities: the square root of the divergence in bits, between 0 (the same) and 1
/// (nothing in common). Both are taken as linear between the points of their grids, and 0 outside.
/// Source: Lin, IEEE Trans. Inform. Theory 37, 1991; Endres & Schindelin, ibid. 49, 2003
double js_distance(const Density& a, const Density& b);

}  // namespace hesspect
