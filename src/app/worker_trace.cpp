// A group's products for the trace, the layers and the diagonal.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/spectrum/trace_methods.h"
#include "worker.h"

namespace hesspect {

void Worker::trace_products(const std::vector<std::int64_t>& probes) {
  std::vector<at::Tensor> z, hz;
  agree(comm_, [&] {
    for (std::size_t i = 0; i < probes.size(); ++i) hz.push_back(at::zeros({op_.shard().chunk}, op_.options()));
  });
  for (const std::int64_t number : probes) z.push_back(probe(number));
  op_.apply_block(z, hz);
  std::vector<TraceSample> samples;
  for (std::size_t i = 0; i < probes.size(); ++i) {
    const TraceSample& sample = samples.emplace_back(trace_sample(op_, goals_.layers, probes[i], z[i], hz[i]));
    if (!std::isfinite(sample.product_norm_sq))
      throw NumericalError(0, sample.product_norm_sq,
                           "a product for the trace is not finite: loss or weights overflow, or hold NaN");
    if (group_.leads()) line_.sample(sample, tally());
    if (!goals_.diagonal.empty()) add_to_diagonal(z[i], hz[i]);
  }
  if (deflation_) {
    const std::vector<DeflatedSample> deflated = deflation_->deflated(samples, z);
    if (group_.leads()) line_.deflated(deflated);
  }
  between_products();
}

void Worker::correct(const std::vector<TraceSample>& samples) {
  std::vector<DeflatedSample> deflated;
  for (std::size_t i = 0; i < samples.size(); i += kTraceTogether) {
    const auto some = std::span(samples).subspan(i, std::min<std::size_t>(kTraceTogether, samples.size() - i));
    std::vector<at::Tensor> z;
    for (const TraceSample& sample : some) z.push_back(probe(sample.probe));
    for (DeflatedSample& one : deflation_->deflated(some, z)) deflated.push_back(std::move(one));
  }
  if (group_.leads()) line_.deflated(deflated);
}

void Worker::own_trace() {
  TraceMethodOptions options;
  options.distribution = goals_.probe.distribution;
  options.seed = goals_.probe.seed;
  options.first_probe = kTraceProbes + kSymmetryProbes;
  options.rtol = goals_.rule.rtol;
  options.confidence = goals_.rule.confidence;
  options.max_products = goals_.own_products;
  const auto on_product = [this] { between_products(); };
  const bool xtrace_asked = goals_.trace == TraceMethod::kXTrace;
  TraceEstimate estimate = xtrace_asked ? xtrace(op_, options, on_product) : hutch_plus_plus(op_, options, on_product);
  estimate.half_width += goals_.rounding * std::abs(estimate.value);
  if (group_.leads()) line_.trace(estimate, tally());
}

void Worker::add_to_diagonal(const at::Tensor& z, const at::Tensor& hz) {
  const auto options = op_.options().dtype(at::kDouble);
  if (diagonal_.count == 0)
    agree(comm_, [&] {
      diagonal_.sum = at::zeros({op_.shard().chunk}, options);
      diagonal_.square = at::zeros({op_.shard().chunk}, options);
    });
  const at::Tensor left = deflation_ ? deflation_->remainder(z, hz) : hz;
  const at::Tensor term = z.to(at::kDouble).mul_(left);
  diagonal_.sum.add_(term);
  diagonal_.square.addcmul_(term, term);
  ++diagonal_.count;
}

void Worker::write_diagonal() {
  const auto count = static_cast<double>(diagonal_.count);
  at::Tensor mean = diagonal_.sum.div(count);
  at::Tensor error = diagonal_.count > 1
                         ? diagonal_.square.div(count).sub_(mean.square()).clamp_min_(0).div_(count - 1).sqrt_()
                         : at::full_like(mean, std::numeric_limits<double>::quiet_NaN());
  if (deflation_) mean.add_(deflation_->captured_diagonal());
  const double trace = comm_.sum(mean.sum().item<double>());
  VectorsInfo info;
  info.quantity = "diagonal of the Hessian, and its standard error";
  info.values = {trace, std::numeric_limits<double>::quiet_NaN()};
  info.float64 = op_.options().dtype() == at::kDouble;
  const at::Tensor* both[2] = {&mean, &error};
  write_vectors(goals_.diagonal, std::move(info), 2, [&](std::size_t i) { return both[i]->to(op_.options().dtype()); });
  if (group_.leads()) line_.diagonal_written();
}

}  // namespace hesspect
