// What a probe's 2m moments say of its spectral measure μ between the nodes of its quadrature.
//
// With p_0 … p_m orthonormal for μ (their recurrence is T), no measure of these moments has more mass at x than
// λ(x) = 1 / Σ_j p_j(x)², Christoffel's function, and the cumulative ones of any two of them differ by no more there:
// it is a node's weight at that node and falls exponentially in the gaps of the spectrum. Between nodes θ_k and
// θ_{k+1} moreover F_{k−1} ≤ F_μ ≤ F_{k+1} (Chebyshev, Markov, Stieltjes), F_k the sum of the first k weights.
//
// Source: Szegő, Orthogonal Polynomials, §3.41; Akhiezer, The Classical Moment Problem, §2.5; Chen, Trogdon & Ubaru,
// arXiv:2105.06595, 2021, §4
#pragma once

#include <cstddef>
#include <functional>

#include "hesspect/spectrum/cumulative.h"
#include "hesspect/spectrum/estimates.h"

namespace hesspect {

/// How far the cumulative measure of a probe can be from that of its reduced quadrature. Borrows both.
class MeasureBounds {
 public:
  MeasureBounds(const ProbeQuadrature& quadrature, const ReducedQuadrature& reduced);

  /// F_q(x) − F_μ(x) at most, k the last node at or left of x; −1: none.
  double below(double x, std::ptrdiff_t k) const;
  /// F_μ(x) − F_q(x) at most; where x is the next node, of the limit from the left.
  double above(double x, std::ptrdiff_t k) const { return below(x, k + 1); }
  /// ∫ |F − F_μ| dλ at most, F that of the quadrature or of any measure with its moments, and Σ over exact points of
  /// their weights times their residuals.
  double w1() const {
    return distance([](double x) { return x; });
  }
  /// ∫ |F − F_q| |df| at most, F as there, of an f that is monotone: a bound of |∫ f dF − ∫ f dF_q|.
  double distance(const std::function<double(double)>& f) const;

 private:
  double christoffel(double x) const;
  double unknown(std::ptrdiff_t k) const;
  double integral(const std::function<double(double)>& f, double from, double width, double cap, bool both_ends) const;

  const ProbeQuadrature& quadrature_;
  const ReducedQuadrature& reduced_;
  double scale_ = 1;  // of the mass that is not exact: reduced over raw
};

}  // namespace hesspect
