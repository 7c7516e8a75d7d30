// The fields of what a run finds out, for fields.h.
#pragma once

#include "hesspect/io/fields.h"
#include "hesspect/spectrum/estimates.h"

namespace hesspect {

void fields(auto& v, Is<ProbeQuadrature> auto& q) {
  v("probe", q.probe);
  v("alpha", q.alpha);
  v("beta", q.beta);
  v("beta_last", q.beta_last);
  v("ritz", q.ritz);
  v("weight", q.weight);
  v("norm_sq", q.norm_sq);
  v("breakdown", q.breakdown);
  v("orthogonality_loss", q.orthogonality_loss);
}

void fields(auto& v, Is<EigenEstimate> auto& e) {
  v("value", e.value);
  v("residual", e.residual);
  v("true_residual", e.true_residual);
  v("error", e.error);
  v("converged", e.converged);
}

void fields(auto& v, Is<EigenResult> auto& e) {
  v("top", e.top);
  v("bottom", e.bottom);
  v("magnitude", e.magnitude);
  v("steps", e.steps);
  v("residual_products", e.residual_products);
  v("thick_restarts", e.thick_restarts);
  v("method", e.method);
  v("converged", e.converged);
  v("exhausted", e.exhausted);
}

/// TraceSample and DeflatedSample.
template <class Sample>
requires Is<Sample, TraceSample> || Is<Sample, DeflatedSample>
void fields(auto& v, Sample& s) {
  v("probe", s.probe);
  v("quadratic_form", s.quadratic_form);
  v("product_norm_sq", s.product_norm_sq);
  v("layers", s.layers);
}

void fields(auto& v, Is<TraceEstimate> auto& t) {
  v("value", t.value);
  v("standard_error", t.standard_error);
  v("half_width", t.half_width);
  v("confidence", t.confidence);
  v("samples", t.samples);
  v("products", t.products);
  v("captured", t.captured);
  v("deflated", t.deflated);
  v("method", t.method);
  v("converged", t.converged);
}

}  // namespace hesspect
