#include "vector_blocks.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/krylov/vector_math.h"
#include "hesspect/spectrum/probe.h"

namespace hesspect {

void for_blocks(std::int64_t count, const std::function<void(std::int64_t first, std::int64_t size)>& use) {
  for (std::int64_t first = 0; first < count; first += kTogether) use(first, std::min(kTogether, count - first));
}

std::vector<double> without_norms(std::span<const double> sums, std::size_t vectors) {
  std::vector<double> all;
  for (std::size_t k = 0; k < vectors; ++k) {
    const std::span<const double> own = coefficients(dots_of(sums, vectors, k));
    all.insert(all.end(), own.begin(), own.end());
  }
  return all;
}

SketchingEstimator::SketchingEstimator(LinearOperator& op, const TraceMethodOptions& options,
                                       const std::function<void()>& on_product)
    : op_(op),
      options_(options),
      q_(op.shard().chunk, op.options()),
      on_product_(on_product),
      tolerance_(drop_tolerance(c10::typeMetaToScalarType(op.options().dtype()))) {
  agree(op.comm(), [&] {
    for (std::int64_t i = 0; i < kTogether; ++i) work_.push_back(at::empty({op.shard().chunk}, op.options()));
  });
}

at::Tensor SketchingEstimator::random_vector(std::uint64_t i) const {
  return probe_vector(op_, options_.distribution, options_.seed, options_.first_probe + i);
}

std::vector<at::Tensor> SketchingEstimator::random_vectors(std::uint64_t first, std::int64_t count) const {
  std::vector<at::Tensor> vectors;
  for (std::int64_t i = 0; i < count; ++i) vectors.push_back(random_vector(first + static_cast<std::uint64_t>(i)));
  return vectors;
}

std::span<at::Tensor> SketchingEstimator::apply(const std::vector<at::Tensor>& x) {
  const std::span<at::Tensor> product = std::span(work_).first(x.size());
  op_.apply_block(x, product);
  products_ += static_cast<std::int64_t>(x.size());
  if (on_product_) on_product_();
  return product;
}

Orthonormalised SketchingEstimator::extend_basis(std::span<at::Tensor> products) {
  const std::int64_t first = products_ - static_cast<std::int64_t>(products.size());
  Orthonormalised added = append_orthonormal(
      op_.comm(), q_, products, {.n = op_.shard().n, .tolerance = tolerance_, .scale = scale_, .step = first});
  for (const double norm : added.norms) scale_ = std::max(scale_, norm);
  return added;
}

void SketchingEstimator::require_finite(double sum) const {
  if (!std::isfinite(sum))
    throw NumericalError(products_, sum,
                         "one of the first " + std::to_string(products_) +
                             " products is not finite (a sum over it is " + std::to_string(sum) +
                             "): loss or weights overflow, or hold NaN");
}

TraceEstimate SketchingEstimator::finished(TraceEstimate trace, const char* method) const {
  // Quantiles rest on the machine's own mathematical functions.
  trace.converged =
      op_.comm().of_rank0(options_.rtol == 0 || trace.half_width <= options_.rtol * std::abs(trace.value));
  trace.products = products_;
  trace.deflated = q_.rows();
  trace.method = method;
  return trace;
}

at::Tensor matrix_of(const std::vector<std::vector<double>>& columns, std::int64_t rows) {
  at::Tensor transposed = at::zeros({static_cast<std::int64_t>(columns.size()), rows}, at::kDouble);
  double* out = transposed.mutable_data_ptr<double>();
  for (std::size_t j = 0; j < columns.size(); ++j)
    std::copy(columns[j].begin(), columns[j].end(), out + j * static_cast<std::size_t>(rows));
  return transposed.t();
}

}  // namespace hesspect
