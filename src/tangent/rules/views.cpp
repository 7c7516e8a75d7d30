// Ops that only move entries about: the tangent is the op itself, the adjoint moves them back.
#include <ATen/ATen.h>
#include <ATen/WrapDimUtils.h>

#include "../image_layout.h"
#include "one_to_one.h"

namespace hesspect {
namespace {

using c10::IValue;

/// view, reshape, unsqueeze and the like: entries keep their order.
class Reshape final : public OneToOne {
 public:
  /// A view is a view of what the program was exported with; images may have their channels last here.
  explicit Reshape(Arguments arguments) : OneToOne(std::move(arguments)) {
    if (const at::Tensor x = arguments_.tensor(0); ImageLayout(x).is_channels_last())
      arguments_.values[0] = channels_first(x);
  }

  std::vector<at::Tensor> tangent(const Tangents& x_dot) override {
    return {reshaped(x_dot.at(0), with_count(x_dot.count(), y_shape_))};
  }

 private:
  void pull(const at::Tensor& y, Sink& sink) const override {
    sink.add(0, reshaped(y, with_count(y.size(0), shape_)), /*own=*/false);
  }
};

/// clone, contiguous, dropout in eval mode, conversions between types: the value itself.
class Same final : public OneToOne {
 public:
  using OneToOne::OneToOne;

 private:
  void pull(const at::Tensor& y, Sink& sink) const override {
    const bool loses_imaginary = y.is_complex() && !like_.is_complex();
    if (y.scalar_type() == like_.scalar_type() && y.device() == like_.device()) return sink.add(0, y, /*own=*/false);
    sink.add(0, (loses_imaginary ? at::real(y) : y).to(like_.device(), like_.scalar_type()), /*own=*/false);
  }
};

/// permute, transpose, t, movedim: the dimensions change places.
class Permute final : public OneToOne {
 public:
  explicit Permute(Arguments arguments) : OneToOne(std::move(arguments)) {
    // Where each dimension goes is read off a tensor whose sizes tell them apart.
    std::vector<std::int64_t> sizes;
    for (std::size_t d = 0; d < shape_.size(); ++d) sizes.push_back(static_cast<std::int64_t>(d) + 2);
    const at::Tensor moved = of(at::empty({}, at::kByte).expand(sizes));
    back_.assign(shape_.size() + 1, 0);
    forth_.assign(1, 0);
    for (std::int64_t d = 0; d < moved.dim(); ++d) {
      back_[static_cast<std::size_t>(moved.size(d)) - 1] = d + 1;
      forth_.push_back(moved.size(d) - 1);
    }
  }

  std::vector<at::Tensor> tangent(const Tangents& x_dot) override { return {permuted(x_dot.at(0), forth_)}; }

 private:
  void pull(const at::Tensor& y, Sink& sink) const override { sink.add(0, permuted(y, back_), /*own=*/false); }

  std::vector<std::int64_t> forth_, back_;  // of stacked tensors
};

/// expand and the like: what was broadcast is summed.
class Expand final : public OneToOne {
 public:
  using OneToOne::OneToOne;

 private:
  void pull(const at::Tensor& y, Sink& sink) const override {
    const at::Tensor sum = summed_to(y, shape_);
    sink.add(0, sum, /*own=*/!sum.is_alias_of(y));
  }
};

/// slice, select, narrow, diagonal: some of the entries. The adjoint is added into their place.
class Part final : public OneToOne {
 public:
  using OneToOne::OneToOne;

 private:
  void pull(const at::Tensor& y, Sink& sink) const override {
    if (y_shape_ == shape_) return sink.add(0, y, /*own=*/false);
    const at::Tensor whole = sink.open_or_zeros(0, like());
    for (std::int64_t k = 0; k < y.size(0); ++k) of(whole[k]).add_(y[k]);
  }
};

/// flip, tril, triu, neg: symmetric matrices.
class Symmetric final : public OneToOne {
 public:
  using OneToOne::OneToOne;

 private:
  void pull(const at::Tensor& y, Sink& sink) const override {
    sink.add(0, each(y, [&](const at::Tensor& t) { return of(t); }));
  }
};

/// roll(x, shifts, dims): rolled back.
class Roll final : public OneToOne {
 public:
  using OneToOne::OneToOne;

 private:
  void pull(const at::Tensor& y, Sink& sink) const override {
    std::vector<std::int64_t> shifts = arguments_.values[1].toIntVector();
    for (std::int64_t& shift : shifts) shift = -shift;
    const std::vector<std::int64_t> dims = arguments_.values[2].toIntVector();
    sink.add(0, each(y, [&](const at::Tensor& t) { return at::roll(t, shifts, dims); }));
  }
};

/// constant_pad_nd, and pad in that mode: the middle is the argument, the rim a constant.
class Pad final : public OneToOne {
 public:
  static bool covers(const Arguments& arguments) {
    const IValue mode = arguments.values.size() > 2 ? arguments.values[2] : IValue();
    return OneToOne::covers(arguments) && (!mode.isString() || mode.toStringRef() == "constant");
  }

  explicit Pad(Arguments arguments) : OneToOne(std::move(arguments)), pads_(arguments_.values[1].toIntVector()) {}

  std::vector<at::Tensor> tangent(const Tangents& x_dot) override {
    return {at::constant_pad_nd(x_dot.at(0), pads_, 0)};
  }

 private:
  void pull(const at::Tensor& y, Sink& sink) const override {
    std::vector<std::int64_t> back = pads_;
    for (std::int64_t& pad : back) pad = -pad;
    sink.add(0, at::constant_pad_nd(y, back, 0));
  }

  std::vector<std::int64_t> pads_;
};

/// split, chunk, unbind: all parts of one argument.
class Split final : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) { return !arguments.active_beyond({0}); }

  explicit Split(Arguments arguments)
      : arguments_(std::move(arguments)),
        like_(at::empty({}, arguments_.tensor(0).options())),
        is_unbind_(arguments_.instruction.op->schema().name() == "aten::unbind"),
        dim_(at::maybe_wrap_dim(arguments_.values.at(is_unbind_ ? 1 : 2).toInt(), arguments_.tensor(0).dim())) {}

  std::vector<at::Tensor> value() override {
    std::vector<at::Tensor> parts = of(arguments_.tensor(0));
    for (const at::Tensor& part : parts) shapes_.push_back(part.sizes().vec());
    arguments_.values[0] = IValue();
    return parts;
  }

  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    const at::Tensor x_dot = dots.at(0);
    if (!is_unbind_) return parts_of(x_dot);
    std::vector<std::vector<at::Tensor>> by_part(shapes_.size());
    for (std::int64_t k = 0; k < x_dot.size(0); ++k) {
      const std::vector<at::Tensor> parts = of(x_dot[k]);
      for (std::size_t i = 0; i < parts.size(); ++i) by_part[i].push_back(parts[i]);
    }
    std::vector<at::Tensor> y_dot;
    for (const std::vector<at::Tensor>& parts : by_part) y_dot.push_back(restacked(parts));
    return y_dot;
  }

  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override { pull(y_bar, sink); }
  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override { pull(y_bar_dot, sink); }

 private:
  std::vector<at::Tensor> of(const at::Tensor& x) const {
    std::vector<IValue> stack = arguments_.values;
    stack[0] = x;
    arguments_.call(stack);
    return stack.at(0).toTensorVector();
  }

  /// Of stacked tensors, where the parts lie one behind the other along the dimension.
  std::vector<at::Tensor> parts_of(const at::Tensor& stacked) const {
    std::vector<at::Tensor> parts;
    std::int64_t begin = 0;
    for (const std::vector<std::int64_t>& shape : shapes_) {
      const std::int64_t length = shape[static_cast<std::size_t>(dim_)];
      parts.push_back(narrowed(stacked, dim_ + 1, begin, length));
      begin += length;
    }
    return parts;
  }

  void pull(std::span<const at::Tensor> y, Sink& sink) const {
    if (!sink.wants(0)) return;
    std::vector<at::Tensor> parts;
    bool any = false;
    for (std::size_t i = 0; i < shapes_.size(); ++i) {
      any = any || y[i].defined();
      parts.push_back(y[i].defined() ? y[i] : stacked_zeros(sink.count(), shapes_[i], like_));
      if (is_unbind_) parts.back() = parts.back().unsqueeze(dim_ + 1);
    }
    if (any) sink.add(0, at::cat(parts, dim_ + 1));
  }

  Arguments arguments_;
  at::Tensor like_;
  bool is_unbind_;
  std::int64_t dim_;
  std::vector<std::vector<std::int64_t>> shapes_;  // of the parts
};

/// cat, stack.
class Join final : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) {
    const std::vector<at::Tensor> tensors = arguments.values[0].toTensorVector();
    for (const at::Tensor& tensor : tensors)
      if (tensor.scalar_type() != tensors[0].scalar_type()) return false;
    return !arguments.active_beyond({0});
  }

  explicit Join(Arguments arguments)
      : arguments_(std::move(arguments)), is_stack_(arguments_.instruction.op->schema().name() == "aten::stack") {}

  std::vector<at::Tensor> value() override {
    const std::vector<at::Tensor> tensors = arguments_.values[0].toTensorVector();
    std::vector<IValue> stack = arguments_.values;
    arguments_.call(stack);
    at::Tensor y = stack.at(0).toTensor();
    dim_ = at::maybe_wrap_dim(arguments_.values[1].toInt(), y.dim());
    for (const at::Tensor& t : tensors) {
      shapes_.push_back(t.sizes().vec());
      // cat skips empty tensors of one dimension, as PyTorch does for the sake of old programs.
      const bool is_skipped = !is_stack_ && t.dim() == 1 && t.numel() == 0;
      lengths_.push_back(is_skipped ? 0 : is_stack_ ? 1 : t.size(dim_));
    }
    like_ = at::empty({}, y.options());
    arguments_.values[0] = IValue();
    return {std::move(y)};
  }

  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    std::vector<at::Tensor> parts;
    for (std::size_t i = 0; i < shapes_.size(); ++i) {
      if (lengths_[i] == 0) continue;
      at::Tensor part = dots.at(0, i);
      if (!part.defined()) part = stacked_zeros(dots.count(), shapes_[i], like_);
      parts.push_back(is_stack_ ? part.unsqueeze(dim_ + 1) : part);
    }
    return {at::cat(parts, dim_ + 1)};
  }

  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override { pull(y_bar[0], sink); }
  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    if (y_bar_dot[0].defined()) pull(y_bar_dot[0], sink);
  }

 private:
  void pull(const at::Tensor& y, Sink& sink) const {
    std::int64_t at = 0;
    for (std::size_t i = 0; i < lengths_.size(); at += lengths_[i++]) {
      if (lengths_[i] == 0 || !sink.wants(0, i)) continue;
      const at::Tensor part = y.narrow(dim_ + 1, at, lengths_[i]);
      sink.add(0, is_stack_ ? part.squeeze(dim_ + 1) : part, /*own=*/false, i);
    }
  }

  Arguments arguments_;
  bool is_stack_;
  std::int64_t dim_ = 0;
  std::vector<std::vector<std::int64_t>> shapes_;
  std::vector<std::int64_t> lengths_;  // along dim; 0: skipped
  at::Tensor like_;
};

}  // namespace

const RuleTable& view_rules() {
  static const RuleTable rules = {
      {{"view", "reshape", "_unsafe_view", "unsqueeze", "squeeze", "flatten", "unflatten", "view_as", "reshape_as"},
       make_rule<Reshape>,
       Redo::kShapes},
      {{"clone", "contiguous", "alias", "dropout", "feature_dropout", "alpha_dropout", "lift_fresh", "positive", "to",
        "_to_copy", "type_as"},
       make_rule<Same>,
       Redo::kShapes},
      {{"permute", "transpose", "t", "movedim", "moveaxis", "swapaxes", "swapdims", "numpy_T", "mT"},
       make_rule<Permute>,
       Redo::kShapes},
      {{"expand", "expand_as", "broadcast_to"}, make_rule<Expand>, Redo::kShapes},
      {{"slice", "select", "narrow", "diagonal"}, make_rule<Part>, Redo::kShapes},
      {{"flip", "tril", "triu", "neg", "negative"}, make_rule<Symmetric>, Redo::kShapes},
      {{"roll"}, make_rule<Roll>, Redo::kShapes},
      {{"constant_pad_nd", "pad"}, make_rule<Pad>, Redo::kShapes},
      {{"split", "split_with_sizes", "chunk", "unbind", "unsafe_split", "unsafe_chunk"}, make_rule<Split>},
      {{"cat", "concat", "concatenate", "stack"}, make_rule<Join>},
  };
  return rules;
}

}  // namespace hesspect
