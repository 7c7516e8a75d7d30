// A term of the loss is -u Σ_c q_c log p_c, p = softmax(z), u the term's weight. Three numbers of the term say all of
// it: the mass A = u Σ q, B of the target and S of every class, which is smoothing's,
//   S = u · label_smoothing / C,   B = u (1 - label_smoothing), for a class times its weight,
// so that u q = w ∘ (B t + S) for probabilities t and B onehot + w S for a class, w the classes' weights.
// Value: A log Σ exp z - Σ u q z. Derivative: A p - u q. Its tangent: A p ∘ (ż - ⟨p, ż⟩).
//
// The Fisher is u Σ_c p_c w_c (p - e_c)(p - e_c)ᵀ: a class that the model draws weighs what it would in the data, and
// smoothing, of the data's targets, is none of it. Without w that is u (diag p - p pᵀ), the tangent's own matrix.
#include "class_rows.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>

#include "hesspect/tangent/kernels.h"
#include "hesspect/tangent/precision.h"
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

/// Rows [begin, begin + r) of an array that may be undefined.
at::Tensor part(const at::Tensor& rows, std::int64_t begin, std::int64_t r) {
  return rows.defined() ? rows.narrow(0, begin, r) : rows;
}

/// Σ_c a_c w_c [r, 1, D] of a [r, C, D]; w [C, 1] or undefined: all 1. A sum, though written as a product of matrices:
/// in full precision.
at::Tensor class_sums(const at::Tensor& a, const at::Tensor& w) {
  const PrecisionScope full(MatrixPrecision::kFp32);
  return w.defined() ? at::matmul(w.t(), a) : a.sum(1, true);
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

  std::int64_t classes_, inner_;
};

at::Tensor ClassRows::dot(const at::Tensor& a, const at::Tensor& b, const at::Tensor& w) const {
  const std::int64_t rows = a.size(0);
  const PrecisionScope full(MatrixPrecision::kFp32);  // as class_sums
  if (inner_ == 1 && !w.defined()) return at::bmm(a.transpose(1, 2), b);
  at::Tensor sums = at::empty({rows, 1, inner_}, a.options());
  const std::int64_t step = std::max<std::int64_t>(1, kBlock / (classes_ * inner_));
  for (std::int64_t begin = 0; begin < rows; begin += step) {
    const std::int64_t r = std::min(step, rows - begin);
    sums.narrow(0, begin, r).copy_(class_sums(a.narrow(0, begin, r) * b.narrow(0, begin, r), w));
  }
  return sums;
}

// --- targets ------------------------------------------------------------------------------------------------------

/// What each term takes of its target, [R, 1, D] but where said.
struct ClassTargets {
  at::Tensor classes;        // int64, 0 where there is none and b is 0; or undefined
  at::Tensor probabilities;  // [R, C, D]; or undefined
  at::Tensor a, b, s;        // s is undefined without smoothing
  at::Tensor u;              // the term's weight; 0 where it is ignored
};

/// Of numbers in double, as they were given.
ClassTargets of_classes(const LossOptions& options, std::int64_t classes, double smoothing, const at::Tensor& target,
                        const at::Tensor& weight) {
  const at::Tensor given = at_positions(options, target, options.ignore_index);
  const at::Tensor counts = given != options.ignore_index;
  at::Tensor scale = counts.to(at::kDouble);
  if (weight.defined()) scale.mul_(at_positions(options, weight, 0));
  const at::Tensor& weights = options.class_weights;
  ClassTargets out;
  out.u = scale;
  out.classes = given.masked_fill(counts.logical_not(), 0);
  out.a = out.b = scale * (1 - smoothing);
  if (weights.defined()) out.b.mul_(weights.to(at::kDouble).take(out.classes));
  if (smoothing == 0) return out;
  out.s = scale * (smoothing / static_cast<double>(classes));
  out.a = out.b + (weights.defined() ? out.s * weights.sum(at::kDouble) : out.s * classes);
  return out;
}

/// @param target  [R, C, D]
ClassTargets of_probabilities(const LossOptions& options, const at::Tensor& target, const at::Tensor& weight) {
  const std::int64_t rows = target.size(0), classes = target.size(1), inner = target.size(2);
  const double smoothing = options.label_smoothing;
  const at::Tensor& weights = options.class_weights;
  at::Tensor scale = at::ones({rows, 1, inner}, target.options().dtype(at::kDouble));
  if (weight.defined()) scale.mul_(weight.reshape(scale.sizes()));
  ClassTargets out;
  out.u = scale;
  out.probabilities = target;
  out.b = scale * (1 - smoothing);
  out.a = out.b * class_sums(target, weights.defined() ? weights.unsqueeze(1) : weights);
  if (smoothing == 0) return out;
  out.s = scale * (smoothing / static_cast<double>(classes));
  out.a.add_(weights.defined() ? out.s * weights.sum(at::kDouble) : out.s * classes);
  return out;
}

// --- losses -------------------------------------------------------------------------------------------------------

/// -Σ B z at the target class, of log-probabilities z.
class NllRows final : public ClassRows {
 public:
  /// @param fisher  the Fisher's u diag(p ∘ w) stands for the second derivative, which is zero
  NllRows(const ClassShape& shape, const at::Tensor& class_weights, const ClassTargets& targets, at::ScalarType dtype,
          bool fisher)
      : ClassRows(shape), target_(per_term(targets.classes)), b_(per_term(targets.b).to(dtype)) {
    if (!fisher) return;
    information_ = per_term(targets.u).to(dtype);
    if (class_weights.defined()) information_ = information_ * class_weights.unsqueeze(1);
  }

  double prepare(at::Tensor z, std::int64_t begin) const override {
    const std::int64_t r = z.size(0);
    const at::Tensor terms = times(b_.narrow(0, begin, r), cut(z).gather(1, target_.narrow(0, begin, r)));
    return -terms.sum(at::kDouble).item<double>();
  }
  void adjoint(const at::Tensor& state, std::int64_t begin, at::Tensor out) const override {
    const std::int64_t r = state.size(0);
    out.zero_();
    cut(out).scatter_(1, target_.narrow(0, begin, r), b_.narrow(0, begin, r).neg());
  }
  void adjoint_tangent(const at::Tensor& state, std::int64_t begin, const at::Tensor& z_dot,
                       at::Tensor out) const override {
    if (!is_curved()) {
      out.zero_();
      return;
    }
    const at::Tensor p = cut(state).exp().mul_(information_.narrow(0, begin, state.size(0)));
    at::mul_out(out, z_dot, p.flatten(1));
  }
  bool is_curved() const override { return information_.defined(); }

 private:
  at::Tensor target_, b_;   // [R, 1, D]
  at::Tensor information_;  // u w [R, 1 or C, D], or undefined
};

/// The state is p. By fused kernels where the layout allows, else by ATen, which is also what they are held against.
class CrossEntropyRows final : public ClassRows {
 public:
  CrossEntropyRows(const ClassShape& shape, const at::Tensor& class_weights, const ClassTargets& targets,
                   at::ScalarType dtype);

  double prepare(at::Tensor z, std::int64_t begin) const override;
  void adjoint(const at::Tensor& state, std::int64_t begin, at::Tensor out) const override;
  void adjoint_tangent(const at::Tensor& state, std::int64_t begin, const at::Tensor& z_dot,
                       at::Tensor out) const override;
  bool is_curved() const override { return true; }
  const SoftmaxRows* softmax() const override { return softmax_ ? &*softmax_ : nullptr; }
  /// From here on the Fisher stands for the second derivative, where that is another. @param u  weights of the terms
  void take_fisher(const at::Tensor& u) {
    u_ = per_term(u).to(a_.scalar_type());
    softmax_.reset();
  }

 private:
  /// Whether the kernels take such rows.
  bool fits(const at::Tensor& rows) const {
    return inner_ == 1 && rows.is_contiguous() &&
           (rows.scalar_type() == at::kFloat || rows.scalar_type() == at::kDouble) &&
           (!probabilities_.defined() || probabilities_.is_contiguous());
  }
  double fused_prepare(const at::Tensor& z, std::int64_t begin) const;
  void plain_adjoint(const at::Tensor& p, std::int64_t begin, at::Tensor& out) const;
  void fisher_product(const at::Tensor& p, std::int64_t begin, const at::Tensor& z_dot, at::Tensor out) const;

  at::Tensor weights_;        // of classes, [C, 1], or undefined
  at::Tensor target_;         // [R, 1, D], or undefined
  at::Tensor probabilities_;  // [R, C, D], or undefined
  at::Tensor a_, b_, s_;      // [R, 1, D]
  at::Tensor u_;              // [R, 1, D], where the Fisher stands for the second derivative
  std::optional<SoftmaxRows> softmax_;
};

CrossEntropyRows::CrossEntropyRows(const ClassShape& shape, const at::Tensor& class_weights,
                                   const ClassTargets& targets, at::ScalarType dtype)
    : ClassRows(shape), a_(per_term(targets.a).to(dtype)), b_(per_term(targets.b).to(dtype)) {
  if (class_weights.defined()) weights_ = class_weights.contiguous().unsqueeze(1);
  if (targets.classes.defined()) target_ = per_term(targets.classes);
  if (targets.probabilities.defined()) probabilities_ = targets.probabilities;
  if (targets.s.defined()) s_ = per_term(targets.s).to(dtype);
  if (inner_ != 1 || !target_.defined() || (dtype != at::kFloat && dtype != at::kDouble)) return;
  const auto flat = [](const at::Tensor& t) { return t.defined() ? t.flatten().contiguous() : t; };
  softmax_ = SoftmaxRows{flat(target_), flat(a_), flat(b_), flat(s_), flat(weights_), /*outer=*/{}};
}

double CrossEntropyRows::prepare(at::Tensor z, std::int64_t begin) const {
  if (fits(z)) return fused_prepare(z, begin);
  const std::int64_t r = z.size(0);
  at::Tensor p = cut(z);
  p.sub_(p.amax(1, true));  // so that all that is summed up below has one sign
  const at::Tensor at_target = target_.defined() ? p.gather(1, target_.narrow(0, begin, r))
                                                 : dot(probabilities_.narrow(0, begin, r), p, weights_);
  at::Tensor terms = times(b_.narrow(0, begin, r), at_target).neg_();
  if (s_.defined()) terms.sub_(times(s_.narrow(0, begin, r), class_sums(p, weights_)));
  p.exp_();
  const at::Tensor sum = p.sum(1, true);
  p.div_(sum);
  return terms.add_(times(a_.narrow(0, begin, r), sum.log())).sum(at::kDouble).item<double>();
}

double CrossEntropyRows::fused_prepare(const at::Tensor& z, std::int64_t begin) const {
  const std::int64_t r = z.size(0);
  const auto sums = [&] { return at::empty({r, 1, 1}, z.options().dtype(at::kDouble)); };
  const fused::CrossEntropy q{.z = z,
                              .target = part(target_, begin, r),
                              .target_p = part(probabilities_, begin, r),
                              .weights = weights_,
                              .p = z,
                              .lse = sums(),
                              .target_sum = sums(),
                              .all_sum = s_.defined() ? sums() : at::Tensor(),
                              .columns = classes_};
  fused::cross_entropy(q);
  at::Tensor terms = times(a_.narrow(0, begin, r), q.lse) - times(b_.narrow(0, begin, r), q.target_sum);
  if (s_.defined()) terms.sub_(times(s_.narrow(0, begin, r), q.all_sum));
  return terms.sum().item<double>();
}

void CrossEntropyRows::adjoint(const at::Tensor& state, std::int64_t begin, at::Tensor out) const {
  if (!fits(state) || !out.is_contiguous()) return plain_adjoint(cut(state), begin, out);
  const std::int64_t r = state.size(0);
  fused::cross_entropy_adjoint({.p = state,
                                .target = part(target_, begin, r),
                                .target_p = part(probabilities_, begin, r),
                                .weights = weights_,
                                .a = part(a_, begin, r),
                                .b = part(b_, begin, r),
                                .s = part(s_, begin, r),
                                .z_bar = out,
                                .columns = classes_});
}

void CrossEntropyRows::plain_adjoint(const at::Tensor& p, std::int64_t begin, at::Tensor& out) const {
  const std::int64_t r = p.size(0);
  const at::Tensor a = part(a_, begin, r), minus_b = part(b_, begin, r).neg(), s = part(s_, begin, r);
  at::Tensor result = cut(out);
  if (probabilities_.defined()) {
    at::mul_out(result, probabilities_.narrow(0, begin, r), minus_b);
    if (s.defined()) result.sub_(s);
    if (weights_.defined()) result.mul_(weights_);
    result.addcmul_(p, a);
    return;
  }
  at::mul_out(result, p, a);
  result.scatter_add_(1, target_.narrow(0, begin, r), minus_b);
  if (!s.defined()) return;
  if (weights_.defined())
    result.addcmul_(s, weights_, -1);
  else
    result.sub_(s);
}

void CrossEntropyRows::adjoint_tangent(const at::Tensor& state, std::int64_t begin, const at::Tensor& z_dot,
                                       at::Tensor out) const {
  if (u_.defined()) {
    for (std::int64_t k = 0; k < z_dot.size(0); ++k) fisher_product(cut(state), begin, cut(z_dot[k]), cut(out[k]));
    return;
  }
  const at::Tensor a = a_.narrow(0, begin, state.size(0));
  if (fits(state) && z_dot.is_contiguous() && out.is_contiguous())
    return fused::cross_entropy_adjoint_tangent(
        {.p = state, .z_dot = z_dot, .a = a, .z_bar_dot = out, .columns = classes_});
  if (z_dot.size(0) > 1) {  // chunks of rows of several tangents are contiguous one by one
    for (std::int64_t k = 0; k < z_dot.size(0); ++k)
      adjoint_tangent(state, begin, z_dot.narrow(0, k, 1), out.narrow(0, k, 1));
    return;
  }
  const at::Tensor p = cut(state), tangent = cut(z_dot[0]);
  at::Tensor result = cut(out[0]);
  at::sub_out(result, tangent, dot(p, tangent, {}));
  result.mul_(p).mul_(a);
}

/// u p∘(w∘(ż − ⟨p, ż⟩) − ⟨p∘w, ż⟩ + ⟨p, w⟩⟨p, ż⟩), [r, C, D].
void CrossEntropyRows::fisher_product(const at::Tensor& p, std::int64_t begin, const at::Tensor& z_dot,
                                      at::Tensor out) const {
  const at::Tensor r = dot(p, z_dot, {});
  at::Tensor rest;
  if (weights_.defined()) rest = dot(p, z_dot, weights_) - class_sums(p, weights_) * r;
  at::sub_out(out, z_dot, r);
  if (weights_.defined()) out.mul_(weights_).sub_(rest);
  out.mul_(p).mul_(u_.narrow(0, begin, p.size(0)));
}

}  // namespace

std::unique_ptr<RowObjective> class_rows(const LossOptions& options, const at::Tensor& output_like,
                                         const at::Tensor& target, const at::Tensor& weight, OutputMatrix matrix) {
  const ClassShape shape = class_shape(options.kind, output_like);
  const at::ScalarType dtype = output_like.scalar_type();
  const bool is_nll = options.kind == LossKind::kNll, fisher = matrix.curvature == Curvature::kFisher;
  const ClassTargets targets =
      at::isFloatingType(target.scalar_type())
          ? of_probabilities(options, target.reshape({-1, shape.classes, shape.inner}), weight)
          : of_classes(options, shape.classes, is_nll ? 0 : options.label_smoothing, target, weight);
  std::unique_ptr<RowObjective> loss;
  if (is_nll) {
    loss = std::make_unique<NllRows>(shape, options.class_weights, targets, dtype, fisher);
  } else {
    auto cross_entropy = std::make_unique<CrossEntropyRows>(shape, options.class_weights, targets, dtype);
    // Probabilities sum to 1 to their own rounding: A is u to that alone.
    if (fisher && (options.class_weights.defined() || targets.probabilities.defined()))
      cross_entropy->take_fisher(targets.u);
    loss = std::move(cross_entropy);
  }
  if (matrix.curvature != Curvature::kEmpiricalFisher) return loss;
  return outer_rows(std::move(loss), targets.a, shape.inner, output_like.size(0), matrix.fisher_unit);
}

}  // namespace hesspect
