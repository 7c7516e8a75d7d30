// What random steps within some parameters do to the loss, and the mean over all directions with its interval.
//
// For s = δ u, u uniform on the unit sphere of n dimensions, the mean of f(u) = (L(θ + s) + L(θ − s))/2 − L(θ) is
// δ² tr H / 2n as far as the loss is quadratic. The gradient's part cancels within each pair, exactly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace hesspect {

/// Measured at one relative size: steps of length δ = ρ ‖θ_g‖.
struct RelativeChange {
  double rho = 0;
  std::vector<double> change = {};                          // [draws]: f(u)
  double largest = 0;                                       // L(θ ± s) − L(θ) over all draws and both ways
  double along = std::numeric_limits<double>::quiet_NaN();  // the same along the first eigenvector v
  // What the steps' parts along v do alone: g(t) = (L(θ + δtv) + L(θ − δtv))/2 − L(θ). Both empty without v.
  std::vector<double> part = {};   // [draws]: g(v'u)
  std::vector<double> nodes = {};  // [kAlongNodes]: g at the nodes of component_rule
};

struct LossChanges {
  double loss = 0;                // L(θ)
  double norm = 0;                // ‖θ_g‖
  std::vector<double> curvature;  // [draws]: u'Hu
  std::vector<RelativeChange> at;
  std::int64_t losses = 0;             // forward passes over the data
  std::vector<double> component = {};  // [draws]: v'u; empty without v
  double largest_curvature = 0;        // v'Hv, as it is known; any number would do
};

/// Steps along the first eigenvector that its part of the mean is from.
inline constexpr std::size_t kAlongNodes = 6;

/// Gauss's rule for the mean of an even function of one component t of a random unit vector of n ≥ 2 dimensions:
/// t² has the density x^(−1/2) (1 − x)^((n − 3)/2). Exact for polynomials in t² of degree 2m − 1.
struct ComponentRule {
  std::vector<double> node;    // [m], in (0, 1], ascending
  std::vector<double> weight;  // [m], of sum 1
  /// Σ w g and, as a measure of what it leaves open, the size of g's last coefficient that the nodes tell.
  struct Mean {
    double value = 0, error = 0;
  };
  Mean mean(const std::vector<double>& values) const;
  std::vector<double> last;  // [m]: the orthonormal polynomial of degree m − 1 in t² at the nodes
};
/// Source: Golub & Welsch, Calculation of Gauss quadrature rules, 1969; Jacobi's polynomials
ComponentRule component_rule(std::int64_t n, std::size_t nodes);

/// The wider side of an interval from a few draws of a law that may be skewed.
///
/// With T the studentised mean of draws of z⁴, z normal, P[T < −reach] = (1 − confidence)/2: as where all of f is the
/// fourth power of one direction's component. By simulation with a seed of its own.
struct SkewedReach {
  std::int64_t draws = 0;
  double confidence = 0.9;
  double student = std::numeric_limits<double>::quiet_NaN();  // quantile; NaN for fewer than kLeastDraws
  double reach = std::numeric_limits<double>::quiet_NaN();    // never less

  SkewedReach(std::int64_t draws_made, double confidence_asked);
  /// In standard errors, on the side of the tail. @param skewness  of the draws, of the largest that so many can have
  double towards_tail(double skewness) const;
};

/// With fewer draws nothing is said.
inline constexpr std::int64_t kLeastDraws = 4;

struct ChangeEstimate {
  double value = 0;
  double lower = 0, upper = 0;                     // NaN where they can't be told
  double skewness = 0;                             // of what was averaged, −1 to 1: of the largest possible; NaN
  double predicted = 0, predicted_half_width = 0;  // δ² tr H / 2n
  bool controlled = false;                         // the quadratic form's part is from the trace
  bool along_apart = false;                        // what the first eigenvector adds is from its own rule
};

/// The mean change over all directions.
///
/// Draws of u'Hu are skewed where few eigenvalues matter, and few of them have too narrow an interval. Their mean is
/// tr H / n, which is known better; and what the part along the first eigenvector v does, g(v'u), has a mean that a
/// rule of a few nodes knows. Either, both or none is taken out of f (control variates of coefficient 1), whichever
/// leaves the narrowest, and its mean is put back, with its own error. It stays a measurement: H and v only take out
/// variance. What is left has Student's interval, with the side of its tail widened the more, the more skewed the draws
/// are, to that of a law as skewed as z⁴.
/// @param trace_half_width  0 where the trace is exact
/// @param reach     of as many draws
/// @param rounding  of a loss
/// Source of control variates: Owen, Monte Carlo theory, methods and examples, 2013, §8.9
ChangeEstimate change_estimate(const LossChanges& changes, std::size_t at, std::int64_t n, double trace,
                               double trace_half_width, const SkewedReach& reach, double rounding);

}  // namespace hesspect
