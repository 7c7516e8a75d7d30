// The canonical rules of a probe's moments, averaged.
//
// T bordered by β_m and a last diagonal entry a has m + 1 nodes and the same moments as μ, whatever a is, and by T's
// eigenvectors it is an arrow: diagonal θ, row r_k = ± β_m s_mk, corner a. Its eigenvalues solve
// ν − a = Σ r_k² / (ν − θ_k), one between each two θ; a vector with parts u_k weighs (Σ u_k r_k / (ν − θ_k))² /
// (1 + Σ r_k² / (ν − θ_k)²) there.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <utility>

#include "hesspect/spectrum/cumulative.h"
#include "reduced_probes.h"

namespace hesspect {
namespace {

constexpr int kMostSteps = 100;
constexpr double kSettled = 1.0 / (std::uint64_t{1} << 52);
/// A node whose residual is this far below its distance to the next is none of the arrow's: it stays where it is, with
/// its weight, to some 1e-10 of both.
constexpr double kStays = 1e-5;
/// Nodes of less weight are put to their left neighbour: in the gaps of the spectrum the rules have some of weight
/// 1e-30.
constexpr double kNoWeight = 1e-10;

/// What of T's spectral decomposition takes part.
struct Arrow {
  std::vector<double> node, row, part;  // θ, r and u with their signs

  /// f(ν) = ν − a − Σ r² / (ν − θ), which grows between two poles, at θ[pole] + offset.
  double value(std::size_t pole, double offset, double corner) const {
    double sum = node[pole] + offset - corner;
    for (std::size_t k = 0; k < node.size(); ++k) sum -= row[k] * row[k] / ((node[pole] - node[k]) + offset);
    return sum;
  }

  double weight(std::size_t pole, double offset) const {
    double along = 0, norm = 1;
    for (std::size_t k = 0; k < node.size(); ++k) {
      const double component = row[k] / ((node[pole] - node[k]) + offset);
      along += part[k] * component;
      norm += component * component;
    }
    return along * along / norm;
  }

  /// The zero of f at θ[pole] + t·reach, 0 < t ≤ 1: small offsets keep their digits. t f has no pole at 0, so that
  /// Newton's method on it takes a few steps; where one would leave the bracket, this is halved.
  double offset_of_zero(std::size_t pole, double reach, double corner) const {
    const double sign = reach > 0 ? 1 : -1;  // times f it grows with t
    double near = 0, far = 1, t = 0.5;
    for (int i = 0; i < kMostSteps; ++i) {
      double f = node[pole] + t * reach - corner, slope = 1;
      for (std::size_t k = 0; k < node.size(); ++k) {
        const double component = row[k] / ((node[pole] - node[k]) + t * reach);
        f -= row[k] * component;
        slope += component * component;
      }
      (sign * f > 0 ? far : near) = t;
      double next = t - t * f / (f + t * slope * reach);
      if (!(near < next && next < far)) next = (near + far) / 2;
      const double moved = std::abs(next - t);
      t = next;
      if (moved <= kSettled) break;
    }
    return t * reach;
  }
};

Arrow arrow_of(const ReducedQuadrature& q) {
  Arrow arrow;
  for (std::size_t k = 0; k < q.node.size(); ++k) {
    const double gap = node_gap(q.node, k);
    if (std::isfinite(gap) && q.residual[k] <= kStays * gap) continue;
    arrow.node.push_back(q.node[k]);
    arrow.row.push_back(q.residual[k]);
    // First and last components of T's eigenvectors have the same and opposite signs in turn.
    arrow.part.push_back(q.exact[k] != 0 ? 0 : (k % 2 == 0 ? 1 : -1) * std::sqrt(q.weight[k]));
  }
  return arrow;
}

/// The arrow's eigenvalues for one corner, with weights.
void append_rule(const Arrow& arrow, double corner, double reach, double share,
                 std::vector<std::pair<double, double>>& points) {
  const std::size_t m = arrow.node.size();
  const auto append = [&](std::size_t pole, double to) {
    const double offset = arrow.offset_of_zero(pole, to, corner);
    points.emplace_back(arrow.node[pole] + offset, share * arrow.weight(pole, offset));
  };
  append(0, -reach);
  for (std::size_t k = 0; k + 1 < m; ++k) {
    const double half = (arrow.node[k + 1] - arrow.node[k]) / 2;
    // From the pole that the zero is nearer to.
    if (arrow.value(k, half, corner) > 0)
      append(k, half);
    else
      append(k + 1, -half);
  }
  append(m - 1, reach);
}

}  // namespace

AveragedQuadrature averaged(const ProbeQuadrature& quadrature, const ReducedQuadrature& reduced, int rules) {
  std::vector<std::pair<double, double>> points;
  const Arrow arrow = quadrature.breakdown || !(quadrature.beta_last > 0) || rules < 1 ? Arrow{} : arrow_of(reduced);
  for (std::size_t k = 0, a = 0; k < reduced.node.size(); ++k) {
    const bool taken = a < arrow.node.size() && arrow.node[a] == reduced.node[k];
    if (taken) ++a;
    if (!taken || reduced.exact[k] != 0) points.emplace_back(reduced.node[k], reduced.weight[k]);
  }
  if (!arrow.node.empty()) {
    const double width = arrow.node.back() - arrow.node.front() + quadrature.beta_last;
    for (int i = 0; i < rules; ++i) {
      // The spectrum of a matrix that goes on with the last α and β has its corner there: Cauchy's distribution.
      const double cotangent = 1 / std::tan(std::numbers::pi * (i + 0.5) / rules);
      const double corner = quadrature.alpha.back() + quadrature.beta_last * cotangent;
      double row = 0;
      for (const double r : arrow.row) row += r * r;
      const double reach =
          width + std::sqrt(row) + std::abs(corner - arrow.node.front()) + std::abs(corner - arrow.node.back());
      append_rule(arrow, corner, reach, 1.0 / rules, points);
    }
  }
  // Rules have a node outside each end. What lies beyond the ends' own residuals is put there.
  const double lo = reduced.node.empty() ? 0 : reduced.node.front() - reduced.residual.front();
  const double hi = reduced.node.empty() ? 0 : reduced.node.back() + reduced.residual.back();
  for (auto& [node, weight] : points) node = std::clamp(node, lo, hi);
  std::sort(points.begin(), points.end());
  AveragedQuadrature result;
  for (const auto& [node, weight] : points) {
    if (weight < kNoWeight && !result.weight.empty()) {
      result.weight.back() += weight;
    } else {
      result.node.push_back(node);
      result.weight.push_back(weight);
    }
  }
  return result;
}

}  // namespace hesspect
