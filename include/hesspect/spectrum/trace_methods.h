// Trace estimators that choose their own vectors: Hutch++, XTrace and XNysTrace. The default, Hutchinson on what a
// Krylov space leaves over, is in deflation.h.
#pragma once

#include <cstdint>
#include <functional>

#include "hesspect/core/random_probe.h"
#include "hesspect/krylov/linear_operator.h"
#include "hesspect/spectrum/estimates.h"

namespace hesspect {

struct TraceMethodOptions {
  ProbeDistribution distribution = ProbeDistribution::kRademacher;
  std::uint64_t seed = 0;
  std::uint64_t first_probe = 0;  // number of the first random vector
  double rtol = 0.01;             // of the confidence interval's half width over |value|; 0: max_products are taken
  double confidence = 0.9;
  std::int64_t max_products = 300;
};

/// Hutch++: a third of the products sketches the range, a third projects, a third is Hutchinson on the rest. Taken in
/// rounds, each half as large again as all before, until the interval is narrow enough or the products are spent.
/// Vectors of all rounds are kept: 2/3 · products of them; earlier samples count for the remainder that later rounds
/// leave. Collective over op.comm().
/// @param on_product  called on every rank after each block of products
/// Source: Meyer, Musco, Musco & Woodruff, Hutch++, SOSA 2021
TraceEstimate hutch_plus_plus(LinearOperator& op, const TraceMethodOptions& options,
                              const std::function<void()>& on_product = {});

/// XTrace: every random vector serves both the sketch and the residual, by leaving one out. The same rounds; one vector
/// is kept for each two products. Gaussian and spherical vectors give the paper's normalised variant, the better one;
/// the error is the spread of the leave-one-out estimates, made wider for what they share (xtrace.cpp). A symmetric,
/// definite or not. Collective over op.comm().
/// @throws UsageError for fewer than 4 products (Hutch++: 3); NumericalError on all ranks if a product is not finite
/// Source: Epperly, Tropp & Webber, XTrace, SIAM J. Matrix Anal. Appl. 45 (2024), §2.1, §2.3 and supplement (the O(n
/// m²) form)
TraceEstimate xtrace(LinearOperator& op, const TraceMethodOptions& options,
                     const std::function<void()>& on_product = {});

/// XNysTrace: the trace of Nyström approximations without one vector each, and what they leave of that. One vector is
/// kept for each product, and at most n are taken. A positive semi-definite. Vectors are spherical whatever the
/// options' distribution: that the error of a direction is known rests on it. Collective over op.comm().
/// @throws UsageError for fewer than 2 products; NumericalError on all ranks if a product is not finite, or A is not
///         positive semi-definite to rounding
/// Source: the same, §2.2 and supplement
TraceEstimate xnystrace(LinearOperator& op, const TraceMethodOptions& options,
                        const std::function<void()>& on_product = {});

}  // namespace hesspect
