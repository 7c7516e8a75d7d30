// A group's products for the trace, the layers and the diagonal.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "context.h"
#include "grouped_products.h"
#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/probe_numbers.h"
#include "hesspect/core/text.h"
#include "hesspect/krylov/vector_math.h"
#include "hesspect/spectrum/trace_methods.h"

namespace hesspect {
namespace {

/// Above this products are no rounding at all: the results would mean nothing.
constexpr double kGrossAsymmetry = 1e-3;
constexpr double kNoCurvature = 1e-6;  // in loss/parameter²

/// How symmetric the operator is, by the products hz with two probes z.
SymmetryMeasured symmetry_of(Communicator& comm, std::span<const at::Tensor> z, std::span<const at::Tensor> hz) {
  const std::vector<double> sums = comm.sum({norm_sq(z[0]), norm_sq(z[1]), norm_sq(hz[0]), norm_sq(hz[1]),
                                             dot_product(z[0], hz[1]), dot_product(z[1], hz[0])});
  const double nu = std::sqrt(sums[0]), nv = std::sqrt(sums[1]);
  const double scale = nu * std::sqrt(sums[3]) + nv * std::sqrt(sums[2]);
  if (scale == 0) return {};
  return {std::abs(sums[4] - sums[5]) / scale, scale / (2 * nu * nv)};
}

/// Probes by their numbers, and zeros for their products. Collective.
struct Products {
  std::vector<at::Tensor> z, hz;

  Products(const Context& context, std::span<const std::int64_t> probes) {
    agree(context.comm, [&] {
      for (std::size_t i = 0; i < probes.size(); ++i)
        hz.push_back(at::zeros({context.op.shard().chunk}, context.op.options()));
    });
    for (const std::int64_t probe : probes) z.push_back(context.probe(probe));
  }
};

void add_to_diagonal(Context& context, const at::Tensor& z, const at::Tensor& hz) {
  DiagonalSums& diagonal = context.diagonal;
  if (diagonal.count == 0)
    agree(context.comm, [&] {
      const auto options = context.op.options().dtype(at::kDouble);
      diagonal.sum = at::zeros({context.op.shard().chunk}, options);
      diagonal.square = at::zeros({context.op.shard().chunk}, options);
    });
  const at::Tensor left = context.deflation ? context.deflation->space.remainder(z, hz) : hz;
  agree(context.comm, [&] {
    const at::Tensor term = z.to(at::kDouble).mul_(left);
    diagonal.sum.add_(term);
    diagonal.square.addcmul_(term, term);
  });
  ++diagonal.count;
}

}  // namespace

void check_symmetry(Context& context) {
  const std::int64_t numbers[kSymmetryProbes] = {trace_probe(0), trace_probe(1)};
  Products products(context, numbers);
  // One product after the other: together they would take the room of two for good.
  GroupedProducts op(context.op, {}, context.layers);
  for (std::size_t i = 0; i < products.z.size(); ++i) op.apply(products.z[i], products.hz[i]);
  const SymmetryMeasured symmetry = symmetry_of(context.comm, products.z, products.hz);
  if (!std::isfinite(symmetry.error)) {
    for (const at::Tensor& vector : products.z) context.op.explain_non_finite(vector);
    throw NumericalError(0, symmetry.error,
                         "a product with a random vector is not finite: weights or activations are too large");
  }
  // The same numbers are there on all ranks. Where there is next to no curvature, the products are rounding alone.
  // Products in low precision are as unsymmetric as they are inexact, at most.
  const double gross = std::max(kGrossAsymmetry, 2 * context.op.precision_effect().error);
  if (symmetry.error > gross && symmetry.curvature_scale > kNoCurvature)
    throw InputError("products are not symmetric (relative error " + format_number(symmetry.error) +
                     "): an op of the model has a wrong second derivative, or the model is not deterministic");
  context.report(symmetry);
  for (std::size_t i = 0; i < products.z.size(); ++i) {
    TraceSample sample = trace_sample(context.op, context.layers, numbers[i], products.z[i], products.hz[i]);
    if (i < op.products().size()) sample.groups = op.products()[i].dots;
    context.report(Sampled{std::move(sample)});
  }
}

void perform(Context& context, const SampleTrace& task) {
  Products products(context, task.probes);
  context.op.apply_block(products.z, products.hz);
  std::vector<TraceSample> samples;
  for (std::size_t i = 0; i < task.probes.size(); ++i) {
    const at::Tensor &z = products.z[i], &hz = products.hz[i];
    const TraceSample& sample = samples.emplace_back(trace_sample(context.op, context.layers, task.probes[i], z, hz));
    if (!std::isfinite(sample.product_norm_sq))
      throw NumericalError(0, sample.product_norm_sq,
                           "a product for the trace is not finite: loss or weights overflow, or hold NaN");
    context.report(Sampled{sample});
    if (context.goals.writes_diagonal()) add_to_diagonal(context, z, hz);
  }
  if (context.deflation) context.report(Corrected{context.deflation->space.deflated(samples, products.z)});
  context.between_products();
}

void perform(Context& context, const CorrectSamples& task) {
  std::vector<DeflatedSample> deflated;
  for (std::size_t i = 0; i < task.samples.size(); i += kTraceTogether) {
    const auto some =
        std::span(task.samples).subspan(i, std::min<std::size_t>(kTraceTogether, task.samples.size() - i));
    std::vector<at::Tensor> z;
    for (const TraceSample& sample : some) z.push_back(context.probe(sample.probe));
    for (DeflatedSample& one : context.deflation->space.deflated(some, z)) deflated.push_back(std::move(one));
  }
  context.report(Corrected{deflated});
}

void perform(Context& context, const EstimateTrace&) {
  const Goals& goals = context.goals;
  TraceMethodOptions options;
  options.distribution = goals.distribution;
  options.seed = goals.seed;
  options.first_probe = static_cast<std::uint64_t>(trace_probe(kSymmetryProbes));
  options.rtol = goals.sampling_rtol();
  options.confidence = goals.confidence;
  options.max_products = goals.trace->own_products;
  const auto method = goals.trace->method == TraceMethod::kXTrace      ? xtrace
                      : goals.trace->method == TraceMethod::kXNysTrace ? xnystrace
                                                                       : hutch_plus_plus;
  TraceEstimate estimate = method(context.op, options, [&] { context.between_products(); });
  estimate.half_width += goals.rounding * std::abs(estimate.value);
  context.report(TraceEstimated{estimate});
}

void perform(Context& context, const WriteDiagonal&) {
  const DiagonalSums& diagonal = context.diagonal;
  const auto count = static_cast<double>(diagonal.count);
  at::Tensor mean, error;
  agree(context.comm, [&] {
    mean = diagonal.sum.div(count);
    error = diagonal.count > 1 ? diagonal.square.div(count).sub_(mean.square()).clamp_min_(0).div_(count - 1).sqrt_()
                               : at::full_like(mean, std::numeric_limits<double>::quiet_NaN());
    if (context.deflation) mean.add_(context.deflation->space.captured_diagonal());
  });
  VectorsInfo info;
  info.quantity = "diagonal of the " + context.goals.matrix + ", and its standard error";
  info.values = {context.comm.sum(mean.sum().item<double>()), std::numeric_limits<double>::quiet_NaN()};
  const at::Tensor* both[2] = {&mean, &error};
  const std::optional<std::size_t> which[2] = {0, 1};
  context.write_vectors(context.goals.trace->diagonal_file, std::move(info), which,
                        [&](std::size_t i) { return both[i]->to(context.op.options().dtype()); });
  context.report(DiagonalWritten{});
}

}  // namespace hesspect
