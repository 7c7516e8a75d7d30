// The cumulative density between its edges: shares, and the power law of the bulk.
#pragma once

#include <cstdint>

#include "hesspect/report/figures.h"

namespace hesspect {

struct BandedShare {
  double value = 0, lower = 0, upper = 1;
};

/// F(x) and its band.
BandedShare share_up_to(const CumulativeDensity& density, double x);

/// ∫ |F_a − F_b| dλ: the Wasserstein-1 distance between two spectra, in units of λ. Both are divided by a scale first.
double wasserstein_distance(const CumulativeDensity& a, const CumulativeDensity& b, double scale_a = 1,
                            double scale_b = 1);

/// "bulk_exponent": the slope −1/s of log #{λ' > λ} against log λ, over [max(edge/1000, 100 floor), edge].
Figure bulk_exponent(const CumulativeDensity& density, std::int64_t n, double edge, double floor);

}  // namespace hesspect
