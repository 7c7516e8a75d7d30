#include "christoffel.h"

#include <algorithm>
#include <cmath>

namespace hesspect {
namespace {

constexpr double kNoMass = 1e250;  // Σ p_j² beyond it: λ(x) is nothing, and the recurrence would overflow
constexpr int kFinest = 14;  // intervals are cut at 2⁻¹⁴ … ½ of their width: λ(x) is steep near converged nodes
constexpr int kReach = 6;    // outside the nodes up to 2⁶ times their range

}  // namespace

MeasureBounds::MeasureBounds(const ProbeQuadrature& quadrature, const ReducedQuadrature& reduced)
    : quadrature_(quadrature), reduced_(reduced) {
  double raw = 0, kept = 0;
  for (std::size_t k = 0; k < reduced.node.size(); ++k)
    if (reduced.exact[k] == 0) {
      raw += quadrature.weight[k];
      kept += reduced.weight[k];
    }
  if (raw > 0) scale_ = kept / raw;
}

double MeasureBounds::christoffel(double x) const {
  if (quadrature_.breakdown || !(quadrature_.beta_last > 0)) return 0;  // the quadrature is the measure
  const std::vector<double>& alpha = quadrature_.alpha;
  double before = 0, p = 1, sum = 1, beta_before = 0;
  for (std::size_t j = 0; j < alpha.size(); ++j) {
    const double beta = j + 1 < alpha.size() ? quadrature_.beta[j] : quadrature_.beta_last;
    const double next = ((x - alpha[j]) * p - beta_before * before) / beta;
    before = p;
    p = next;
    beta_before = beta;
    sum += p * p;
    if (!(sum < kNoMass)) return 0;
  }
  return scale_ / sum;
}

double MeasureBounds::unknown(std::ptrdiff_t k) const {
  const auto i = static_cast<std::size_t>(k);
  return k < 0 || i >= reduced_.node.size() || reduced_.exact[i] != 0 ? 0 : reduced_.weight[i];
}

double MeasureBounds::below(double x, std::ptrdiff_t k) const {
  const double most = unknown(k);
  return most > 0 ? std::min(most, christoffel(x)) : 0;
}

/// ∫ min(cap, λ) |df| over [from, from + width] by the trapezoidal rule on points that crowd at `from`, or at both
/// ends.
double MeasureBounds::integral(const std::function<double(double)>& f, double from, double width, double cap,
                               bool both_ends) const {
  if (!(cap > 0) || width == 0) return 0;
  double sum = 0, last_f = f(from), last = std::min(cap, christoffel(from));
  const auto to = [&](double at) {
    const double x = from + at * width, value = std::min(cap, christoffel(x)), f_here = f(x);
    sum += std::abs(f_here - last_f) * (value + last) / 2;
    last_f = f_here;
    last = value;
  };
  for (int j = kFinest; j >= 1; --j) to(std::ldexp(1.0, -j));
  if (both_ends)
    for (int j = 2; j <= kFinest; ++j) to(1 - std::ldexp(1.0, -j));
  to(1);
  return sum;
}

double MeasureBounds::distance(const std::function<double(double)>& f) const {
  const std::vector<double>& node = reduced_.node;
  if (node.empty()) return 0;
  double sum = 0;
  for (std::size_t k = 0; k < node.size(); ++k) {
    const auto at = static_cast<std::ptrdiff_t>(k);
    if (k + 1 < node.size()) sum += integral(f, node[k], node[k + 1] - node[k], unknown(at) + unknown(at + 1), true);
    const double residual = reduced_.residual[k];
    if (reduced_.exact[k] != 0) sum += reduced_.weight[k] * std::abs(f(node[k] + residual) - f(node[k] - residual)) / 2;
  }
  double width = std::max(node.back() - node.front(), quadrature_.beta_last);
  for (int j = 0; j <= kReach; ++j, width *= 2) {
    const double from = j == 0 ? 0 : width / 2, over = j == 0 ? width : width / 2;
    sum += integral(f, node.front() - from, -over, unknown(0), false);
    sum += integral(f, node.back() + from, over, unknown(static_cast<std::ptrdiff_t>(node.size()) - 1), false);
  }
  return sum;
}

}  // namespace hesspect
