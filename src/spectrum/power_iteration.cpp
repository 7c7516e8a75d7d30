// Power iteration with deflation, step for step as PyHessian's `eigenvalues` (github.com/amirgholami/PyHessian):
// v is made orthogonal to the vectors found, normalised and multiplied; λ is its Rayleigh quotient.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/probe_numbers.h"
#include "hesspect/krylov/basis.h"
#include "hesspect/krylov/vector_math.h"
#include "hesspect/spectrum/eigenvalues.h"
#include "hesspect/spectrum/probe.h"

namespace hesspect {
namespace {

constexpr double kSmallest = 1e-6;  // PyHessian's, beside |λ| in the stop rule

class PowerIteration {
 public:
  PowerIteration(LinearOperator& op, const PowerOptions& options, const std::function<void()>& on_step)
      : op_(op), options_(options), on_step_(on_step), found_(std::make_shared<Basis>(op.shard().chunk, op.options())) {
    agree(op.comm(), [&] {
      product_ = at::empty({op.shard().chunk}, op.options());
      found_->reserve(1);
    });
  }

  /// The next eigenvalue, of fewer than n; its vector becomes a row. Collective.
  void next(EigenResult& result) {
    at::Tensor v = probe_vector(op_, ProbeDistribution::kGaussian, options_.seed,
                                kPowerProbes + static_cast<std::uint64_t>(found_->rows()));
    const at::Tensor row[1] = {v.unsqueeze(0)};
    EigenEstimate one;
    for (bool first = true;; first = false) {
      project(v);
      op_.apply(v, product_);
      ++result.steps;
      const std::vector<double> sums = op_.comm().sum(dots(row, product_));
      if (!std::isfinite(sums[1]))
        throw NumericalError(result.steps - 1, sums[1],
                             "product " + std::to_string(result.steps - 1) +
                                 " of power iteration is not finite: loss or weights overflow, or hold NaN");
      const double before = one.value;
      one.value = sums[0];
      one.converged =
          sums[1] == 0 || (!first && std::abs(one.value - before) / (std::abs(before) + kSmallest) < options_.rtol);
      if (on_step_) on_step_();
      if (one.converged || result.steps >= options_.max_products) break;
      scale_into(product_, 1 / std::sqrt(sums[1]), v);
    }
    const double lambda[1] = {one.value};
    one.residual = one.true_residual = one.error = std::sqrt(op_.comm().sum(subtract(row, lambda, product_)));
    result.magnitude.push_back(one);
    if (found_->capacity() < found_->rows() + 1) agree(op_.comm(), [&] { found_->reserve(found_->rows() + 1); });
    found_->append().copy_(v);
  }

  std::shared_ptr<const Basis> found() const { return found_; }

 private:
  /// v := the unit vector along v's part orthogonal to the found ones. Twice, so that v stays free of them.
  void project(at::Tensor& v) {
    const std::vector<at::Tensor> rows = found_->head(found_->rows());
    for (int pass = 0; pass < 2; ++pass) {
      std::vector<double> h = op_.comm().sum(dots(rows, v));
      h.pop_back();
      const double norm = std::sqrt(op_.comm().sum(subtract(rows, h, v)));
      scale_into(v, 1 / norm, v);
    }
  }

  LinearOperator& op_;
  PowerOptions options_;
  const std::function<void()>& on_step_;
  std::shared_ptr<Basis> found_;
  at::Tensor product_;
};

}  // namespace

EigenResult power_iteration(LinearOperator& op, const PowerOptions& options, VectorSource* vectors,
                            const std::function<void()>& on_step) {
  const at::NoGradGuard no_grad;
  if (options.count < 0 || options.max_products < 1 || !(options.rtol >= 0))
    throw UsageError("power iteration: count and rtol must be 0 or more, max_products 1 or more");
  PowerIteration power(op, options, on_step);
  EigenResult result;
  result.method = "power";
  const std::int64_t wanted = std::min(options.count, op.shard().n);
  while (static_cast<std::int64_t>(result.magnitude.size()) < wanted && result.steps < options.max_products)
    power.next(result);
  result.converged = static_cast<std::int64_t>(result.magnitude.size()) == wanted &&
                     std::ranges::all_of(result.magnitude, &EigenEstimate::converged);
  result.exhausted = wanted < options.count;

  // Power iteration finds them in nearly this order, not quite.
  std::vector<std::size_t> order(result.magnitude.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, std::greater(), [&](std::size_t i) { return std::abs(result.magnitude[i].value); });
  std::vector<EigenEstimate> sorted;
  for (const std::size_t i : order) sorted.push_back(result.magnitude[i]);
  result.magnitude = std::move(sorted);
  if (vectors != nullptr)
    *vectors = [found = power.found(), order](std::size_t i) {
      return found->row(static_cast<std::int64_t>(order.at(i))).clone();
    };
  return result;
}

}  // namespace hesspect
