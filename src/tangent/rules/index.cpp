// Entries that a constant index or condition picks: gather, sort, where, scatter, and repetitions.
#include <ATen/ATen.h>
#include <ATen/WrapDimUtils.h>

#include "named_argument.h"
#include "one_to_one.h"

namespace hesspect {
namespace {

using c10::IValue;

std::int64_t wrapped_dim(const Arguments& arguments) {
  return at::maybe_wrap_dim(argument_named(arguments, "dim").toInt(), arguments.tensor(0).dim());
}

/// An index for each of K tangents.
at::Tensor stacked_index(const at::Tensor& index, std::int64_t k) {
  return index.unsqueeze(0).expand(with_count(k, index.sizes()));
}

at::Tensor copy_or_zeros(const at::Tensor& x_dot, std::int64_t k, at::IntArrayRef shape, const at::Tensor& like) {
  return x_dot.defined() ? x_dot.clone(at::MemoryFormat::Contiguous) : stacked_zeros(k, shape, like);
}

/// y[.., i, ..] = x[.., index[.., i, ..], ..]: gather, and values that are picked by size, whose index is an output.
class Picked : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) {
    return !arguments.active_beyond({0}) && arguments.tensor(0).dim() > 0;
  }

  explicit Picked(Arguments arguments)
      : arguments_(std::move(arguments)),
        shape_(arguments_.tensor(0).sizes().vec()),
        like_(at::empty({}, arguments_.tensor(0).options())) {}

  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    const at::Tensor y_dot = dots.at(0).gather(dim_ + 1, stacked_index(index_, dots.count()));
    return {drops_dim_ ? y_dot.squeeze(dim_ + 1) : y_dot};
  }
  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override { pull(y_bar[0], sink); }
  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override { pull(y_bar_dot[0], sink); }

 protected:
  void pull(const at::Tensor& y, Sink& sink) const {
    if (!y.defined() || !sink.wants(0)) return;
    sink.open_or_zeros(0, like_.expand(shape_))
        .scatter_add_(dim_ + 1, stacked_index(index_, y.size(0)), drops_dim_ ? y.unsqueeze(dim_ + 1) : y);
  }

  Arguments arguments_;
  std::vector<std::int64_t> shape_;  // of x
  at::Tensor like_, index_;
  std::int64_t dim_ = 0;
  bool drops_dim_ = false;
};

/// gather(x, dim, index, sparse_grad), and take_along_dim(x, indices, dim) where x is as large as the indices in all
/// other dimensions.
class Gather final : public Picked {
 public:
  static bool covers(const Arguments& arguments) {
    if (!Picked::covers(arguments) || argument_named(arguments, "dim").isNone()) return false;
    if (arguments.instruction.op->schema().name() == "aten::gather") return arguments.tensor(2).dim() > 0;
    const at::Tensor &x = arguments.tensor(0), &indices = arguments.tensor(1);
    const std::int64_t dim = wrapped_dim(arguments);
    bool same = x.dim() == indices.dim();
    for (std::int64_t d = 0; same && d < x.dim(); ++d)
      same = d == dim || indices.size(d) == 1 || indices.size(d) == x.size(d);
    return same;
  }

  explicit Gather(Arguments arguments) : Picked(std::move(arguments)) {
    dim_ = wrapped_dim(arguments_);
    if (arguments_.instruction.op->schema().name() == "aten::gather") {
      index_ = arguments_.tensor(2);
      return;
    }
    std::vector<std::int64_t> sizes = shape_;
    sizes[static_cast<std::size_t>(dim_)] = arguments_.tensor(1).size(dim_);
    index_ = arguments_.tensor(1).expand(sizes);
  }

  std::vector<at::Tensor> value() override {
    arguments_.call(arguments_.values);
    at::Tensor y = arguments_.values.at(0).toTensor();
    arguments_.values.clear();
    return {std::move(y)};
  }
};

/// max.dim, min.dim, median.dim, mode, kthvalue, topk, sort: values and their index.
class BySize final : public Picked {
 public:
  explicit BySize(Arguments arguments) : Picked(std::move(arguments)) {
    dim_ = wrapped_dim(arguments_);
    const IValue keeps = argument_named(arguments_, "keepdim");
    drops_dim_ = keeps.isBool() && !keeps.toBool();
  }

  std::vector<at::Tensor> value() override {
    arguments_.call(arguments_.values);
    const at::Tensor y = arguments_.values.at(0).toTensor(), index = arguments_.values.at(1).toTensor();
    arguments_.values.clear();
    index_ = drops_dim_ ? index.unsqueeze(dim_) : index;
    return {y, index};
  }
};

/// scatter(x, dim, index, src), scatter_add: src may be a number.
class Scatter final : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) {
    const IValue& src = arguments.values[3];
    return !arguments.active_beyond({0, 3}) && arguments.tensor(0).dim() > 0 &&
           (!src.isTensor() || (src.toTensor().sizes() == arguments.tensor(2).sizes() &&
                                src.toTensor().scalar_type() == arguments.tensor(0).scalar_type()));
  }

  explicit Scatter(Arguments arguments)
      : arguments_(std::move(arguments)),
        adds_(arguments_.instruction.op->schema().name().starts_with("aten::scatter_add")),
        dim_(wrapped_dim(arguments_) + 1),
        shape_(arguments_.tensor(0).sizes().vec()),
        like_(at::empty({}, arguments_.tensor(0).options())),
        index_(arguments_.tensor(2)) {}

  std::vector<at::Tensor> value() override {
    arguments_.call(arguments_.values);
    at::Tensor y = arguments_.values.at(0).toTensor();
    arguments_.values.clear();
    return {std::move(y)};
  }
  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    const at::Tensor index = stacked_index(index_, dots.count());
    const at::Tensor y_dot = copy_or_zeros(dots.at(0), dots.count(), shape_, like_);
    if (!adds_ && dots.at(0).defined()) y_dot.scatter_(dim_, index, 0);
    if (dots.at(3).defined()) y_dot.scatter_add_(dim_, index, dots.at(3));
    return {y_dot};
  }
  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override { pull(y_bar[0], sink); }
  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    if (y_bar_dot[0].defined()) pull(y_bar_dot[0], sink);
  }

 private:
  void pull(const at::Tensor& y, Sink& sink) const {
    const at::Tensor index = stacked_index(index_, y.size(0));
    if (sink.wants(3)) sink.add(3, y.gather(dim_, index));
    if (sink.wants(0)) sink.add(0, adds_ ? y : y.scatter(dim_, index, 0), /*own=*/!adds_);
  }

  Arguments arguments_;
  bool adds_;
  std::int64_t dim_;  // of stacked tensors
  std::vector<std::int64_t> shape_;
  at::Tensor like_, index_;
};

/// index_add(x, dim, index, source, alpha)
class IndexAdd final : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) {
    const at::Tensor &x = arguments.tensor(0), &source = arguments.tensor(3);
    return !arguments.active_beyond({0, 3}) && x.dim() > 0 && x.dim() == source.dim() && arguments.tensor(2).dim() == 1;
  }

  explicit IndexAdd(Arguments arguments)
      : arguments_(std::move(arguments)),
        dim_(wrapped_dim(arguments_) + 1),
        shape_(arguments_.tensor(0).sizes().vec()),
        like_(at::empty({}, arguments_.tensor(0).options())),
        index_(arguments_.tensor(2)),
        alpha_(arguments_.values[4].toScalar()) {}

  std::vector<at::Tensor> value() override {
    arguments_.call(arguments_.values);
    at::Tensor y = arguments_.values.at(0).toTensor();
    arguments_.values.clear();
    return {std::move(y)};
  }
  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    const at::Tensor y_dot = copy_or_zeros(dots.at(0), dots.count(), shape_, like_);
    if (dots.at(3).defined()) y_dot.index_add_(dim_, index_, dots.at(3), alpha_);
    return {y_dot};
  }
  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override { pull(y_bar[0], sink); }
  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    if (y_bar_dot[0].defined()) pull(y_bar_dot[0], sink);
  }

 private:
  void pull(const at::Tensor& y, Sink& sink) const {
    if (sink.wants(3)) sink.add(3, y.index_select(dim_, index_).mul_(alpha_));
    if (sink.wants(0)) sink.add(0, y, /*own=*/false);
  }

  Arguments arguments_;
  std::int64_t dim_;  // of stacked tensors
  std::vector<std::int64_t> shape_;
  at::Tensor like_, index_;
  at::Scalar alpha_;
};

/// where(condition, a, b) and masked_fill(b, condition, a): either may be a number.
class Where final : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) {
    bool is_real = arguments.values.size() == 3;
    for (const IValue& value : arguments.values)
      is_real = is_real && !(value.isTensor() && value.toTensor().is_complex());
    return is_real && !arguments.active(condition_at(arguments));
  }

  explicit Where(Arguments arguments)
      : arguments_(std::move(arguments)),
        condition_(arguments_.tensor(condition_at(arguments_)).to(at::kBool)),
        a_at_(condition_at(arguments_) == 0 ? 1 : 2),
        b_at_(condition_at(arguments_) == 0 ? 2 : 0),
        a_(place_of(arguments_.values[a_at_])),
        b_(place_of(arguments_.values[b_at_])) {}

  std::vector<at::Tensor> value() override {
    arguments_.call(arguments_.values);
    at::Tensor y = arguments_.values.at(0).toTensor();
    arguments_.values.clear();
    y_shape_ = y.sizes().vec();
    type_ = y.scalar_type();
    return {std::move(y)};
  }
  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    const auto rank = static_cast<std::int64_t>(y_shape_.size());
    const at::Tensor a_dot = aligned(dots.at(a_at_), rank), b_dot = aligned(dots.at(b_at_), rank);
    const at::Tensor y_dot = !b_dot.defined()   ? part_a(a_dot)
                             : !a_dot.defined() ? part_b(b_dot)
                                                : at::where(condition_, a_dot, b_dot);
    return {as_output(y_dot, type_, y_shape_)};
  }
  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override { pull(y_bar[0], sink); }
  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    if (y_bar_dot[0].defined()) pull(y_bar_dot[0], sink);
  }

 private:
  struct Place {
    std::vector<std::int64_t> shape;
    at::ScalarType type = at::kFloat;
  };

  static std::size_t condition_at(const Arguments& arguments) {
    return arguments.instruction.op->schema().name().starts_with("aten::where") ? 0 : 1;
  }
  static Place place_of(const IValue& value) {
    if (!value.isTensor()) return {};
    return {value.toTensor().sizes().vec(), value.toTensor().scalar_type()};
  }
  at::Tensor part_a(const at::Tensor& t) const { return at::where(condition_, t, 0); }
  at::Tensor part_b(const at::Tensor& t) const { return at::where(condition_, 0, t); }

  void pull(const at::Tensor& y, Sink& sink) const {
    if (sink.wants(a_at_)) sink.add(a_at_, as_type(summed_to(part_a(y), a_.shape), a_.type));
    if (sink.wants(b_at_)) sink.add(b_at_, as_type(summed_to(part_b(y), b_.shape), b_.type));
  }

  Arguments arguments_;
  at::Tensor condition_;
  std::size_t a_at_, b_at_;
  Place a_, b_;
  std::vector<std::int64_t> y_shape_;
  at::ScalarType type_ = at::kFloat;
};

/// repeat(x, repeats), tile(x, dims)
class Repeat final : public OneToOne {
 public:
  explicit Repeat(Arguments arguments) : OneToOne(std::move(arguments)), repeats_(arguments_.values[1].toIntVector()) {
    while (repeats_.size() < shape_.size()) repeats_.insert(repeats_.begin(), 1);
  }

 private:
  void pull(const at::Tensor& y, Sink& sink) const override {
    std::vector<std::int64_t> sizes{y.size(0)}, over;
    const std::size_t leading = repeats_.size() - shape_.size();
    for (std::size_t d = 0; d < repeats_.size(); ++d) {
      over.push_back(static_cast<std::int64_t>(sizes.size()));
      sizes.push_back(repeats_[d]);
      if (d >= leading) sizes.push_back(shape_[d - leading]);
    }
    sink.add(0, y.reshape(sizes).sum(over));
  }

  std::vector<std::int64_t> repeats_;
};

/// repeat_interleave(x, repeats, dim) with one number of repeats; without a dimension x is flat.
class RepeatInterleave final : public OneToOne {
 public:
  using OneToOne::OneToOne;

 private:
  void pull(const at::Tensor& y, Sink& sink) const override {
    const std::int64_t repeats = arguments_.values[1].toInt();
    const bool is_flat = arguments_.values[2].isNone() || shape_.empty();
    const std::int64_t dim =
        is_flat ? 0 : at::maybe_wrap_dim(arguments_.values[2].toInt(), static_cast<std::int64_t>(shape_.size()));
    const std::int64_t size = is_flat ? like().numel() : shape_[static_cast<std::size_t>(dim)];
    sink.add(0, y.unflatten(dim + 1, {size, repeats}).sum(dim + 2).reshape(stacked_shape(y.size(0))));
  }
};

}  // namespace

const RuleTable& index_rules() {
  static const RuleTable rules = {
      {{"gather", "take_along_dim"}, make_rule<Gather>},
      {{"max.dim", "min.dim", "median.dim", "nanmedian.dim", "mode", "kthvalue", "topk", "sort"}, make_rule<BySize>},
      {{"scatter.src", "scatter.value", "scatter_add", "scatter_.src", "scatter_.value"}, make_rule<Scatter>},
      {{"index_add"}, make_rule<IndexAdd>},
      {{"where", "masked_fill"}, make_rule<Where>},
      {{"repeat", "tile"}, make_rule<Repeat>},
      {{"repeat_interleave.self_int"}, make_rule<RepeatInterleave>},
  };
  return rules;
}

}  // namespace hesspect
