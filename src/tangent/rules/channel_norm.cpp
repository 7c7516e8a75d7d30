// Norms with a weight per channel: group, instance and eval-mode batch norm.
#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "../registry.h"
#include "../stacked.h"
#include "fused_sum.h"
#include "hesspect/tangent/kernels.h"

namespace hesspect {
namespace {

using Kind = FusedSum::Kind;

std::string_view name_of(const Arguments& arguments) { return arguments.instruction.op->schema().name(); }

/// x [N, C, ..] and the weights that are there, of one type that the kernels take; outputs but the first are unread.
bool takes_weights(const Arguments& arguments, std::size_t weight, std::size_t bias) {
  const at::Tensor& x = arguments.tensor(0);
  if (!is_fusible(x) || x.dim() < 2 || x.numel() == 0 || arguments.active_beyond({0, weight, bias})) return false;
  for (const std::size_t operand : {weight, bias}) {
    const at::Tensor w = arguments.optional_tensor(operand);
    if (w.defined() && w.scalar_type() != x.scalar_type()) return false;
  }
  return reads_first_alone(arguments);
}

/// group_norm(x, groups, w, b), instance_norm(x, w, b): y = w x̂ + b with w and b per channel, and x̂ = r (x − ⟨x⟩) over
/// a group's channels.
class GroupNorm final : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) {
    const Layout layout(arguments);
    const bool has_statistics =
        layout.is_instance && (arguments.optional_tensor(3).defined() || !arguments.values[5].toBool());
    return !has_statistics && takes_weights(arguments, layout.weight, layout.bias);
  }

  explicit GroupNorm(const Arguments& arguments)
      : layout_(arguments),
        x_(channels_first(arguments.tensor(0))),
        s_(contiguous(arguments.optional_tensor(layout_.weight))),
        t_(contiguous(arguments.optional_tensor(layout_.bias))),
        shape_(x_.sizes().vec()),
        channels_(x_.size(1)),
        columns_(x_.numel() / (x_.size(0) * channels_)),
        group_(columns_ * (channels_ / layout_.groups)) {
    if (t_.defined() && !s_.defined()) s_ = at::ones({channels_}, x_.options());
  }

  std::vector<at::Tensor> value() override {
    const at::Tensor y = at::empty_like(x_);
    x_hat_ = at::empty_like(x_);
    rstd_ = of_rows(1);
    fused::layer_norm({.x = x_, .y = y, .x_hat = x_hat_, .rstd = rstd_, .columns = group_, .eps = layout_.eps});
    if (s_.defined()) fused::channels({.x = y, .s = s_, .t = t_, .y = y, .channels = channels_, .columns = columns_});
    x_ = t_ = at::Tensor();
    return {y};
  }

  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    x_dot_ = contiguous(dots.at(0));
    s_dot_ = contiguous_parts(dots.at(layout_.weight));
    const std::int64_t count = dots.count();
    if (x_dot_.defined()) {
      mean_dot_ = of_rows(count);
      projection_dot_ = of_rows(count);
    }
    const at::Tensor x_hat_dot = x_dot_.defined() ? make_x_hat_dot(x_dot_, mean_dot_, projection_dot_) : at::Tensor();
    if (!s_.defined()) return {x_hat_dot};
    const at::Tensor y_dot = x_hat_dot.defined() ? x_hat_dot : at::empty(with_count(count, shape_), x_hat_.options());
    fused::channels_tangent({.x_dot = x_hat_dot,
                             .x = x_hat_,
                             .s = s_,
                             .s_dot = s_dot_,
                             .t_dot = contiguous_parts(dots.at(layout_.bias)),
                             .y_dot = y_dot,
                             .channels = channels_,
                             .columns = columns_,
                             .tangents = count});
    return {y_dot};
  }

  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override {
    y_bar_ = channels_first(part(y_bar[0], 0));
    const at::Tensor h = add_to_weights(sink, 1, {.y_bar_dot = y_bar_, .x = x_hat_});
    m1_ = of_rows(1);
    m2_ = of_rows(1);
    FusedSum x(sink, 0, shape_, x_hat_.options(), Kind::kWhole);
    fused::layer_norm_adjoint({.y_bar = h,
                               .x_hat = x_hat_,
                               .rstd = rstd_,
                               .x_bar = x.tensor(),
                               .m1 = m1_,
                               .m2 = m2_,
                               .columns = group_,
                               .add = x.adds()});
    x.close();
  }

  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    const at::Tensor x_dot = std::exchange(x_dot_, {}), s_dot = std::exchange(s_dot_, {});
    const at::Tensor mean_dot = std::exchange(mean_dot_, {}), projection_dot = std::exchange(projection_dot_, {});
    const bool bends = y_bar_.defined() && (x_dot.defined() || s_dot.defined());
    if (!bends && !y_bar_dot[0].defined()) return;
    const at::Tensor y_bar = bends ? y_bar_ : at::Tensor();
    at::Tensor x_hat_dot;
    if (bends && x_dot.defined() && sink.wants(layout_.weight)) x_hat_dot = make_x_hat_dot(x_dot, {}, {});
    // With a weight that moves, h = w y_bar does so though y_bar does not.
    at::Tensor h_dot = contiguous(y_bar_dot[0]);
    if (s_.defined())
      h_dot = add_to_weights(sink, sink.count(),
                             {.y_bar_dot = h_dot, .y_bar = y_bar, .x_dot = x_hat_dot, .x = x_hat_, .s_dot = s_dot});
    if (!sink.wants(0)) return;
    FusedSum x(sink, 0, shape_, x_hat_.options(), Kind::kWhole);
    fused::layer_norm_adjoint_tangent({.y_bar_dot = h_dot,
                                       .y_bar = h_of(y_bar),
                                       .x_dot = x_dot,
                                       .mean_dot = mean_dot,
                                       .projection_dot = projection_dot,
                                       .x_hat = x_hat_,
                                       .rstd = rstd_,
                                       .m1 = m1_,
                                       .m2 = m2_,
                                       .x_bar_dot = x.tensor(),
                                       .columns = group_,
                                       .tangents = sink.count(),
                                       .add = x.adds()});
    x.close();
  }

 private:
  /// Where which op has its arguments.
  struct Layout {
    bool is_instance;
    std::size_t weight = 1, bias = 2;
    std::int64_t groups;
    double eps;

    explicit Layout(const Arguments& arguments) : is_instance(name_of(arguments) == "aten::instance_norm") {
      const bool is_native = name_of(arguments) == "aten::native_group_norm";
      if (!is_instance && !is_native) weight = 2, bias = 3;
      groups = is_instance ? arguments.tensor(0).size(1) : arguments.values[is_native ? 6 : 1].toInt();
      eps = arguments.values[is_instance || is_native ? 7 : 4].toScalar().toDouble();
    }
  };

  at::Tensor of_rows(std::int64_t tangents) const {
    return at::empty({tangents * shape_[0] * layout_.groups}, x_hat_.options());
  }

  at::Tensor make_x_hat_dot(const at::Tensor& x_dot, const at::Tensor& mean_dot,
                            const at::Tensor& projection_dot) const {
    at::Tensor x_hat_dot = at::empty_like(x_dot);
    fused::layer_norm_tangent({.x_dot = x_dot,
                               .x_hat = x_hat_,
                               .rstd = rstd_,
                               .y_dot = x_hat_dot,
                               .mean_dot = mean_dot,
                               .projection_dot = projection_dot,
                               .columns = group_});
    return x_hat_dot;
  }

  /// h = w y_bar; undefined where it is.
  at::Tensor h_of(const at::Tensor& y_bar) const {
    if (!y_bar.defined() || !s_.defined()) return y_bar;
    at::Tensor h = at::empty_like(y_bar);
    fused::channels({.x = y_bar, .s = s_, .y = h, .channels = channels_, .columns = columns_});
    return h;
  }

  /// Runs the adjoint of the channels' scale and shift. @return the adjoint of x̂, or its tangents
  at::Tensor add_to_weights(Sink& sink, std::int64_t count, fused::ChannelsAdjointTangent args) const {
    if (!s_.defined()) return args.y_bar_dot;
    FusedSum w(sink, layout_.weight, {channels_}, x_hat_.options(), Kind::kParts);
    FusedSum b(sink, layout_.bias, {channels_}, x_hat_.options(), Kind::kParts);
    args.s = s_;
    args.x_bar_dot = at::empty(with_count(count, shape_), x_hat_.options());
    args.s_bar_dot = w.tensor();
    args.t_bar_dot = b.tensor();
    args.channels = channels_;
    args.columns = columns_;
    args.tangents = count;
    fused::channels_adjoint_tangent(args);
    w.close();
    b.close();
    return args.x_bar_dot;
  }

  Layout layout_;
  at::Tensor x_, s_, t_;  // s, t: w and b
  std::vector<std::int64_t> shape_;
  std::int64_t channels_, columns_, group_;    // columns of a channel, and of a group of channels
  at::Tensor x_hat_, rstd_, y_bar_, m1_, m2_;  // m1, m2 [N · groups]: ⟨h⟩ and ⟨h∘x̂⟩ with h = w y_bar
  at::Tensor x_dot_, s_dot_, mean_dot_, projection_dot_;
};

/// batch_norm(x, w, b, mean, var) in eval mode: y = s x + t per channel, s = w / √(var + eps), t = b − mean s.
/// Everything lies as x does.
class BatchNorm final : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) {
    const at::Tensor mean = arguments.optional_tensor(3), variance = arguments.optional_tensor(4);
    if (!mean.defined() || !variance.defined() || (has_mode(arguments) && arguments.values[5].toBool())) return false;
    const at::ScalarType type = arguments.tensor(0).scalar_type();
    return mean.scalar_type() == type && variance.scalar_type() == type && takes_weights(arguments, 1, 2);
  }

  explicit BatchNorm(const Arguments& arguments)
      : layout_(arguments.tensor(0)),
        channels_(arguments.tensor(0).size(1)),
        x_(layout_.flat(arguments.tensor(0))),
        mean_(arguments.tensor(3).contiguous()),
        shape_(x_.sizes().vec()),
        columns_(layout_.is_channels_last() ? 1 : x_.numel() / (x_.size(0) * channels_)),
        keeps_x_(arguments.active(1)) {
    const double eps = arguments.values[has_mode(arguments) ? 7 : 6].toScalar().toDouble();
    rstd_ = at::rsqrt(arguments.tensor(4) + eps);
    const at::Tensor w = arguments.optional_tensor(1), b = arguments.optional_tensor(2);
    s_ = w.defined() ? w * rstd_ : rstd_;
    t_ = b.defined() ? b - mean_ * s_ : -mean_ * s_;
  }

  std::vector<at::Tensor> value() override {
    const at::Tensor y = at::empty_like(x_);
    fused::channels({.x = x_, .s = s_, .t = t_, .y = y, .channels = channels_, .columns = columns_});
    t_ = at::Tensor();
    if (!keeps_x_) x_ = at::Tensor();
    return {layout_.shaped(y)};
  }

  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    const at::Tensor x_dot = layout_.flat(dots.at(0)), w_dot = dots.at(1);
    at::Tensor t_dot = dots.at(2);
    s_dot_ = w_dot.defined() ? w_dot * rstd_ : w_dot;
    if (s_dot_.defined()) t_dot = t_dot.defined() ? at::addcmul(t_dot, s_dot_, mean_, -1) : -s_dot_ * mean_;
    const at::Tensor y_dot = at::empty(with_count(dots.count(), shape_), s_.options());
    fused::channels_tangent({.x_dot = x_dot,
                             .x = s_dot_.defined() ? x_ : at::Tensor(),
                             .s = s_,
                             .s_dot = s_dot_,
                             .t_dot = contiguous_parts(t_dot),
                             .y_dot = y_dot,
                             .channels = channels_,
                             .columns = columns_,
                             .tangents = dots.count()});
    if (keeps_x_) x_dot_ = x_dot;
    return {layout_.shaped(y_dot)};
  }

  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override {
    const at::Tensor of_y = layout_.flat(y_bar[0]);
    if (keeps_x_) y_bar_ = part(of_y, 0);
    pull(sink, {.y_bar_dot = of_y, .tangents = 1});
  }

  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    const at::Tensor x_dot = std::exchange(x_dot_, {}), s_dot = std::exchange(s_dot_, {});
    const bool bends = y_bar_.defined() && (x_dot.defined() || s_dot.defined());
    if (!bends && !y_bar_dot[0].defined()) return;
    pull(sink, {.y_bar_dot = layout_.flat(y_bar_dot[0]),
                .y_bar = bends ? y_bar_ : at::Tensor(),
                .x_dot = x_dot,
                .s_dot = s_dot,
                .tangents = sink.count()});
  }

 private:
  static bool has_mode(const Arguments& arguments) {
    return name_of(arguments) != "aten::_native_batch_norm_legit_no_training";
  }

  void pull(Sink& sink, fused::ChannelsAdjointTangent args) const {
    LaidSum x(sink, 0, layout_, with_count(sink.count(), shape_), s_.options());
    const auto zeros = [&](bool wanted) {
      return wanted ? at::zeros({args.tangents, channels_}, s_.options()) : at::Tensor();
    };
    const bool wants_w = sink.wants(1);
    const at::Tensor s_bar = zeros(wants_w), t_bar = zeros(wants_w || sink.wants(2));
    args.x = wants_w ? x_ : at::Tensor();
    args.s = s_;
    args.x_bar_dot = x.tensor();
    args.s_bar_dot = s_bar;
    args.t_bar_dot = t_bar;
    args.channels = channels_;
    args.columns = columns_;
    args.add = x.adds();
    fused::channels_adjoint_tangent(args);
    x.close();
    if (wants_w) sink.add(1, at::addcmul(s_bar, t_bar, mean_, -1).mul_(rstd_));
    if (sink.wants(2)) sink.add(2, t_bar);
  }

  ImageLayout layout_;
  std::int64_t channels_;
  at::Tensor x_, mean_, rstd_, s_, t_;
  std::vector<std::int64_t> shape_;  // of x in memory
  std::int64_t columns_;
  bool keeps_x_;  // the weight's derivatives read x
  at::Tensor y_bar_, x_dot_, s_dot_;
};

}  // namespace

const RuleTable& channel_norm_rules() {
  static const RuleTable rules = {
      {{"group_norm", "native_group_norm", "instance_norm"}, make_rule<GroupNorm>},
      {{"batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training"}, make_rule<BatchNorm>},
  };
  return rules;
}

}  // namespace hesspect
