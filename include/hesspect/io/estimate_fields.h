// The fields of what a run finds out, for fields.h.
#pragma once

#include "hesspect/io/fields.h"
#include "hesspect/spectrum/estimates.h"

namespace hesspect {

void fields(auto& v, Is<ProbeQuadrature> auto& q) {
  v("probe", q.probe, "alpha", q.alpha, "beta", q.beta, "beta_last", q.beta_last, "ritz", q.ritz, "weight", q.weight,
    "norm_sq", q.norm_sq, "breakdown", q.breakdown, "orthogonality_loss", q.orthogonality_loss);
}

void fields(auto& v, Is<EigenEstimate> auto& e) {
  v("value", e.value, "residual", e.residual, "true_residual", e.true_residual, "error", e.error, "converged",
    e.converged, "groups", e.groups, "data_bias", e.data_bias);
}

void fields(auto& v, Is<EigenResult> auto& e) {
  v("top", e.top, "bottom", e.bottom, "magnitude", e.magnitude, "steps", e.steps, "residual_products",
    e.residual_products, "thick_restarts", e.thick_restarts, "method", e.method, "converged", e.converged, "exhausted",
    e.exhausted, "captured", e.captured, "crossed", e.crossed);
}

/// TraceSample and DeflatedSample.
template <class Sample>
requires Is<Sample, TraceSample> || Is<Sample, DeflatedSample>
void fields(auto& v, Sample& s) {
  v("probe", s.probe, "quadratic_form", s.quadratic_form, "product_norm_sq", s.product_norm_sq, "layers", s.layers);
  if constexpr (Is<Sample, TraceSample>) v("groups", s.groups);
}

void fields(auto& v, Is<TraceEstimate> auto& t) {
  v("value", t.value, "standard_error", t.standard_error, "half_width", t.half_width, "confidence", t.confidence,
    "samples", t.samples, "products", t.products, "captured", t.captured, "deflated", t.deflated, "method", t.method,
    "converged", t.converged);
}

}  // namespace hesspect
