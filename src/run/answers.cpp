#include "hesspect/run/answers.h"

#include <algorithm>
#include <cmath>

#include "hesspect/spectrum/cumulative.h"
#include "hesspect/spectrum/zero_eigenvalues.h"
#include "policies.h"

namespace hesspect {

DensityAnswer density_answer(const Goals& goals, const Ledger& ledger) {
  const Plan any;  // the answer does not depend on it
  const TracePolicy trace(goals, any);
  const DensityPolicy policy(goals, any, trace);
  DensityAnswer answer;
  const std::int64_t count = policy.wanted(ledger);
  for (std::int64_t p = 0; p < count; ++p) answer.quadratures.push_back(ledger.finished(p)->quadrature);
  if (!goals.density || answer.quadratures.empty()) return answer;
  answer.cumulative = with_zeros(
      cumulative_density(answer.quadratures, goals.n, {.confidence = goals.confidence, .moved = goals.density_error}),
      goals.n, goals.zeros);
  answer.cumulative.converged = goals.density->w1 <= 0 || policy.met(answer.cumulative);
  return answer;
}

TraceAnswer trace_answer(const Goals& goals, const Ledger& ledger) {
  const Plan any;
  const TracePolicy policy(goals, any);
  TraceAnswer answer;
  std::int64_t count = policy.enough(ledger);
  if (count == 0) count = static_cast<std::int64_t>(ledger.prefix().samples.size());
  const bool deflated = goals.deflates();
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t probe = ledger.order().probe(i);
    if (deflated) {
      answer.samples.push_back(*ledger.deflated(probe));
    } else {
      const TraceSample& sample = *ledger.sample(probe);
      answer.samples.push_back({sample.probe, sample.quadratic_form, sample.product_norm_sq, sample.layers});
    }
  }
  const TraceRule rule = policy.rule(ledger);
  answer.floor = rule.floor;
  TraceEstimate& estimate = answer.estimate;
  estimate = trace_estimate(deflated && ledger.deflation() ? ledger.deflation()->captured : 0, answer.samples, rule);
  estimate.method = to_string(goals.trace->method);
  estimate.half_width += goals.rounding * std::max(std::abs(estimate.value), answer.floor);
  if (deflated && ledger.deflation()) estimate.deflated = ledger.deflation()->rank;
  if (estimate.samples < rule.min_samples) estimate.converged = false;
  // What the products' precision leaves open no further sample mends.
  const double asked = goals.trace->rule.rtol * std::max(std::abs(estimate.value), answer.floor);
  if (goals.eigen_error > 0 && asked > 0 && estimate.half_width > asked) estimate.converged = false;
  estimate.products = std::max<std::int64_t>(0, count - ledger.order().free());
  return answer;
}

}  // namespace hesspect
