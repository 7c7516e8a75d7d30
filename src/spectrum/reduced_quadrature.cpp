#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/krylov/tridiagonal_eigen.h"
#include "hesspect/spectrum/cumulative.h"
#include "reduced_probes.h"

namespace hesspect {
namespace {

/// Residuals this much below the distance to the next node: the node's weight is then that of one eigenvalue to 1e-4.
constexpr double kFarBelow = 0.01;
/// The share of max |θ| that rounding of float32 products may add to a residual. It also keeps copies of one
/// eigenvalue, which come without re-orthogonalisation, from counting as points: they stand closer.
constexpr double kRounding = 1e-7;
/// n · weight of a simple eigenvalue is χ² of one degree and above this in 0.1 % of cases. Leaving those as they are
/// makes the mean weight of a simple eigenvalue 1 % more than 1/n.
constexpr double kMostOfOne = 10.83;
/// All points of a probe together weigh more than simple ones would by this many standard deviations: they are not
/// taken for simple.
constexpr double kMostOfAll = 2.5;

void check(const ProbeQuadrature& q, std::int64_t n) {
  const std::string probe = "the quadrature of probe " + std::to_string(q.probe);
  const std::size_t m = q.ritz.size();
  if (q.weight.size() != m || q.alpha.size() != m || q.beta.size() + 1 < m)
    throw UsageError(probe + " has " + std::to_string(m) + " nodes, " + std::to_string(q.weight.size()) + " weights, " +
                     std::to_string(q.alpha.size()) + " alpha and " + std::to_string(q.beta.size()) +
                     " beta: expected as many, and one beta less");
  if (n < 1) throw UsageError(probe + ": the operator must have at least 1 dimension, not " + std::to_string(n));
  for (std::size_t i = 0; i < m; ++i)
    for (const double value : {q.ritz[i], q.weight[i], q.alpha[i], i + 1 < m ? q.beta[i] : q.beta_last})
      if (!std::isfinite(value))
        throw NumericalError(
            static_cast<std::int64_t>(i), value,
            probe + ": a value of step " + std::to_string(i) + " is not finite (" + format_number(value) + ")");
}

}  // namespace

double node_gap(const std::vector<double>& node, std::size_t k) {
  double nearest = std::numeric_limits<double>::infinity();
  if (k > 0) nearest = std::min(nearest, node[k] - node[k - 1]);
  if (k + 1 < node.size()) nearest = std::min(nearest, node[k + 1] - node[k]);
  return nearest;
}

ReducedQuadrature reduced(const ProbeQuadrature& quadrature, std::int64_t n) {
  check(quadrature, n);
  const double dimensions = static_cast<double>(n);
  const std::size_t m = quadrature.ritz.size();
  ReducedQuadrature result{quadrature.ritz, quadrature.weight, std::vector<std::uint8_t>(m, 0), {}, 0};
  for (const double last : tridiagonal_eigen(quadrature.alpha, quadrature.beta).last)
    result.residual.push_back(quadrature.breakdown ? 0 : std::abs(quadrature.beta_last * last));
  if (m == 0) return result;
  if (quadrature.breakdown && (static_cast<std::int64_t>(m) == n || (m > 1 && quadrature.beta[m - 2] == 0))) {
    std::fill(result.weight.begin(), result.weight.end(), 1 / dimensions);
    std::fill(result.exact.begin(), result.exact.end(), std::uint8_t{1});
    result.points = n;
    // The last step, a block of its own, stands for all that is left over (all_found).
    const double last = quadrature.alpha.back();
    const auto node = std::min_element(quadrature.ritz.begin(), quadrature.ritz.end(),
                                       [&](double a, double b) { return std::abs(a - last) < std::abs(b - last); });
    result.weight[static_cast<std::size_t>(node - quadrature.ritz.begin())] +=
        static_cast<double>(n - static_cast<std::int64_t>(m)) / dimensions;
    return result;
  }
  const double scale = std::max(std::abs(quadrature.ritz.front()), std::abs(quadrature.ritz.back()));
  double rest = 0, centre = 0;
  for (std::size_t k = 0; k < m; ++k) {
    // Zero is the one value whose multiplicity is no accident: weights alone must not make it simple.
    if (m > 1 && result.residual[k] + kRounding * scale <= kFarBelow * node_gap(quadrature.ritz, k) &&
        dimensions * quadrature.weight[k] <= kMostOfOne && std::abs(quadrature.ritz[k]) > kZeroWidth * scale) {
      result.exact[k] = 1;
      ++result.points;
    } else {
      rest += quadrature.weight[k];
      centre += quadrature.weight[k] * quadrature.ritz[k];
    }
  }
  // Each point's surplus n·w − 1 has variance 2; weighed by how far it moves the mass.
  double surplus = 0, variance = 0;
  for (std::size_t k = 0; k < m && rest > 0; ++k)
    if (result.exact[k] != 0) {
      const double distance = std::abs(quadrature.ritz[k] - centre / rest);
      surplus += (dimensions * quadrature.weight[k] - 1) * distance;
      variance += 2 * distance * distance;
    }
  if (!(rest > 0) || result.points >= n || surplus > kMostOfAll * std::sqrt(variance)) {
    std::fill(result.exact.begin(), result.exact.end(), std::uint8_t{0});
    result.points = 0;
    return result;
  }
  const double share = 1 - static_cast<double>(result.points) / dimensions;
  for (std::size_t k = 0; k < m; ++k)
    result.weight[k] = result.exact[k] != 0 ? 1 / dimensions : quadrature.weight[k] * share / rest;
  return result;
}

double quadrature_w1(const ProbeQuadrature& quadrature, std::int64_t n) {
  const ReducedQuadrature points = reduced(quadrature, n);
  return MeasureBounds(quadrature, points).w1();
}

}  // namespace hesspect
