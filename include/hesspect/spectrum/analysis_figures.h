// What an analysis found (analysis.h), and the figures that are drawn from it. Knows no operator.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "hesspect/spectrum/estimates.h"
#include "hesspect/spectrum/trace.h"

namespace hesspect {

/// Samples of ‖H‖²_F that are taken at least where it is wanted.
inline constexpr std::int64_t kNormSamples = 6;

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
