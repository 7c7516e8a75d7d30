// What a result holds of diagonal blocks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "hesspect/spectrum/estimates.h"

namespace hesspect {

/// One diagonal block. What was not asked for is not there.
struct BlockResult {
  std::string name;
  std::int64_t parameters = 0;
  std::int64_t unused = 0;           // of them in rows of tables that the data don't use: eigenvalues of zero
  std::vector<std::string> tensors;  // that it has entries of
  std::optional<Density> density;
  std::optional<CumulativeDensity> cumulative;
  std::optional<EigenResult> eigenvalues;
  std::optional<TraceEstimate> trace;
  Estimate norm_sq{kUnknown, kUnknown};  // ‖H_bb‖²_F
  std::vector<ProbeQuadrature> quadrature;
  std::int64_t products = 0;
  double product_s = 0;

  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  /// Dimensions that the quadratures are of, and further eigenvalues of zero.
  std::int64_t sampled() const { return std::max<std::int64_t>(1, parameters - unused); }
  std::int64_t zeros() const { return parameters - sampled(); }
  /// The largest and the smallest eigenvalue; NaN where they are not among those that were asked for.
  Estimate largest() const { return at_end(/*largest=*/true); }
  Estimate smallest() const { return at_end(/*largest=*/false); }
  /// Standard errors, as everywhere.
  Estimate trace_estimate() const {
    return trace ? Estimate{trace->value, trace->standard_error} : Estimate{kUnknown, kUnknown};
  }
  Estimate mean() const {  // of the diagonal
    const auto n = static_cast<double>(parameters);
    return {trace_estimate().value / n, trace_estimate().standard_error / n};
  }

 private:
  Estimate at_end(bool largest) const {
    if (!eigenvalues) return {kUnknown, kUnknown};
    const auto &top = eigenvalues->top, &bottom = eigenvalues->bottom;
    // The lists don't overlap: where one has all there are, the other is empty.
    const bool is_whole = static_cast<std::int64_t>(top.size() + bottom.size()) == parameters;
    const auto& own = largest ? top : bottom;
    const auto& list = own.empty() && is_whole ? (largest ? bottom : top) : own;
    if (list.empty()) return {kUnknown, kUnknown};
    const EigenEstimate& one = largest ? list.front() : list.back();
    return {one.value, one.error};
  }
};

/// What they are together.
struct BlocksResult {
  static constexpr double kUnknown = BlockResult::kUnknown;

  std::vector<BlockResult> each;
  std::int64_t rest = 0;                         // parameters in none of them
  Estimate norm_sq{kUnknown, kUnknown};          // ‖H‖²_F of the whole matrix
  Estimate off_block_share{kUnknown, kUnknown};  // of it outside the blocks
  std::string off_block_obstacle;                // why that is not known; "": it is
  std::vector<std::vector<double>> js_distance;  // [blocks][blocks]; NaN where there are no densities
  /// Its standard error and interval at the density's confidence, over probes; NaN: not known.
  std::vector<std::vector<double>> js_error, js_lower, js_upper;
  double js_mean = kUnknown;  // over pairs
  double js_mean_error = kUnknown, js_mean_lower = kUnknown, js_mean_upper = kUnknown;
  double js_sigma = kUnknown;  // of the kernel
};

}  // namespace hesspect
