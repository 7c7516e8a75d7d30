// What random steps within some parameters do to the loss, and the mean over all directions with its interval.
//
// For s = δ u, u uniform on the unit sphere of n dimensions, the mean of (L(θ + s) + L(θ − s))/2 − L(θ) is δ² tr H / 2n
// as far as the loss is quadratic. The gradient's part cancels within each pair, exactly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace hesspect {

/// Measured at one relative size: steps of length ρ ‖θ_g‖.
struct RelativeChange {
  double rho = 0;
  std::vector<double> change;                               // [draws]: (L(θ + s) + L(θ − s))/2 − L(θ)
  double largest = 0;                                       // L(θ ± s) − L(θ) over all draws and both ways
  double along = std::numeric_limits<double>::quiet_NaN();  // the same along the first eigenvector
};

struct LossChanges {
  double loss = 0;                // L(θ)
  double norm = 0;                // ‖θ_g‖
  std::vector<double> curvature;  // [draws]: u'Hu
  std::vector<RelativeChange> at;
  std::int64_t losses = 0;  // forward passes over the data
};

struct ChangeEstimate {
  double value = 0;
  double half_width = 0;                           // NaN where it can't be told
  double predicted = 0, predicted_half_width = 0;  // δ² tr H / 2n
  bool controlled = false;                         // the quadratic form's part is from the trace
};

/// The mean change over all directions, with a Student interval over the draws.
///
/// Draws of u'Hu are skewed where few eigenvalues matter, and few of them have too narrow an interval. Their mean is
/// tr H / n, which is known better: where what the quadratic model leaves over spreads less than the changes
/// themselves, the mean is δ² tr H / 2n and the mean of that (a control variate of coefficient 1), and the trace's
/// interval is added. It stays a measurement: the model only takes out variance.
/// @param trace_half_width  0 where the trace is exact
/// @param rounding          of a loss
/// Source of control variates: Owen, Monte Carlo theory, methods and examples, 2013, §8.9
ChangeEstimate change_estimate(const LossChanges& changes, std::size_t at, std::int64_t n, double trace,
                               double trace_half_width, double confidence, double rounding);

}  // namespace hesspect
