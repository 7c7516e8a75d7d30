// Where the rule of the trace stops.
#pragma once

#include <cstdint>
#include <span>

#include "hesspect/spectrum/trace.h"

namespace hesspect::testing {

/// How many of the samples, in their order, the rule needs. @return 0 where all together don't suffice
inline std::int64_t samples_needed(double captured, std::span<const DeflatedSample> samples, const TraceRule& rule) {
  TraceSums sums;
  for (const DeflatedSample& sample : samples) {
    sums.add(sample);
    if (sums.enough(captured, rule)) return sums.count();
  }
  return 0;
}

}  // namespace hesspect::testing
