// What the trace estimators that choose their own vectors share: work on many vectors a few at a time, in rounds.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "hesspect/krylov/basis.h"
#include "hesspect/krylov/linear_operator.h"
#include "hesspect/krylov/orthonormal.h"
#include "hesspect/spectrum/trace_methods.h"

namespace hesspect {

/// Vectors whose products are taken at once, and that are held beside those that are kept.
inline constexpr std::int64_t kTogether = 4;

/// use(first, size) for 0 … count in blocks of kTogether at most.
void for_blocks(std::int64_t count, const std::function<void(std::int64_t first, std::int64_t size)>& use);

/// The coefficients of a result of `dots_block` of so many vectors, without the vectors' own squared norms.
std::vector<double> without_norms(std::span<const double> sums, std::size_t vectors);

/// Takes products with random vectors and keeps a basis Q of some of them. All calls are collective.
class SketchingEstimator {
 public:
  SketchingEstimator(LinearOperator& op, const TraceMethodOptions& options, const std::function<void()>& on_product);
  std::int64_t products() const { return products_; }

 protected:
  at::Tensor random_vector(std::uint64_t i) const;
  /// Random vectors [first, first + count).
  std::vector<at::Tensor> random_vectors(std::uint64_t first, std::int64_t count) const;
  /// A x of kTogether vectors at most, in work vectors that the next call overwrites.
  std::span<at::Tensor> apply(const std::vector<at::Tensor>& x);
  /// Q takes in what it does not hold yet of the last products.
  Orthonormalised extend_basis(std::span<at::Tensor> products);
  /// @throws NumericalError for a sum over a product that is not finite
  void require_finite(double sum) const;
  /// With what all methods say alike of themselves.
  TraceEstimate finished(TraceEstimate trace, const char* method) const;

  LinearOperator& op_;
  TraceMethodOptions options_;
  Basis q_;

 private:
  const std::function<void()>& on_product_;
  double tolerance_, scale_ = 0;
  std::vector<at::Tensor> work_;
  std::int64_t products_ = 0;
};

/// Takes rounds, each half as large again as all before, until the interval is narrow enough or the products are spent.
/// @param each   products that a vector of a round takes
/// @param first  vectors of the first round
template <class Estimator>
TraceEstimate estimate_in_rounds(Estimator&& run, const TraceMethodOptions& options, std::int64_t each,
                                 std::int64_t first) {
  TraceEstimate trace;
  do {
    const std::int64_t left = (options.max_products - run.products()) / each;
    run.round(std::min(left, std::max(first, run.products() / (2 * each))));
    trace = run.estimate();
  } while ((options.rtol == 0 || !trace.converged) && options.max_products - run.products() >= each);
  return trace;
}

/// Columns of different lengths as a matrix [rows, columns] in double, zeros below.
at::Tensor matrix_of(const std::vector<std::vector<double>>& columns, std::int64_t rows);

}  // namespace hesspect
