#include "hesspect/krylov/ghosts.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "hesspect/krylov/tridiagonal_eigen.h"

namespace hesspect {
namespace {

/// |x − the nearest of `values`|, ascending; infinity where there is none.
double distance(const std::vector<double>& values, double x) {
  double nearest = std::numeric_limits<double>::infinity();
  const auto above = std::ranges::lower_bound(values, x);
  if (above != values.end()) nearest = *above - x;
  if (above != values.begin()) nearest = std::min(nearest, x - *std::prev(above));
  return nearest;
}

/// |θ_i − the nearest value of larger weight|.
double distance_to_heavier(const TridiagonalEigen& eigen, std::size_t i) {
  double nearest = std::numeric_limits<double>::infinity();
  for (std::size_t j = 0; j < eigen.values.size(); ++j)
    if (std::abs(eigen.first[j]) > std::abs(eigen.first[i]))
      nearest = std::min(nearest, std::abs(eigen.values[j] - eigen.values[i]));
  return nearest;
}

}  // namespace

std::vector<RitzPair> genuine_ritz_pairs(std::span<const double> alpha, std::span<const double> beta,
                                         double tolerance) {
  std::vector<RitzPair> genuine;
  const std::size_t m = alpha.size();
  if (m == 0) return genuine;
  const TridiagonalEigen eigen = tridiagonal_eigen(alpha, beta);
  const std::vector<double> shorter = tridiagonal_eigen(alpha.subspan(1), beta.subspan(1)).values;
  const std::vector<double>& theta = eigen.values;
  const double exact = static_cast<double>(m) * 10 * std::numeric_limits<double>::epsilon() *
                       std::max(std::abs(theta.front()), std::abs(theta.back()));
  tolerance = std::max(tolerance, exact);

  for (std::size_t i = 0, end = 0; i < m; i = end) {
    for (end = i + 1; end < m && theta[end] - theta[end - 1] <= tolerance;) ++end;
    const double apart = distance(shorter, theta[i]);
    const bool spurious =
        end == i + 1 && (apart <= exact || apart * distance_to_heavier(eigen, i) <= tolerance * tolerance);
    if (spurious) continue;
    RitzPair best{theta[i], std::numeric_limits<double>::infinity(), 0, 0};
    double weight = 0;
    for (std::size_t j = i; j < end; ++j) {
      const double residual = std::abs(beta[m - 1] * eigen.last[j]);
      weight += eigen.first[j] * eigen.first[j];
      if (residual < best.residual) best = {theta[j], residual, 0, 0};
    }
    if (end > i + 1) best.residual = std::min(best.residual, theta[end - 1] - theta[i]);
    best.first = std::sqrt(weight);
    genuine.push_back(best);
  }
  return genuine;
}

}  // namespace hesspect
