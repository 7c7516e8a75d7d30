// Pooling, resampling and windows of images: linear where which entries they take is held fast.
#include <ATen/ATen.h>

#include "named_argument.h"
#include "one_to_one.h"

namespace hesspect {
namespace {

using c10::IValue;

/// `dims` numbers: as many as there are, or one for all.
std::vector<std::int64_t> each_dimension(const IValue& value, std::int64_t dims, std::vector<std::int64_t> otherwise) {
  std::vector<std::int64_t> list = value.isIntList() ? value.toIntVector() : std::vector<std::int64_t>{};
  if (value.isInt()) list = {value.toInt()};
  if (list.empty()) list = std::move(otherwise);
  if (list.size() == 1) list.resize(static_cast<std::size_t>(dims), list[0]);
  return list;
}

/// How many dimensions of an image a pooling works on: the digit in its name.
std::int64_t dimensions_of(const Arguments& arguments) {
  const std::string& name = arguments.instruction.op->schema().name();
  return name[name.find_first_of("123")] - '0';
}

/// An op of images [N, C, …] alone that is linear: tangents go through it as if they were more images.
class OfImages : public OneToOne {
 public:
  static bool covers(const Arguments& arguments) {
    return OneToOne::covers(arguments) && arguments.tensor(0).dim() == dimensions_of(arguments) + 2;
  }

  explicit OfImages(Arguments arguments) : OneToOne(std::move(arguments)), dims_(dimensions_of(arguments_)) {}

  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    const at::Tensor x_dot = dots.at(0);
    return {of(x_dot.flatten(0, 1)).unflatten(0, {x_dot.size(0), shape_[0]})};
  }

 protected:
  /// The adjoint of images [K N, …] of adjoints of y. @param shape  of the result
  virtual at::Tensor back(const at::Tensor& y, at::IntArrayRef shape) const = 0;
  std::vector<std::int64_t> list(std::string_view name, std::vector<std::int64_t> otherwise) const {
    return each_dimension(argument_named(arguments_, name), dims_, std::move(otherwise));
  }

  std::int64_t dims_;

 private:
  void pull(const at::Tensor& y, Sink& sink) const override {
    std::vector<std::int64_t> shape = shape_;
    shape[0] *= y.size(0);
    sink.add(0, back(y.flatten(0, 1), shape).unflatten(0, {y.size(0), shape_[0]}));
  }
};

/// avg_pool1d, 2d, 3d
class AveragePool final : public OfImages {
 public:
  explicit AveragePool(Arguments arguments)
      : OfImages(std::move(arguments)),
        kernel_(list("kernel_size", {1})),
        stride_(list("stride", kernel_)),
        padding_(list("padding", {0})),
        ceil_mode_(argument_named(arguments_, "ceil_mode").toBool()),
        count_include_pad_(argument_named(arguments_, "count_include_pad").toBool()),
        divisor_(argument_named(arguments_, "divisor_override").toOptional<std::int64_t>()) {}

 private:
  at::Tensor back(const at::Tensor& y, at::IntArrayRef shape) const override {
    const at::Tensor x = at::empty(shape, like_.options());
    if (dims_ == 3)
      return at::avg_pool3d_backward(y, x, kernel_, stride_, padding_, ceil_mode_, count_include_pad_, divisor_);
    if (dims_ == 2)
      return at::avg_pool2d_backward(y, x, kernel_, stride_, padding_, ceil_mode_, count_include_pad_, divisor_);
    // A row is an image of height 1.
    return at::avg_pool2d_backward(y.unsqueeze(-2), x.unsqueeze(-2), {1, kernel_[0]}, {1, stride_[0]}, {0, padding_[0]},
                                   ceil_mode_, count_include_pad_, divisor_)
        .squeeze(-2);
  }

  std::vector<std::int64_t> kernel_, stride_, padding_;
  bool ceil_mode_, count_include_pad_;
  std::optional<std::int64_t> divisor_;
};

/// adaptive_avg_pool1d, 2d, 3d
class AdaptiveAveragePool final : public OfImages {
 public:
  using OfImages::OfImages;

 private:
  at::Tensor back(const at::Tensor& y, at::IntArrayRef shape) const override {
    bool is_mean = true;
    std::int64_t count = 1;
    for (std::int64_t d = 2; d < y.dim(); ++d) {
      is_mean = is_mean && y.size(d) == 1;
      count *= shape[static_cast<std::size_t>(d)];
    }
    if (is_mean) return (y / count).expand(shape).contiguous();
    const at::Tensor x = at::empty(shape, like_.options());
    if (dims_ == 3) return at::_adaptive_avg_pool3d_backward(y, x);
    if (dims_ == 2) return at::_adaptive_avg_pool2d_backward(y, x);
    return at::_adaptive_avg_pool2d_backward(y.unsqueeze(-2), x.unsqueeze(-2)).squeeze(-2);
  }
};

/// max_pool1d, 2d, 3d and those with indices: which entry is the largest is held fast.
class MaxPool final : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) {
    return !arguments.active_beyond({0}) && arguments.tensor(0).dim() == dimensions_of(arguments) + 2;
  }

  explicit MaxPool(Arguments arguments)
      : arguments_(std::move(arguments)),
        shape_(arguments_.tensor(0).sizes().vec()),
        like_(at::empty({}, arguments_.tensor(0).options())) {}

  std::vector<at::Tensor> value() override {
    const at::Tensor x = arguments_.tensor(0);
    arguments_.values[0] = IValue();
    const std::int64_t dims = dimensions_of(arguments_);
    const auto list = [&](std::string_view name, std::vector<std::int64_t> otherwise) {
      return each_dimension(argument_named(arguments_, name), dims, std::move(otherwise));
    };
    const std::vector<std::int64_t> kernel = list("kernel_size", {1}), stride = list("stride", kernel),
                                    padding = list("padding", {0}), dilation = list("dilation", {1});
    const bool ceil_mode = argument_named(arguments_, "ceil_mode").toBool();
    const auto [y, index] = dims == 1   ? at::max_pool1d_with_indices(x, kernel, stride, padding, dilation, ceil_mode)
                            : dims == 2 ? at::max_pool2d_with_indices(x, kernel, stride, padding, dilation, ceil_mode)
                                        : at::max_pool3d_with_indices(x, kernel, stride, padding, dilation, ceil_mode);
    y_shape_ = y.sizes().vec();
    index_ = index.contiguous().view({shape_[0], shape_[1], -1});
    return {y, index};
  }

  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    const std::int64_t k = dots.count();
    return {planes(dots.at(0)).gather(3, index_.unsqueeze(0).expand({k, -1, -1, -1})).view(with_count(k, y_shape_))};
  }
  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override { pull(y_bar[0], sink); }
  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override { pull(y_bar_dot[0], sink); }

 private:
  /// [K, N, C, …] -> [K, N, C, entries of an image]
  at::Tensor planes(const at::Tensor& t) const { return t.reshape({t.size(0), shape_[0], shape_[1], -1}); }

  void pull(const at::Tensor& y, Sink& sink) const {
    if (!y.defined() || !sink.wants(0)) return;
    const std::int64_t k = y.size(0);
    const at::Tensor whole = stacked_zeros(k, shape_, like_);
    planes(whole).scatter_add_(3, index_.unsqueeze(0).expand({k, -1, -1, -1}), planes(y));
    sink.add(0, whole);
  }

  Arguments arguments_;
  std::vector<std::int64_t> shape_, y_shape_;  // of x and y
  at::Tensor like_, index_;                    // [N, C, entries of y]: places in an image
};

/// upsample_nearest1d to 3d, upsample_linear1d, bilinear2d, bicubic2d and trilinear3d: the adjoint is the backward op
/// of the same name, whose arguments follow the sizes.
class Upsample final : public OfImages {
 public:
  static bool covers(const Arguments& arguments) {
    return OfImages::covers(arguments) && backward_of(arguments).has_value();
  }

  explicit Upsample(Arguments arguments) : OfImages(std::move(arguments)), backward_(*backward_of(arguments_)) {}

 private:
  /// upsample_bilinear2d(x, output_size, align_corners, scales…) has upsample_bilinear2d_backward(y, output_size,
  /// input_size, align_corners, scales…); overload `vec` takes sizes or factors in lists.
  static std::optional<c10::OperatorHandle> backward_of(const Arguments& arguments) {
    return c10::Dispatcher::singleton().findSchema({arguments.instruction.op->schema().name() + "_backward", ""});
  }

  at::Tensor back(const at::Tensor& y, at::IntArrayRef shape) const override {
    std::vector<IValue> stack{y, std::vector<std::int64_t>(y.sizes().begin() + 2, y.sizes().end()), shape.vec()};
    if (const IValue corners = argument_named(arguments_, "align_corners"); corners.isBool()) stack.push_back(corners);
    const IValue factors = argument_named(arguments_, "scale_factors");
    for (std::int64_t d = 0; d < dims_; ++d) {
      static constexpr std::array<std::string_view, 3> kNames = {"scales_w", "scales_h", "scales_d"};
      if (factors.isDoubleList())
        stack.push_back(factors.toDoubleVector().at(static_cast<std::size_t>(d)));
      else
        stack.push_back(
            argument_named(arguments_, dims_ == 1 ? "scales" : kNames[static_cast<std::size_t>(dims_ - 1 - d)]));
    }
    backward_.callBoxed(stack);
    return stack.at(0).toTensor();
  }

  c10::OperatorHandle backward_;
};

/// im2col(x, kernel_size, dilation, padding, stride): windows as columns; the adjoint is col2im.
class Windows final : public OfImages {
 public:
  using OfImages::OfImages;

 private:
  at::Tensor back(const at::Tensor& y, at::IntArrayRef shape) const override {
    return at::col2im(y, shape.slice(2), list("kernel_size", {1}), list("dilation", {1}), list("padding", {0}),
                      list("stride", {1}));
  }
};

/// unfold(x, dimension, size, step): windows along one dimension, as a view.
class Unfold final : public OneToOne {
 public:
  static bool covers(const Arguments& arguments) {
    return OneToOne::covers(arguments) && arguments.tensor(0).dim() > 0;
  }
  using OneToOne::OneToOne;

 private:
  void pull(const at::Tensor& y, Sink& sink) const override {
    const std::int64_t dimension = arguments_.values[1].toInt();
    sink.add(0, at::unfold_backward(y, stacked_shape(y.size(0)), dimension < 0 ? dimension : dimension + 1,
                                    arguments_.values[2].toInt(), arguments_.values[3].toInt()));
  }
};

/// pixel_shuffle and pixel_unshuffle: each is the other's adjoint. Leading dimensions are free.
class PixelShuffle final : public OneToOne {
 public:
  using OneToOne::OneToOne;

  std::vector<at::Tensor> tangent(const Tangents& dots) override { return {of(dots.at(0))}; }

 private:
  void pull(const at::Tensor& y, Sink& sink) const override {
    const std::int64_t factor = arguments_.values[1].toInt();
    const bool shuffles = arguments_.instruction.op->schema().name() == "aten::pixel_shuffle";
    sink.add(0, shuffles ? at::pixel_unshuffle(y, factor) : at::pixel_shuffle(y, factor));
  }
};

}  // namespace

const RuleTable& pooling_rules() {
  static const RuleTable rules = {
      {{"avg_pool1d", "avg_pool2d", "avg_pool3d"}, make_rule<AveragePool>},
      {{"adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "_adaptive_avg_pool2d",
        "_adaptive_avg_pool3d"},
       make_rule<AdaptiveAveragePool>},
      {{"max_pool1d", "max_pool2d", "max_pool3d", "max_pool1d_with_indices", "max_pool2d_with_indices",
        "max_pool3d_with_indices"},
       make_rule<MaxPool>},
      {{"upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact1d",
        "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "upsample_linear1d", "upsample_bilinear2d",
        "upsample_bicubic2d", "upsample_trilinear3d"},
       make_rule<Upsample>},
      {{"im2col"}, make_rule<Windows>},
      {{"unfold"}, make_rule<Unfold>},
      {{"pixel_shuffle", "pixel_unshuffle"}, make_rule<PixelShuffle>},
  };
  return rules;
}

}  // namespace hesspect
