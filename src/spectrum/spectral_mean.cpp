#include "hesspect/spectrum/spectral_mean.h"

#include <algorithm>
#include <cmath>

#include "hesspect/core/errors.h"
#include "hesspect/spectrum/trace.h"
#include "reduced_probes.h"

namespace hesspect {
namespace {

/// What as many further copies of the exact points would move the mean by, as their own weights don't exclude: their
/// mass comes from the rest.
double moved_by_copies(const ReducedProbes& probes, const std::function<double(double)>& f, double confidence) {
  double weight = 0, most = 0;
  for (const ReducedProbe& probe : probes.all()) {
    const ReducedQuadrature& q = probe.reduced;
    double rest = 0;
    for (std::size_t k = 0; k < q.node.size(); ++k)
      if (q.exact[k] == 0)
        rest += q.weight[k] * f(q.node[k]) / probe.rest;
      else
        weight += probe.quadrature->weight[k] / static_cast<double>(probes.count());
    for (std::size_t k = 0; k < q.node.size(); ++k)
      if (q.exact[k] != 0) most = std::max(most, std::abs(f(q.node[k]) - rest));
  }
  const double n = probes.dimensions();
  return most / n *
         further_copies(probes.mean_points(), n * weight, static_cast<double>(probes.count()),
                        normal_quantile(confidence));
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
  if (!probes.exact()) result.sampling += moved_by_copies(probes, f, confidence);
  for (const ReducedProbe& probe : probes.all()) {
    result.products += static_cast<std::int64_t>(probe.quadrature->alpha.size());
    if (!probes.exact())
      result.quadrature +=
          MeasureBounds(*probe.quadrature, probe.reduced).distance(f) / static_cast<double>(probes.count());
  }
  return result;
}

}  // namespace hesspect
