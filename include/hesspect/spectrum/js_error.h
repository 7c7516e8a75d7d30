// Jensen-Shannon distances of several spectra's densities, with the error that their probes leave.
//
// The divergence D of densities p and q changes by ∫ δp ½ log₂(2p/(p + q)) to first order, as the mean of a function
// over the spectrum would: its error is that mean's, over probes from three on, else a priori (reduced_probes.h). The
// noise of p and q makes D too large by about (1/(8 ln 2)) ∫ [Var p (2/p − 1/m) + Var q (2/q − 1/m)], m = (p + q)/2,
// which the interval's lower end has taken off. What too few steps leave open (the nodes' places), and the kernel, are
// not in it. Source: Lin, IEEE Trans. Inform. Theory 37, 1991; Efron & Stein, Ann. Statist. 9, 1981 (jackknife)
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hesspect/spectrum/estimates.h"

namespace hesspect {

struct JsDistance {
  double value = 0;
  double standard_error = 0;  // NaN: not known
  double lower = 0, upper = 1;
};

/// A spectrum that was sampled: its probes' quadratures, of n dimensions, and further eigenvalues of zero.
struct SampledSpectrum {
  std::span<const ProbeQuadrature> quadratures;
  std::int64_t n = 0;
  std::int64_t zeros = 0;
};

struct JsDistances {
  std::vector<std::vector<JsDistance>> each;  // [spectra][spectra]
  JsDistance mean;                            // over pairs
};

/// @param sigma  standard deviation of the kernel
/// @throws as density
JsDistances js_distances(std::span<const SampledSpectrum> spectra, double sigma, double confidence);

}  // namespace hesspect
