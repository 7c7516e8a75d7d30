#include "hesspect/spectrum/spectral_mean.h"

#include <cmath>

#include "hesspect/core/errors.h"
#include "hesspect/spectrum/trace.h"
#include "reduced_probes.h"

namespace hesspect {
namespace {

/// What as many further copies of a probe's exact points would move the mean by, as their own weights don't exclude:
/// Σ |f(θ_{k+1}) − f(θ_k)| times the copies beyond that gap, whose mass comes from the rest (cumulative.cpp has the
/// same for f(λ) = λ).
double moved_by_copies(const ReducedProbe& probe, const ReducedProbes& probes, const std::function<double(double)>& f,
                       double quantile) {
  const ReducedQuadrature& q = probe.reduced;
  double all_points = 0, all_weight = 0;
  for (std::size_t k = 0; k < q.node.size(); ++k)
    if (q.exact[k] != 0) {
      ++all_points;
      all_weight += probe.quadrature->weight[k];
    }
  const double n = probes.dimensions(), count = static_cast<double>(probes.count());
  double points = 0, weight = 0, rest = 0, moved = 0;
  for (std::size_t k = 0; k + 1 < q.node.size(); ++k) {
    if (q.exact[k] != 0) {
      ++points;
      weight += probe.quadrature->weight[k];
    } else {
      rest += q.weight[k];
    }
    const bool left = rest < probe.rest / 2;
    const double copies = left ? further_copies(points, n * weight, count, quantile)
                               : further_copies(all_points - points, n * (all_weight - weight), count, quantile);
    moved += copies / n * std::abs(f(q.node[k + 1]) - f(q.node[k]));
  }
  return moved;
}

}  // namespace

SpectralMean spectral_mean(std::span<const ProbeQuadrature> quadratures, std::int64_t n,
                           const std::function<double(double)>& f, double confidence) {
  const ReducedProbes probes(quadratures, n);
  if (probes.count() == 0) throw UsageError("a mean over the spectrum needs a probe with at least one step");
  const Estimate mean = probes.mean_of(f);
  SpectralMean result;
  result.value = mean.value;
  result.sampling = mean.standard_error * (probes.jackknife() ? student_quantile(confidence, probes.count() - 1)
                                                              : normal_quantile(confidence));
  const double count = static_cast<double>(probes.count()), quantile = normal_quantile(confidence);
  for (const ReducedProbe& probe : probes.all()) {
    result.products += static_cast<std::int64_t>(probe.quadrature->alpha.size());
    if (probes.exact()) continue;
    result.sampling += moved_by_copies(probe, probes, f, quantile) / count;
    result.quadrature += MeasureBounds(*probe.quadrature, probe.reduced).distance(f) / count;
  }
  return result;
}

}  // namespace hesspect
