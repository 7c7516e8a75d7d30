#include "row_lanczos.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <vector>

namespace hesspect {
namespace {

constexpr std::int64_t kBetweenLooks = 4;

/// ⟨a_i, b_i⟩ in double, [rows, 1].
at::Tensor row_dots(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) * b.to(at::kDouble)).sum(1, true);
}

/// The recurrence, of all rows: H Q = Q T + β q e_kᵀ for each of them.
class Recurrence {
 public:
  explicit Recurrence(const at::Tensor& start)
      : unit_(start.scalar_type() == at::kDouble ? std::numeric_limits<double>::epsilon()
                                                 : std::numeric_limits<float>::epsilon()),
        scale_(at::zeros({start.size(0), 1}, start.options().dtype(at::kDouble))) {
    const at::Tensor q = start.to(at::kDouble);
    q_.push_back((q / row_dots(q, q).sqrt()).to(start.scalar_type()));
  }

  const at::Tensor& last() const { return q_.back(); }
  std::int64_t steps() const { return static_cast<std::int64_t>(alpha_.size()); }

  /// @param w  the product with last()
  void extend(at::Tensor w) {
    const at::Tensor open = row_dots(last(), last()) > 0;
    at::Tensor alpha = row_dots(last(), w);
    // A closed row goes on with its first entry: a copy of what lies inside its spectrum changes neither end.
    if (!alpha_.empty()) alpha = at::where(open, alpha, alpha_.front());
    alpha_.push_back(alpha);
    w = w.to(at::kDouble);
    scale_ = at::maximum(scale_, row_dots(w, w).sqrt());
    for (int pass = 0; pass < 2; ++pass)
      for (const at::Tensor& q : q_) w = w - q * row_dots(q, w);
    at::Tensor beta = row_dots(w, w).sqrt();
    const at::Tensor closes = beta <= 100 * unit_ * scale_;
    beta = beta.masked_fill(closes, 0);
    beta_.push_back(beta);
    q_.push_back((w / beta.masked_fill(closes, 1)).masked_fill(closes, 0).to(last().scalar_type()));
  }

  RowEigenvalues eigenvalues(double rtol) const {
    const std::int64_t k = steps(), rows = scale_.size(0);
    const at::Tensor t = at::zeros({rows, k, k}, scale_.options());
    for (std::int64_t j = 0; j < k; ++j) {
      t.select(1, j).select(1, j).copy_(alpha_[static_cast<std::size_t>(j)].squeeze(1));
      if (j + 1 == k) break;
      const at::Tensor beta = beta_[static_cast<std::size_t>(j)].squeeze(1);
      t.select(1, j).select(1, j + 1).copy_(beta);
      t.select(1, j + 1).select(1, j).copy_(beta);
    }
    const auto [values, vectors] = at::linalg_eigh(t);
    const at::Tensor rounding = 10 * unit_ * values.abs().amax(1);
    const at::Tensor residuals = (beta_.back() * vectors.select(1, k - 1)).abs() + rounding.unsqueeze(1);
    const auto pick = [&](const at::Tensor& of, const at::Tensor& index) {
      return of.gather(1, index.unsqueeze(1)).squeeze(1);
    };
    RowEigenvalues out;
    const at::Tensor top = at::full({rows}, k - 1, values.options().dtype(at::kLong)), far = values.abs().argmax(1);
    out.largest = pick(values, top);
    out.largest_error = pick(residuals, top);
    out.magnitude = pick(values, far);
    out.magnitude_error = pick(residuals, far);
    out.converged = at::maximum(out.largest_error, out.magnitude_error) <= rtol * out.magnitude.abs() + rounding;
    out.products = k;
    return out;
  }

 private:
  double unit_;
  at::Tensor scale_;                      // of the products so far, [rows, 1]
  std::vector<at::Tensor> q_;             // [rows, D] each
  std::vector<at::Tensor> alpha_, beta_;  // [rows, 1] each
};

}  // namespace

RowEigenvalues row_lanczos(const std::function<at::Tensor(const at::Tensor&)>& product, const at::Tensor& start,
                           double rtol, std::int64_t most_products) {
  Recurrence run(start);
  const std::int64_t most = std::max<std::int64_t>(1, std::min(most_products, start.size(1)));
  while (true) {
    run.extend(product(run.last()));
    const bool ends = run.steps() == most;
    if (!ends && run.steps() % kBetweenLooks != 0) continue;
    RowEigenvalues found = run.eigenvalues(rtol);
    if (ends || found.converged.all().item<bool>()) return found;
  }
}

}  // namespace hesspect
