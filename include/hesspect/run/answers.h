// The answers that a run's ledger holds, as its policies take them from it: for the result.
#pragma once

#include <vector>

#include "hesspect/run/ledger.h"

namespace hesspect {

/// The Lanczos runs that count.
struct DensityAnswer {
  std::vector<ProbeQuadrature> quadratures;
  CumulativeDensity cumulative;  // where a density is asked for
};

/// The samples that count.
struct TraceAnswer {
  TraceEstimate estimate;
  double floor = 0;  // what its accuracy is relative to at least (trace_floor)
  std::vector<DeflatedSample> samples;
};

DensityAnswer density_answer(const Goals& goals, const Ledger& ledger);
/// Of a sampled trace. Of the samples that there are, where they are not enough.
TraceAnswer trace_answer(const Goals& goals, const Ledger& ledger);

}  // namespace hesspect
