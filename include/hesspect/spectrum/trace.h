// The trace from the probes' first products.
#pragma once

#include <span>

#include "hesspect/spectrum/estimates.h"

namespace hesspect {

/// Hutchinson's estimate: the mean over probes of zᵀAz = zᵀz · α_0, unbiased since E[zzᵀ] = I, and its standard error
/// (sample standard deviation / √P). One probe alone tells nothing of its error: samples = 1, standard_error = 0.
/// Source: Hutchinson, Commun. Stat. Simul. Comput. 18 (1989)
TraceEstimate trace_from(std::span<const ProbeQuadrature> quadratures);

}  // namespace hesspect
