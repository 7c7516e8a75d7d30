#include "hesspect/spectrum/trace.h"

#include <cmath>

namespace hesspect {

TraceEstimate trace_from(std::span<const ProbeQuadrature> quadratures) {
  TraceEstimate trace;
  double sum = 0, square = 0;
  for (const ProbeQuadrature& quadrature : quadratures) {
    if (quadrature.alpha.empty()) continue;
    sum += quadrature.norm_sq * quadrature.alpha[0];
    ++trace.samples;
  }
  if (trace.samples == 0) return trace;
  const double count = static_cast<double>(trace.samples);
  trace.value = sum / count;
  if (trace.samples == 1) return trace;
  for (const ProbeQuadrature& quadrature : quadratures) {
    if (quadrature.alpha.empty()) continue;
    const double off = quadrature.norm_sq * quadrature.alpha[0] - trace.value;
    square += off * off;
  }
  trace.standard_error = std::sqrt(square / (count - 1) / count);
  return trace;
}

}  // namespace hesspect
