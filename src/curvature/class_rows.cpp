// A term of the loss is -Σ_c q_c log p_c, p = softmax(z), times the term's weight s. With the mass Q = s Σ_c q_c:
//   value  Q log Σ exp z - s Σ q z      derivative  Q p - s q      and its tangent  Q p ∘ (ż - ⟨p, ż⟩)
// q is the class's weight times 1 - label_smoothing at the target, and label_smoothing / C times the weight at every
// class; of probabilities t it is (t (1 - label_smoothing) + label_smoothing / C) times the weights.
#include "class_rows.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "loss_shapes.h"

namespace hesspect {
namespace {

constexpr std::int64_t kBlock = 1 << 18;  // the most elements of a temporary, or those of a row

/// Where the classes lie in rows [R, C · D]: a row of an image has D pixels, any other has D = 1.
struct ClassShape {
  std::vector<std::int64_t> output;
  std::int64_t row_dimensions = 0, classes = 0, inner = 1;
};

ClassShape class_shape(LossKind kind, const at::Tensor& output) {
  const std::int64_t dimension = class_dimension(kind, output);
  ClassShape shape{output.sizes().vec(), dimension, output.size(dimension), 1};
  for (std::int64_t d = dimension + 1; d < output.dim(); ++d) shape.inner *= output.size(d);
  return shape;
}

/// a · b, and 0 where a is zero: terms that do not count are zero whatever their logits.
at::Tensor times(const at::Tensor& a, const at::Tensor& b) { return at::where(a == 0, 0, a * b); }

/// Causal targets, or their weights, [N, T] at the positions that predict them; `none` where there is nothing to
/// predict, so that positions without a target are rows as any other.
at::Tensor at_positions(const LossOptions& options, const at::Tensor& target, const at::Scalar& none) {
  if (options.kind != LossKind::kCausalLm || !target.defined()) return target;
  at::Tensor moved = at::full(target.sizes(), none, target.options());
  const std::int64_t length = target.size(1) - options.shift;
  moved.narrow(1, 0, length).copy_(target.narrow(1, options.shift, length));
  return moved;
}

class ClassRows : public RowObjective {
 protected:
  explicit ClassRows(const ClassShape& shape)
      : RowObjective(shape.output, shape.row_dimensions), classes_(shape.classes), inner_(shape.inner) {}

  /// Rows [..., C · D] as [..., C, D].
  at::Tensor cut(const at::Tensor& rows) const { return rows.unflatten(-1, {classes_, inner_}); }
  /// Numbers of terms, of any shape, as [R, 1, D].
  at::Tensor per_term(const at::Tensor& numbers) const { return numbers.reshape({rows(), 1, inner_}); }
  /// Σ_c a_c b_c w_c [r, 1, D] of a, b [r, C, D]; w [C, 1] or undefined: all 1.
  at::Tensor dot(const at::Tensor& a, const at::Tensor& b, const at::Tensor& w) const;
  at::Tensor class_sums(const at::Tensor& a, const at::Tensor& w) const {
    if (!w.defined()) return a.sum(1, true);
    return at::matmul(w.t(), a);
  }

  std::int64_t classes_, inner_;
};

at::Tensor ClassRows::dot(const at::Tensor& a, const at::Tensor& b, const at::Tensor& w) const {
  const std::int64_t rows = a.size(0);
  if (inner_ == 1 && !w.defined()) return at::bmm(a.transpose(1, 2), b);
  at::Tensor sums = at::empty({rows, 1, inner_}, a.options());
  const std::int64_t step = std::max<std::int64_t>(1, kBlock / (classes_ * inner_));
  for (std::int64_t begin = 0; begin < rows; begin += step) {
    const std::int64_t r = std::min(step, rows - begin);
    sums.narrow(0, begin, r).copy_(class_sums(a.narrow(0, begin, r) * b.narrow(0, begin, r), w));
  }
  return sums;
}

// --- targets that are classes -------------------------------------------------------------------------------------

/// What each term takes of its target, [R, 1, D].
struct ClassTargets {
  at::Tensor classes;  // 0 where there is none
  at::Tensor hit;      // s q of the target, without its part of the smoothing
  at::Tensor even;     // s · label_smoothing / C; undefined without smoothing
  at::Tensor mass;     // Q
};

ClassTargets class_targets(const LossOptions& options, std::int64_t classes, double smoothing, const at::Tensor& target,
                           const at::Tensor& weight) {
  const at::Tensor given = at_positions(options, target, options.ignore_index);
  const at::Tensor counts = given != options.ignore_index;
  at::Tensor scale = counts.to(at::kDouble);
  if (weight.defined()) scale.mul_(at_positions(options, weight, 0));
  const at::Tensor weights = options.class_weights.defined() ? options.class_weights.to(at::kDouble) : at::Tensor();
  ClassTargets out;
  out.classes = given.masked_fill(counts.logical_not(), 0);
  out.hit = scale * (1 - smoothing);
  if (weights.defined()) out.hit.mul_(weights.take(out.classes));
  out.mass = out.hit;
  if (smoothing > 0) {
    out.even = scale * (smoothing / static_cast<double>(classes));
    const at::Tensor total = weights.defined() ? weights.sum() : at::full({}, classes, scale.options());
    out.mass = out.hit + out.even * total;
  }
  return out;
}

/// -Σ s w z at the target class, of log-probabilities z.
class NllRows final : public ClassRows {
 public:
  NllRows(const ClassShape& shape, const ClassTargets& targets, at::ScalarType dtype)
      : ClassRows(shape), target_(per_term(targets.classes)), hit_(per_term(targets.hit).to(dtype)) {}

  double prepare(at::Tensor z, std::int64_t begin) const override {
    const at::Tensor hit = hit_.narrow(0, begin, z.size(0));
    return -times(hit, cut(z).gather(1, target_.narrow(0, begin, z.size(0)))).sum(at::kDouble).item<double>();
  }
  void adjoint(const at::Tensor& state, std::int64_t begin, at::Tensor out) const override {
    out.zero_();
    const std::int64_t r = state.size(0);
    cut(out).scatter_(1, target_.narrow(0, begin, r), hit_.narrow(0, begin, r).neg());
  }
  void adjoint_tangent(const at::Tensor&, std::int64_t, const at::Tensor&, at::Tensor out) const override {
    out.zero_();
  }
  bool is_curved() const override { return false; }

 private:
  at::Tensor target_, hit_;  // [R, 1, D]
};

// --- cross entropy ------------------------------------------------------------------------------------------------

/// Softmax, and what does not depend on how the targets are given. The state is p.
class CrossEntropyRows : public ClassRows {
 public:
  double prepare(at::Tensor z, std::int64_t begin) const override;
  void adjoint_tangent(const at::Tensor& state, std::int64_t begin, const at::Tensor& z_dot,
                       at::Tensor out) const override;
  bool is_curved() const override { return true; }

 protected:
  /// @param class_weights  [C], or undefined
  CrossEntropyRows(const ClassShape& shape, const at::Tensor& class_weights)
      : ClassRows(shape), weights_(class_weights.defined() ? class_weights.unsqueeze(1) : class_weights) {}
  /// s Σ_c q_c z_c [r, 1, D] of z [r, C, D], at most 0 for it has no element above 0.
  virtual at::Tensor expected(const at::Tensor& z, std::int64_t begin) const = 0;

  at::Tensor weights_;  // of classes, [C, 1]
  at::Tensor mass_;     // Q [R, 1, D]
};

double CrossEntropyRows::prepare(at::Tensor z, std::int64_t begin) const {
  at::Tensor p = cut(z);
  p.sub_(p.amax(1, true));
  const at::Tensor mean = expected(p, begin);
  p.exp_();
  const at::Tensor sum = p.sum(1, true);
  p.div_(sum);
  return (times(mass_.narrow(0, begin, z.size(0)), sum.log()) - mean).sum(at::kDouble).item<double>();
}

void CrossEntropyRows::adjoint_tangent(const at::Tensor& state, std::int64_t begin, const at::Tensor& z_dot,
                                       at::Tensor out) const {
  const at::Tensor p = cut(state), mass = mass_.narrow(0, begin, state.size(0));
  for (std::int64_t k = 0; k < z_dot.size(0); ++k) {
    const at::Tensor tangent = cut(z_dot[k]);
    at::Tensor result = cut(out[k]);
    at::sub_out(result, tangent, dot(p, tangent, {}));
    result.mul_(p).mul_(mass);
  }
}

class ClassCrossEntropy final : public CrossEntropyRows {
 public:
  ClassCrossEntropy(const ClassShape& shape, const at::Tensor& class_weights, const ClassTargets& targets,
                    at::ScalarType dtype)
      : CrossEntropyRows(shape, class_weights),
        target_(per_term(targets.classes)),
        hit_(per_term(targets.hit).to(dtype)) {
    mass_ = per_term(targets.mass).to(dtype);
    if (targets.even.defined()) even_ = per_term(targets.even).to(dtype);
  }

  void adjoint(const at::Tensor& state, std::int64_t begin, at::Tensor out) const override {
    const std::int64_t r = state.size(0);
    at::Tensor result = cut(out);
    at::mul_out(result, cut(state), mass_.narrow(0, begin, r));
    result.scatter_add_(1, target_.narrow(0, begin, r), hit_.narrow(0, begin, r).neg());
    if (!even_.defined()) return;
    if (weights_.defined())
      result.addcmul_(even_.narrow(0, begin, r), weights_, -1);
    else
      result.sub_(even_.narrow(0, begin, r));
  }

 private:
  at::Tensor expected(const at::Tensor& z, std::int64_t begin) const override {
    const std::int64_t r = z.size(0);
    at::Tensor sum = times(hit_.narrow(0, begin, r), z.gather(1, target_.narrow(0, begin, r)));
    if (even_.defined()) sum.add_(times(even_.narrow(0, begin, r), class_sums(z, weights_)));
    return sum;
  }

  at::Tensor target_, hit_, even_;  // [R, 1, D]
};

class ProbabilityCrossEntropy final : public CrossEntropyRows {
 public:
  /// @param target  of the output's shape
  /// @param weight  of the terms' shape, or undefined
  ProbabilityCrossEntropy(const ClassShape& shape, const at::Tensor& class_weights, double smoothing,
                          const at::Tensor& target, const at::Tensor& weight)
      : CrossEntropyRows(shape, class_weights),
        target_(cut(target.reshape({rows(), columns()}))),
        keep_(1 - smoothing),
        even_(smoothing / static_cast<double>(classes_)) {
    const at::Tensor total = weights_.defined() ? weights_.sum() : at::full({}, classes_, target.options());
    mass_ = class_sums(target_, weights_) * keep_ + total * even_;
    if (!weight.defined()) return;
    scale_ = per_term(weight);
    mass_.mul_(scale_);
  }

  void adjoint(const at::Tensor& state, std::int64_t begin, at::Tensor out) const override {
    const std::int64_t r = state.size(0);
    at::Tensor result = cut(out);
    at::mul_out(result, target_.narrow(0, begin, r), at::scalar_tensor(-keep_, target_.options()));
    if (even_ > 0) result.sub_(even_);
    if (weights_.defined()) result.mul_(weights_);
    if (scale_.defined()) result.mul_(scale_.narrow(0, begin, r));
    result.addcmul_(cut(state), mass_.narrow(0, begin, r));
  }

 private:
  at::Tensor expected(const at::Tensor& z, std::int64_t begin) const override {
    const std::int64_t r = z.size(0);
    at::Tensor sum = dot(target_.narrow(0, begin, r), z, weights_).mul_(keep_);
    if (even_ > 0) sum.add_(class_sums(z, weights_), even_);
    return scale_.defined() ? times(scale_.narrow(0, begin, r), sum) : sum;
  }

  at::Tensor target_, scale_;  // [R, C, D], [R, 1, D]
  double keep_, even_;
};

}  // namespace

std::unique_ptr<RowObjective> class_rows(const LossOptions& options, const at::Tensor& output_like,
                                         const at::Tensor& target, const at::Tensor& weight) {
  const ClassShape shape = class_shape(options.kind, output_like);
  const double smoothing = options.kind == LossKind::kNll ? 0 : options.label_smoothing;
  if (at::isFloatingType(target.scalar_type()))
    return std::make_unique<ProbabilityCrossEntropy>(shape, options.class_weights, smoothing, target, weight);
  const ClassTargets targets = class_targets(options, shape.classes, smoothing, target, weight);
  if (options.kind == LossKind::kNll) return std::make_unique<NllRows>(shape, targets, output_like.scalar_type());
  return std::make_unique<ClassCrossEntropy>(shape, options.class_weights, targets, output_like.scalar_type());
}

}  // namespace hesspect
