#include "row_loss.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "class_rows.h"
#include "hesspect/core/errors.h"
#include "loss_shapes.h"

namespace hesspect {
namespace {

constexpr double kPi = 3.14159265358979323846;

/// A loss of single elements f(z, t), each with its weight. At a kink it has the derivatives that PyTorch gives there.
class ElementRows : public RowObjective {
 public:
  /// @param inner  of the last dimensions make up a row
  ElementRows(const at::Tensor& output_like, const at::Tensor& target, const at::Tensor& weight, std::int64_t inner = 1)
      : RowObjective(output_like.sizes().vec(), std::max<std::int64_t>(1, output_like.dim() - inner)),
        target_(target.reshape({rows(), columns()})),
        weight_(weight.defined() ? weight.reshape({rows(), columns()}) : weight) {}

  double prepare(at::Tensor z, std::int64_t begin) const final {
    at::Tensor f = terms(z, target_.narrow(0, begin, z.size(0)));
    weigh(f, begin);
    return f.sum(1).sum(at::kDouble).item<double>();
  }
  void adjoint(const at::Tensor& state, std::int64_t begin, at::Tensor out) const final {
    slope(state, target_.narrow(0, begin, state.size(0)), out);
    weigh(out, begin);
  }
  void adjoint_tangent(const at::Tensor& state, std::int64_t begin, const at::Tensor& z_dot,
                       at::Tensor out) const final {
    if (fisher_)
      at::mul_out(out, z_dot, information(state));
    else
      bend(state, target_.narrow(0, begin, state.size(0)), z_dot, out);
    weigh(out, begin);
  }
  bool is_curved() const final { return fisher_ || bends(); }

  /// From here on the Fisher stands for the second derivative.
  void take_fisher() { fisher_ = true; }
  /// Of the terms [R, C]; undefined: all 1.
  at::Tensor term_weights() const {
    const at::Tensor own = target_weights(target_);
    return own.defined() && weight_.defined() ? own * weight_ : own.defined() ? own : weight_;
  }

 private:
  /// f [r, C], an array of its own; z becomes the state.
  virtual at::Tensor terms(at::Tensor& z, const at::Tensor& target) const = 0;
  /// out [r, C] := f'
  virtual void slope(const at::Tensor& state, const at::Tensor& target, at::Tensor& out) const = 0;
  /// out [K, r, C] := f'' ∘ z_dot
  virtual void bend(const at::Tensor& state, const at::Tensor& target, const at::Tensor& z_dot,
                    at::Tensor& out) const = 0;
  virtual bool bends() const { return true; }
  /// E f'² [r, C], or one number, for targets that the loss's own distribution draws: its density is e⁻ᶠ, over its sum.
  virtual at::Tensor information(const at::Tensor& state) const = 0;
  /// What a target weighs [R, C]; undefined: 1.
  virtual at::Tensor target_weights(const at::Tensor& target) const {
    (void)target;
    return {};
  }

  void weigh(at::Tensor& rows, std::int64_t begin) const {
    if (weight_.defined()) rows.mul_(weight_.narrow(0, begin, rows.size(-2)));
  }

  at::Tensor target_, weight_;  // [R, C]
  bool fisher_ = false;
};

at::Tensor number(double value, const at::Tensor& like) { return at::full({}, value, like.options()); }

/// d². The state is d = z - t here and in the next three.
class SquareRows final : public ElementRows {
 public:
  using ElementRows::ElementRows;

 private:
  at::Tensor terms(at::Tensor& z, const at::Tensor& target) const override { return z.sub_(target).square(); }
  void slope(const at::Tensor& d, const at::Tensor&, at::Tensor& out) const override { at::add_out(out, d, d); }
  void bend(const at::Tensor&, const at::Tensor&, const at::Tensor& z_dot, at::Tensor& out) const override {
    at::add_out(out, z_dot, z_dot);
  }
  // Of a normal distribution of variance 1/2, whose f this is.
  at::Tensor information(const at::Tensor& d) const override { return number(2, d); }
};

/// |d|
class AbsoluteRows final : public ElementRows {
 public:
  using ElementRows::ElementRows;

 private:
  at::Tensor terms(at::Tensor& z, const at::Tensor& target) const override { return z.sub_(target).abs(); }
  void slope(const at::Tensor& d, const at::Tensor&, at::Tensor& out) const override { at::sgn_out(out, d); }
  void bend(const at::Tensor&, const at::Tensor&, const at::Tensor&, at::Tensor& out) const override { out.zero_(); }
  bool bends() const override { return false; }
  at::Tensor information(const at::Tensor& d) const override { return number(1, d); }
};

/// scale · (d² / 2 where |d| < bound, else bound · (|d| - bound / 2)): smooth_l1 has the scale 1 / bound, huber 1.
class HuberRows final : public ElementRows {
 public:
  HuberRows(const at::Tensor& output_like, const at::Tensor& target, const at::Tensor& weight, double bound,
            double scale)
      : ElementRows(output_like, target, weight), bound_(bound), scale_(scale) {}

 private:
  at::Tensor terms(at::Tensor& z, const at::Tensor& target) const override {
    const at::Tensor size = z.sub_(target).abs(), square = size.clamp_max(bound_);
    // square · (|d| - square / 2) is both branches.
    return size.sub_(square, 0.5).mul_(square).mul_(scale_);
  }
  void slope(const at::Tensor& d, const at::Tensor&, at::Tensor& out) const override {
    at::clamp_out(out, d, -bound_, bound_).mul_(scale_);
  }
  void bend(const at::Tensor& d, const at::Tensor&, const at::Tensor& z_dot, at::Tensor& out) const override {
    at::mul_out(out, z_dot, d.abs() < bound_).mul_(scale_);
  }
  /// E f'² = E f'' (by parts) = scale · P(|d| < bound).
  at::Tensor information(const at::Tensor& d) const override {
    const double edge = scale_ * bound_ * bound_;  // 2 f at the bound
    const double inside = std::sqrt(2 * kPi / scale_) * std::erf(std::sqrt(edge / 2));
    const double outside = 2 / (scale_ * bound_) * std::exp(-edge / 2);
    return number(scale_ * inside / (inside + outside), d);
  }

  double bound_, scale_;
};

/// Of probabilities, with the logarithms that loss.cpp takes: below e⁻¹⁰⁰ they are constant. The state is p itself.
class BinaryRows final : public ElementRows {
 public:
  using ElementRows::ElementRows;

 private:
  static at::Tensor above(const at::Tensor& p) { return p > std::exp(-100.0); }
  static at::Tensor below(const at::Tensor& p) { return p < 1; }
  /// t / p and (1 - t) / (1 - p), zero where the logarithm is constant
  static at::Tensor of_one(const at::Tensor& p, const at::Tensor& t) { return at::where(above(p), t / p, 0); }
  static at::Tensor of_zero(const at::Tensor& p, const at::Tensor& t) {
    return at::where(below(p), (1 - t) / (1 - p), 0);
  }

  at::Tensor terms(at::Tensor& p, const at::Tensor& t) const override {
    const at::Tensor log_p = at::where(above(p), p.log(), -100);
    const at::Tensor log_not_p = at::where(below(p), p.neg().log1p_(), -100);
    return (t * log_p + (1 - t) * log_not_p).neg_();
  }
  void slope(const at::Tensor& p, const at::Tensor& t, at::Tensor& out) const override {
    at::sub_out(out, of_zero(p, t), of_one(p, t));
  }
  void bend(const at::Tensor& p, const at::Tensor& t, const at::Tensor& z_dot, at::Tensor& out) const override {
    // Divided twice, for 1 / p² overflows where t = 0 needs none of it.
    const at::Tensor one = at::where(above(p), of_one(p, t) / p, 0);
    const at::Tensor zero = at::where(below(p), of_zero(p, t) / (1 - p), 0);
    at::mul_out(out, z_dot, one + zero);
  }
  at::Tensor information(const at::Tensor& p) const override {
    return at::where(above(p), 1 / p, 0).add_(at::where(below(p), 1 / (1 - p), 0));
  }
};

/// Of logits: pos_weight · t · softplus(-z) + (1 - t) · softplus(z). The state is p = σ(z).
class LogitRows final : public ElementRows {
 public:
  LogitRows(const at::Tensor& output_like, const at::Tensor& target, const at::Tensor& weight,
            const at::Tensor& pos_weight)
      : ElementRows(output_like, target, weight, covered(pos_weight)) {
    if (!pos_weight.defined()) return;
    const std::int64_t first = output_like.dim() - covered(pos_weight);
    pos_weight_ = pos_weight.expand(output_like.sizes()).flatten(0, first - 1)[0].reshape({1, columns()});
  }

 private:
  /// How many of the output's last dimensions the positives' weights run over: with all of these in a row, rows share
  /// the weights.
  static std::int64_t covered(const at::Tensor& pos_weight) {
    std::int64_t dimensions = pos_weight.defined() ? pos_weight.dim() : 0;
    while (dimensions > 0 && pos_weight.size(-dimensions) == 1) --dimensions;
    return std::max<std::int64_t>(1, dimensions);
  }
  at::Tensor positive(const at::Tensor& t) const { return pos_weight_.defined() ? t * pos_weight_ : t; }

  at::Tensor terms(at::Tensor& z, const at::Tensor& t) const override {
    at::Tensor f = (at::log_sigmoid(z) * positive(t)).add_(at::log_sigmoid(z.neg()) * (1 - t)).neg_();
    z.sigmoid_();
    return f;
  }
  void slope(const at::Tensor& p, const at::Tensor& t, at::Tensor& out) const override {
    const at::Tensor positives = positive(t);
    at::mul_out(out, p, positives + (1 - t)).sub_(positives);
  }
  void bend(const at::Tensor& p, const at::Tensor& t, const at::Tensor& z_dot, at::Tensor& out) const override {
    at::mul_out(out, z_dot, (1 - p).mul_(p).mul_(positive(t) + (1 - t)));
  }
  at::Tensor information(const at::Tensor& p) const override {
    const at::Tensor bend = (1 - p).mul_(p);
    return pos_weight_.defined() ? bend * ((1 - p) * pos_weight_ + p) : bend;
  }
  at::Tensor target_weights(const at::Tensor& t) const override {
    return pos_weight_.defined() ? positive(t) + (1 - t) : at::Tensor();
  }

  at::Tensor pos_weight_;  // [1, C]
};

}  // namespace

namespace {

std::unique_ptr<ElementRows> element_rows(const LossOptions& options, const at::Tensor& output_like,
                                          const at::Tensor& target, const at::Tensor& weight) {
  switch (options.kind) {
    case LossKind::kMse: return std::make_unique<SquareRows>(output_like, target, weight);
    case LossKind::kL1: return std::make_unique<AbsoluteRows>(output_like, target, weight);
    case LossKind::kSmoothL1:
      return std::make_unique<HuberRows>(output_like, target, weight, options.beta, 1 / options.beta);
    case LossKind::kHuber: return std::make_unique<HuberRows>(output_like, target, weight, options.delta, 1);
    case LossKind::kBce: return std::make_unique<BinaryRows>(output_like, target, weight);
    case LossKind::kBceWithLogits: return std::make_unique<LogitRows>(output_like, target, weight, options.pos_weight);
    default: throw UsageError("loss 'output' is no function of an output and a target");
  }
}

}  // namespace

std::unique_ptr<RowObjective> row_loss(const LossOptions& options, const at::Tensor& output_like,
                                       const at::Tensor& target, const at::Tensor& weight, OutputMatrix matrix) {
  if (takes_classes(options.kind)) return class_rows(options, output_like, target, weight, matrix);
  std::unique_ptr<ElementRows> loss = element_rows(options, output_like, target, weight);
  if (matrix.curvature == Curvature::kFisher) loss->take_fisher();
  if (matrix.curvature != Curvature::kEmpiricalFisher) return loss;
  const at::Tensor weights = loss->term_weights();
  const std::int64_t columns = loss->columns();
  return outer_rows(std::move(loss), weights, columns, output_like.size(0), matrix.fisher_unit);
}

}  // namespace hesspect
