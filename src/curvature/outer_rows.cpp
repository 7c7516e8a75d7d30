#include "outer_rows.h"

#include <ATen/ATen.h>

#include <optional>
#include <utility>
#include <vector>

namespace hesspect {
namespace {

/// 1 / √a, and 0 where a is.
at::Tensor scales_of(const at::Tensor& weights) { return at::where(weights > 0, weights.rsqrt(), 0); }

class OuterRows final : public RowObjective {
 public:
  OuterRows(std::unique_ptr<RowObjective> loss, const at::Tensor& weights, std::int64_t inner, std::int64_t rows,
            FisherUnit unit)
      : RowObjective(loss->shape(), unit == FisherUnit::kRow ? 1 : loss->row_dimensions()),
        loss_(std::move(loss)),
        each_(unit == FisherUnit::kRow ? loss_->rows() / rows : 1),
        inner_(inner),
        by_row_(unit == FisherUnit::kRow) {
    if (weights.defined()) scales_ = scales_of(weights.to(at::kDouble)).reshape({loss_->rows(), 1, inner_});
    if (loss_->softmax() == nullptr || each_ != 1 || inner_ != 1) return;
    softmax_ = *loss_->softmax();
    softmax_->outer =
        scales_.defined() ? scales_.square().flatten().to(softmax_->a.scalar_type()) : at::ones_like(softmax_->a);
  }

  double prepare(at::Tensor z, std::int64_t begin) const override {
    return loss_->prepare(as_loss_rows(z), begin * each_);
  }
  void adjoint(const at::Tensor& state, std::int64_t begin, at::Tensor out) const override {
    loss_->adjoint(as_loss_rows(state), begin * each_, as_loss_rows(out));
  }
  void adjoint_tangent(const at::Tensor& state, std::int64_t begin, const at::Tensor& z_dot,
                       at::Tensor out) const override {
    const at::Tensor s = scores(state, begin);
    for (std::int64_t k = 0; k < z_dot.size(0); ++k) {
      const at::Tensor tangent = cut(z_dot[k]);
      at::Tensor result = cut(out[k]);
      at::mul_out(result, s, by_row_ ? (s * tangent).sum({1, 2}, true) : (s * tangent).sum(1, true));
    }
  }
  bool is_curved() const override { return true; }
  const SoftmaxRows* softmax() const override { return softmax_ ? &*softmax_ : nullptr; }

 private:
  /// Rows of the data as the loss's, which are `each_` times as many: a view.
  at::Tensor as_loss_rows(const at::Tensor& rows) const {
    const std::int64_t columns = loss_->columns();
    return rows.unflatten(1, {each_, columns}).view({rows.size(0) * each_, columns});
  }
  /// Rows [r, each · C D] as [r, each · C, D] for sums over a term, which is a column of it; each = 1 where these are
  /// asked for.
  at::Tensor cut(const at::Tensor& rows) const { return rows.unflatten(-1, {rows.size(-1) / inner_, inner_}); }

  /// s [r, each · C, D]
  at::Tensor scores(const at::Tensor& state, std::int64_t begin) const {
    const at::Tensor g = at::empty(state.sizes(), state.options());
    adjoint(state, begin, g);
    if (scales_.defined()) {
      const at::Tensor by_term = as_loss_rows(g);
      by_term.unflatten(-1, {by_term.size(1) / inner_, inner_})
          .mul_(scales_.narrow(0, begin * each_, by_term.size(0)).to(g.scalar_type()));
    }
    return cut(g);
  }

  std::unique_ptr<RowObjective> loss_;
  std::int64_t each_, inner_;
  bool by_row_;
  at::Tensor scales_;  // [R, 1, D]
  std::optional<SoftmaxRows> softmax_;
};

}  // namespace

std::unique_ptr<RowObjective> outer_rows(std::unique_ptr<RowObjective> loss, const at::Tensor& weights,
                                         std::int64_t inner, std::int64_t rows, FisherUnit unit) {
  return std::make_unique<OuterRows>(std::move(loss), weights, inner, rows, unit);
}

}  // namespace hesspect
