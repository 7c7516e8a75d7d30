// Softmax and log-softmax.
#include <ATen/ATen.h>
#include <ATen/ExpandUtils.h>
#include <ATen/WrapDimUtils.h>

#include <limits>
#include <utility>

#include "../registry.h"
#include "../stacked.h"
#include "fused_sum.h"
#include "hesspect/tangent/kernels.h"

namespace hesspect {
namespace {

/// A function of the rows along one dimension. The kernels want it last.
class RowRule : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) {
    const at::Tensor& x = arguments.tensor(0);
    if (!arguments.values[1].isInt() || !is_fusible(x) || x.dim() == 0 || x.numel() == 0) return false;
    // The third argument is a type to work in, or of _softmax whether half becomes float.
    const bool is_other_type = arguments.values.size() > 2 && arguments.values[2].isInt() &&
                               arguments.values[2].toScalarType() != x.scalar_type();
    return !is_other_type && !arguments.active_beyond({0});
  }

  explicit RowRule(const Arguments& arguments)
      : x_(arguments.tensor(0)),
        dim_(at::maybe_wrap_dim(arguments.values[1].toInt(), x_.dim()) - x_.dim()),
        columns_(x_.size(dim_)) {}

 protected:
  at::Tensor rows(const at::Tensor& t) const { return t.transpose(dim_, -1).contiguous(); }
  /// Of rows, in the argument's order.
  at::Tensor ordered(const at::Tensor& t) const { return t.transpose(dim_, -1); }
  at::Tensor sums_of_rows(const at::Tensor& t) const { return at::empty({t.numel() / columns_}, t.options()); }

  at::Tensor x_;
  std::int64_t dim_;  // from behind, so that it is that of stacked tensors too
  std::int64_t columns_;
};

/// softmax(c x + m, dim), c a number and m what tangents do not reach: p_dot = c p∘(x_dot − ⟨p, x_dot⟩).
class Softmax : public RowRule {
 public:
  explicit Softmax(const Arguments& arguments)
      : RowRule(arguments), is_safe_(arguments.instruction.op->schema().name() == "aten::_safe_softmax") {}

  std::vector<at::Tensor> value() override {
    const at::Tensor x = rows(std::exchange(x_, {})), mask = std::exchange(mask_, {});
    p_ = at::empty_like(x);
    fused::softmax({.s = x,
                    .p = p_,
                    .mask = mask,
                    .columns = columns_,
                    .heads = mask.defined() ? mask.size(1) : 1,
                    .query_rows = mask.defined() ? mask.size(2) : 1,
                    .scale = scale_,
                    .zero_if_masked = is_safe_});
    return {ordered(p_).contiguous()};
  }

  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    const at::Tensor x_dot = rows(dots.at(0));
    p_dot_ = at::empty_like(x_dot);
    fused::softmax_tangent({.p = p_, .s_dot = x_dot, .p_dot = p_dot_, .columns = columns_, .scale = scale_});
    return {ordered(p_dot_).contiguous()};
  }

  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override {
    p_bar_ = rows(y_bar[0][0]);
    r_ = sums_of_rows(p_);
    const at::Tensor x_bar = sink.wants(0) ? at::empty_like(p_) : at::Tensor();
    fused::softmax_adjoint({.p = p_, .p_bar = p_bar_, .s_bar = x_bar, .r = r_, .columns = columns_, .scale = scale_});
    if (x_bar.defined()) sink.add(0, ordered(x_bar).unsqueeze(0));
  }

  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    const at::Tensor p_dot = std::exchange(p_dot_, {});
    const bool bends = p_dot.defined() && p_bar_.defined();
    if (!sink.wants(0) || (!bends && !y_bar_dot[0].defined())) return;
    const at::Tensor p_bar_dot = y_bar_dot[0].defined() ? rows(y_bar_dot[0]) : at::Tensor();
    const at::Tensor x_bar_dot = at::empty_like(bends ? p_dot : p_bar_dot);
    fused::softmax_adjoint_tangent({.p = p_,
                                    .p_dot = bends ? p_dot : at::Tensor(),
                                    .p_bar = bends ? p_bar_ : at::Tensor(),
                                    .r = bends ? r_ : at::Tensor(),
                                    .p_bar_dot = p_bar_dot,
                                    .s_bar_dot = x_bar_dot,
                                    .columns = columns_,
                                    .scale = scale_});
    sink.add(0, ordered(x_bar_dot));
  }

 protected:
  double scale_ = 1;
  at::Tensor mask_;  // [outer, heads, rows, columns], seen as that

 private:
  bool is_safe_;
  at::Tensor p_, p_bar_, r_, p_dot_;  // by rows; r = ⟨p, p_bar⟩
};

/// The region of fuse.h: x, dim, type, scale, mask or None, and whether the mask fills with −∞ or is added.
class MaskedSoftmax final : public Softmax {
 public:
  static bool covers(const Arguments& arguments) {
    if (arguments.instruction.kind != Instruction::Kind::kSubgraph || !Softmax::covers(arguments)) return false;
    const at::Tensor &x = arguments.tensor(0), mask = arguments.optional_tensor(4);
    if (at::maybe_wrap_dim(arguments.values[1].toInt(), x.dim()) != x.dim() - 1) return false;
    if (!mask.defined()) return true;
    const bool fills = arguments.values[5].toBool();
    if (fills ? mask.scalar_type() != at::kBool
              : c10::promoteTypes(mask.scalar_type(), x.scalar_type()) != x.scalar_type())
      return false;
    return at::is_expandable_to(mask.sizes(), x.sizes());
  }

  explicit MaskedSoftmax(const Arguments& arguments) : Softmax(arguments) {
    scale_ = arguments.values[3].toScalar().toDouble();
    at::Tensor mask = arguments.optional_tensor(4);
    if (!mask.defined()) return;
    if (arguments.values[5].toBool())
      mask = at::zeros(mask.sizes(), x_.options()).masked_fill_(mask, -std::numeric_limits<double>::infinity());
    else
      mask = as_type(mask, x_.scalar_type());
    const at::IntArrayRef sizes = x_.sizes();
    const std::size_t dims = sizes.size();
    const std::int64_t rows = dims > 1 ? sizes[dims - 2] : 1, heads = dims > 2 ? sizes[dims - 3] : 1;
    mask_ = reshaped(mask.expand(sizes), {x_.numel() / (heads * rows * columns_), heads, rows, columns_});
  }
};

/// log_softmax(x, dim): y_dot = x_dot − ⟨exp y, x_dot⟩.
class LogSoftmax final : public RowRule {
 public:
  explicit LogSoftmax(const Arguments& arguments) : RowRule(arguments) {}

  std::vector<at::Tensor> value() override {
    const at::Tensor x = rows(std::exchange(x_, {}));
    y_ = at::empty_like(x);
    fused::log_softmax({.x = x, .y = y_, .columns = columns_});
    return {ordered(y_).contiguous()};
  }

  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    const at::Tensor x_dot = rows(dots.at(0));
    y_dot_ = at::empty_like(x_dot);
    fused::log_softmax_tangent({.y = y_, .x_dot = x_dot, .y_dot = y_dot_, .columns = columns_});
    return {ordered(y_dot_).contiguous()};
  }

  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override {
    r_ = sums_of_rows(y_);
    const at::Tensor x_bar = sink.wants(0) ? at::empty_like(y_) : at::Tensor();
    fused::log_softmax_adjoint({.y = y_, .y_bar = rows(y_bar[0][0]), .x_bar = x_bar, .r = r_, .columns = columns_});
    if (x_bar.defined()) sink.add(0, ordered(x_bar).unsqueeze(0));
  }

  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    const at::Tensor y_dot = std::exchange(y_dot_, {});
    const bool bends = y_dot.defined() && r_.defined();
    if (!sink.wants(0) || (!bends && !y_bar_dot[0].defined())) return;
    const at::Tensor of_rows = y_bar_dot[0].defined() ? rows(y_bar_dot[0]) : at::Tensor();
    const at::Tensor x_bar_dot = at::empty_like(bends ? y_dot : of_rows);
    fused::log_softmax_adjoint_tangent({.y = y_,
                                        .y_dot = bends ? y_dot : at::Tensor(),
                                        .r = bends ? r_ : at::Tensor(),
                                        .y_bar_dot = of_rows,
                                        .x_bar_dot = x_bar_dot,
                                        .columns = columns_});
    sink.add(0, ordered(x_bar_dot));
  }

 private:
  at::Tensor y_, r_, y_dot_;  // by rows; r = Σ y_bar
};

}  // namespace

const RuleTable& softmax_rules() {
  static const RuleTable rules = {
      {{"softmax", "_softmax", "special_softmax", "_safe_softmax"}, make_rule<Softmax>},
      {{"_masked_softmax"}, make_rule<MaskedSoftmax>},
      {{"log_softmax", "_log_softmax", "special_log_softmax"}, make_rule<LogSoftmax>},
  };
  return rules;
}

}  // namespace hesspect
