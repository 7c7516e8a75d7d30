// Convolutions of one to three dimensions, transposed ones too: bilinear, two terms each way.
#include <ATen/ATen.h>

#include "named_argument.h"

#include "../image_layout.h"
#include "../registry.h"
#include "../stacked.h"

namespace hesspect {
namespace {

using c10::IValue;

/// Everything but the tensors.
struct Geometry {
  std::vector<std::int64_t> stride, padding, dilation, output_padding;
  bool transposed = false;
  std::int64_t groups = 1;
  bool is_known = false;  // false: padding that is not the same on both sides

  explicit Geometry(const Arguments& arguments)
      : transposed(arguments.instruction.op->schema().name().starts_with("aten::conv_transpose")) {
    const at::Tensor& w = arguments.tensor(1);
    const auto list = [&](std::string_view name, std::int64_t otherwise) {
      const IValue value = argument_named(arguments, name);
      const auto rank = static_cast<std::size_t>(w.dim() - 2);
      std::vector<std::int64_t> each = value.isIntList() ? value.toIntVector() : std::vector{otherwise};
      if (each.size() == 1) each.resize(rank, each[0]);
      return each;
    };
    stride = list("stride", 1);
    padding = list("padding", 0);
    dilation = list("dilation", 1);
    output_padding = list("output_padding", 0);
    if (const IValue value = argument_named(arguments, "transposed"); value.isBool()) transposed = value.toBool();
    groups = argument_named(arguments, "groups").toInt();
    is_known = true;
    if (const IValue words = argument_named(arguments, "padding"); words.isString() && words.toStringRef() == "same")
      for (std::size_t d = 0; d < padding.size(); ++d) {
        const std::int64_t both = dilation[d] * (w.size(static_cast<std::int64_t>(d) + 2) - 1);
        padding[d] = both / 2;
        is_known = is_known && both % 2 == 0;
      }
  }

  at::Tensor convolution(const at::Tensor& x, const at::Tensor& w, const at::Tensor& bias = {}) const {
    const std::optional<at::Tensor> b = bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt;
    return at::convolution(x, w, b, stride, padding, dilation, transposed, output_padding, groups);
  }
  /// The adjoint of x from that of y. @param x  its shape and layout alone matter
  at::Tensor adjoint_of_x(const at::Tensor& y_bar, const at::Tensor& x, const at::Tensor& w) const {
    return std::get<0>(adjoints(y_bar, x, w, {true, false, false}));
  }
  at::Tensor adjoint_of_w(const at::Tensor& y_bar, const at::Tensor& x, const at::Tensor& w) const {
    return std::get<1>(adjoints(y_bar, x, w, {false, true, false}));
  }

 private:
  std::tuple<at::Tensor, at::Tensor, at::Tensor> adjoints(const at::Tensor& y_bar, const at::Tensor& x,
                                                          const at::Tensor& w, std::array<bool, 3> which) const {
    return at::convolution_backward(y_bar, x, w, at::OptionalIntArrayRef(), stride, padding, dilation, transposed,
                                    output_padding, groups, which);
  }
};

/// convolution(x, W, b) and its kin: y = x * W + b. Tangents that share W go through it in one call, their batches one
/// after the other.
class Convolution final : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) {
    const at::Tensor &x = arguments.tensor(0), &w = arguments.tensor(1);
    return at::isFloatingType(x.scalar_type()) && x.scalar_type() == w.scalar_type() && x.dim() == w.dim() &&
           w.dim() >= 3 && !arguments.active_beyond({0, 1, 2}) && Geometry(arguments).is_known;
  }

  explicit Convolution(Arguments arguments)
      : geometry_(arguments),
        // oneDNN takes float32 images with their channels last as they are, and copies others to and fro at each call.
        is_channels_last_(arguments.tensor(1).dim() == 4 && arguments.tensor(1).is_cpu() &&
                          arguments.tensor(1).scalar_type() == at::kFloat),
        w_(weights(arguments.tensor(1))),
        bias_(arguments.optional_tensor(2)),
        keeps_x_(arguments.active(1)),
        x_shape_(arguments.tensor(0).sizes().vec()),
        x_(inner(arguments.tensor(0))) {}

  std::vector<at::Tensor> value() override {
    at::Tensor y = geometry_.convolution(x_, w_, bias_);
    y_shape_ = y.sizes().vec();
    if (!keeps_x_) x_ = at::Tensor();
    return {part(outer(y, 1), 0)};
  }

  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    const std::int64_t k = dots.count();
    x_dot_ = dots.at(0).defined() ? inner(all_images(dots.at(0))) : at::Tensor();
    w_dot_.clear();
    if (dots.at(1).defined())
      for (std::int64_t i = 0; i < k; ++i) w_dot_.push_back(weights(part(dots.at(1), i)));
    at::Tensor y_dot;
    if (x_dot_.defined()) y_dot = geometry_.convolution(x_dot_, w_);
    if (!keeps_x_) x_dot_ = at::Tensor();  // only W's adjoint would ask for it
    if (!w_dot_.empty())
      y_dot = with_each(y_dot, k, [&](std::size_t i) { return geometry_.convolution(x_, w_dot_[i]); });
    else
      y_dot = y_dot.defined() ? outer(y_dot, k) : stacked_zeros(k, y_shape_, w_);
    if (dots.at(2).defined()) y_dot.add_(reshaped(dots.at(2), per_channel(k)));
    return {y_dot};
  }

  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override {
    y_bar_ = inner(part(y_bar[0], 0));
    if (sink.wants(0)) sink.add(0, outer(geometry_.adjoint_of_x(y_bar_, blank_x(1), w_), 1));
    pull_parameters(y_bar_, sink);
  }

  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    const at::Tensor x_dot = std::exchange(x_dot_, {});
    const std::vector<at::Tensor> w_dot = std::exchange(w_dot_, {});
    const std::int64_t k = sink.count();
    at::Tensor y;
    if (y_bar_dot[0].defined()) y = inner(all_images(y_bar_dot[0]));
    if (sink.wants(0)) {
      at::Tensor x_bar_dot;
      if (y.defined()) x_bar_dot = geometry_.adjoint_of_x(y, blank_x(k), w_);
      if (y_bar_.defined() && !w_dot.empty())
        sink.add(0, with_each(x_bar_dot, k,
                              [&](std::size_t i) { return geometry_.adjoint_of_x(y_bar_, blank_x(1), w_dot[i]); }));
      else if (x_bar_dot.defined())
        sink.add(0, outer(x_bar_dot, k));
    }
    if (y.defined()) pull_parameters(y, sink);
    if (sink.wants(1) && y_bar_.defined() && x_dot.defined()) {
      const at::Tensor sum = sink.open_or_zeros(1, w_);
      for (std::int64_t i = 0; i < k; ++i) add_to(sum, i, geometry_.adjoint_of_w(y_bar_, images_of(x_dot, i), w_));
    }
  }

 private:
  at::Tensor inner(const at::Tensor& t) const { return is_channels_last_ ? channels_last(t) : t.contiguous(); }
  /// Images [K N, …] -> [K, N, …], which lie as they did: channels last stay so in what follows (image_layout.h).
  static at::Tensor outer(const at::Tensor& t, std::int64_t k) {
    std::vector<std::int64_t> shape{k, t.size(0) / k};
    shape.insert(shape.end(), t.sizes().begin() + 1, t.sizes().end());
    return reshaped(t, shape);
  }
  /// [K, N, …] -> [K N, …].
  static at::Tensor all_images(const at::Tensor& stacked) {
    std::vector<std::int64_t> shape(stacked.sizes().begin() + 1, stacked.sizes().end());
    shape[0] *= stacked.size(0);
    return reshaped(stacked, shape);
  }
  /// As calls with such images want them, which would else copy them each time.
  at::Tensor weights(const at::Tensor& w) const {
    return is_channels_last_ ? w.contiguous(at::MemoryFormat::ChannelsLast) : w;
  }
  static void add_to(const at::Tensor& sum, std::int64_t k, const at::Tensor& t) { part(sum, k).add_(t); }
  /// The k-th of tangents [K N, …].
  at::Tensor images_of(const at::Tensor& t, std::int64_t k) const {
    return narrowed(t, 0, k * x_shape_[0], x_shape_[0]);
  }
  /// Memory that nobody reads, in the place of K inputs.
  at::Tensor blank_x(std::int64_t k) const {
    std::vector<std::int64_t> shape = x_shape_;
    shape[0] *= k;
    return at::empty(shape, w_.options(),
                     is_channels_last_ ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous);
  }
  std::vector<std::int64_t> per_channel(std::int64_t k) const {
    std::vector<std::int64_t> shape(y_shape_.size() + 1, 1);
    shape[0] = k;
    shape[2] = y_shape_[1];
    return shape;
  }

  /// make(k) for each tangent, added to a sum [K N, …] of our own, which may be undefined. @return [K, N, …]
  template <class Make>
  static at::Tensor with_each(const at::Tensor& sum, std::int64_t k, Make make) {
    if (!sum.defined()) return each_made(k, make);
    const at::Tensor result = outer(sum, k);
    for (std::int64_t i = 0; i < k; ++i) part(result, i).add_(make(static_cast<std::size_t>(i)));
    return result;
  }
  template <class Make>
  static at::Tensor each_made(std::int64_t k, Make make) {
    const at::Tensor first = make(0);
    if (k == 1) return stacked_alone(first);
    std::vector<at::Tensor> images{first};
    for (std::int64_t i = 1; i < k; ++i) images.push_back(make(static_cast<std::size_t>(i)));
    return outer(at::cat(images), k);
  }

  /// Adds what adjoints y [K N, …] give the weight and the bias.
  void pull_parameters(const at::Tensor& y, Sink& sink) const {
    const std::int64_t k = sink.count();
    if (sink.wants(1)) {
      const at::Tensor sum = sink.open_or_zeros(1, w_);
      for (std::int64_t i = 0; i < k; ++i) add_to(sum, i, geometry_.adjoint_of_w(images_of(y, i), x_, w_));
    }
    if (!bias_.defined() || !sink.wants(2)) return;
    std::vector<std::int64_t> over{1};
    for (std::int64_t d = 3; d <= y.dim(); ++d) over.push_back(d);
    sink.add(2, outer(y, k).sum(over));
  }

  Geometry geometry_;
  bool is_channels_last_;
  at::Tensor w_, bias_;
  bool keeps_x_;
  std::vector<std::int64_t> x_shape_, y_shape_;
  at::Tensor x_, y_bar_, x_dot_;   // images as `inner` lays them
  std::vector<at::Tensor> w_dot_;  // of each tangent
};

}  // namespace

const RuleTable& convolution_rules() {
  static const RuleTable rules = {
      {{"convolution", "_convolution", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
        "conv_transpose3d"},
       make_rule<Convolution>},
  };
  return rules;
}

}  // namespace hesspect
