// By how much the trace has changed from one matrix to the next of a slowly changing sequence.
//
// Both traces are means over random vectors, and where these are the same vectors, the difference of two samples,
//   zᵀA₂z − zᵀA₁z = zᵀ(A₂ − A₁)z,
// is a sample of the change whose variance, 2‖A₂ − A₁‖_F² at most, knows nothing of what the matrices have in common.
// It takes no product: both samples are there. (Estimates with fresh vectors at each matrix take the product with the
// one before again.) Samples of what a Krylov space leaves over count with what that space has: each is unbiased.
//
// Source: Dharangutte & Musco, Dynamic Trace Estimation, NeurIPS 2021 (arXiv 2110.13752), §3
#pragma once

#include <cstdint>
#include <limits>
#include <span>

#include "hesspect/spectrum/estimates.h"

namespace hesspect {

struct TraceChange {
  double value = std::numeric_limits<double>::quiet_NaN();
  double standard_error = std::numeric_limits<double>::quiet_NaN();
  double half_width = std::numeric_limits<double>::quiet_NaN();  // of the confidence interval
  std::int64_t probes = 0;  // random vectors that both have, and that the change is from; 0: the traces' difference
};

/// A trace and the samples that it is the mean of, whose probes of the same number are the same vectors in both.
struct SampledTrace {
  TraceEstimate trace;
  std::span<const DeflatedSample> samples;  // captured part not included; none: of a method without samples
};

/// The change by the vectors that both have; or the difference of the two traces as if these were independent, where
/// that is known better: few vectors in common, or matrices that have little in common.
///
/// The paired samples' error is by their own spread (Student's t), from three on, or by the two norms
/// 2(‖B₁‖_F² + ‖B₂‖_F²), B what is sampled, which is what matrices without anything in common would have, whichever
/// gives the narrower interval. Intervals are widened as the trace's are.
TraceChange trace_change(const SampledTrace& before, const SampledTrace& now);

}  // namespace hesspect
