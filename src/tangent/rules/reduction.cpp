// Sums, means, norms and extremes over dimensions.
#include <ATen/ATen.h>
#include <ATen/WrapDimUtils.h>

#include <algorithm>

#include "named_argument.h"
#include "one_to_one.h"

namespace hesspect {
namespace {

using c10::IValue;

/// The dimensions that an op reduces over: `dim`, or all.
struct Reduced {
  std::vector<std::int64_t> shape;    // of x
  std::vector<std::int64_t> dims;     // of a stacked x, rising
  std::vector<std::int64_t> widened;  // the shape of y with these dimensions as 1
  std::int64_t count = 1;             // entries in each of y's
  bool keeps = false;

  explicit Reduced(const Arguments& arguments)
      : Reduced(arguments.tensor(0).sizes().vec(), argument_named(arguments, "dim"),
                argument_named(arguments, "keepdim")) {}

  Reduced(std::vector<std::int64_t> the_shape, const IValue& dim, const IValue& keepdim)
      : shape(std::move(the_shape)), widened(shape) {
    const auto rank = static_cast<std::int64_t>(shape.size());
    if (dim.isInt()) dims = {dim.toInt()};
    if (dim.isIntList()) dims = dim.toIntVector();
    if (dims.empty())
      for (std::int64_t d = 0; d < rank; ++d) dims.push_back(d);
    if (rank == 0) dims.clear();
    for (std::int64_t& d : dims) {
      const auto at = static_cast<std::size_t>(at::maybe_wrap_dim(d, rank));
      count *= shape[at];
      widened[at] = 1;
      d = static_cast<std::int64_t>(at) + 1;
    }
    std::ranges::sort(dims);
    keeps = keepdim.isBool() && keepdim.toBool();
  }

  /// [K, shape] summed. @return [K, widened]
  at::Tensor sum(const at::Tensor& t) const { return dims.empty() ? t : t.sum(dims, /*keepdim=*/true); }
  /// [K, shape of y] -> [K, widened]
  at::Tensor widen(const at::Tensor& y) const { return y.reshape(stacked(y.size(0), widened)); }
  /// [K, widened] -> [K, shape of y]
  at::Tensor narrow(const at::Tensor& t) const { return keeps || dims.empty() ? t : t.squeeze(dims); }
  at::Tensor spread(const at::Tensor& t) const { return t.expand(stacked(t.size(0), shape)); }

  static std::vector<std::int64_t> stacked(std::int64_t k, std::vector<std::int64_t> sizes) {
    sizes.insert(sizes.begin(), k);
    return sizes;
  }
};

bool takes_real_input(const Arguments& arguments) {
  const at::Tensor& x = arguments.tensor(0);
  return !arguments.active_beyond({0}) && !x.is_complex() && at::isFloatingType(x.scalar_type());
}

/// Ops that leave the type as it is.
bool takes_real_of_type(const Arguments& arguments) {
  const IValue dtype = argument_named(arguments, "dtype");
  return takes_real_input(arguments) && (dtype.isNone() || dtype.toScalarType() == arguments.tensor(0).scalar_type());
}

/// sum, mean
class Total final : public OneToOne {
 public:
  explicit Total(Arguments arguments)
      : OneToOne(std::move(arguments)),
        over_(shape_, argument_named(arguments_, "dim"), argument_named(arguments_, "keepdim")),
        is_mean_(arguments_.instruction.op->schema().name() == "aten::mean") {}

  std::vector<at::Tensor> value() override {
    std::vector<at::Tensor> y = OneToOne::value();
    type_ = y[0].scalar_type();
    return y;
  }
  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    const at::Tensor x_dot = as_type(dots.at(0), type_);
    const at::Tensor sum = over_.narrow(over_.sum(x_dot));
    if (sum.is_alias_of(x_dot)) return {is_mean_ ? sum / over_.count : sum};
    return {is_mean_ ? sum.div_(over_.count) : sum};
  }

 private:
  void pull(const at::Tensor& y, Sink& sink) const override {
    at::Tensor each = as_type(over_.widen(y), like_.scalar_type());
    if (is_mean_) each = each / over_.count;
    sink.add(0, over_.spread(each), /*own=*/false);
  }

  Reduced over_;
  bool is_mean_;
  at::ScalarType type_ = at::kFloat;
};

/// var, std, var_mean: v = sum c² / (n − correction) with the centred x, c = x − mean.
class Variance final : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) {
    return takes_real_input(arguments) && static_cast<double>(Reduced(arguments).count) > correction_of(arguments);
  }

  explicit Variance(Arguments arguments)
      : arguments_(std::move(arguments)),
        over_(arguments_),
        factor_(2 / (static_cast<double>(over_.count) - correction_of(arguments_))),
        is_std_(arguments_.instruction.op->schema().name() == "aten::std"),
        has_mean_(arguments_.instruction.op->schema().name() == "aten::var_mean") {}

  std::vector<at::Tensor> value() override {
    const at::Tensor x = arguments_.tensor(0).unsqueeze(0);
    arguments_.call(arguments_.values);
    std::vector<at::Tensor> y{arguments_.values.at(0).toTensor()};
    if (has_mean_) y.push_back(arguments_.values.at(1).toTensor());
    arguments_.values.clear();
    centred_ = x - mean_of(x);
    if (is_std_) inverse_ = over_.widen(y[0].unsqueeze(0)).reciprocal();
    return y;
  }

  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    const at::Tensor x_dot = dots.at(0), mean_dot = mean_of(x_dot);
    centred_dot_ = x_dot - mean_dot;
    at::Tensor y_dot = over_.sum(x_dot * centred_).mul_(factor_);
    if (is_std_) y_dot_ = y_dot.mul_(inverse_).mul_(0.5);
    std::vector<at::Tensor> all{over_.narrow(y_dot)};
    if (has_mean_) all.push_back(over_.narrow(mean_dot));
    return all;
  }

  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override {
    if (y_bar[0].defined()) variance_bar_ = adjoint_of_variance(y_bar[0]);
    if (!sink.wants(0)) return;
    if (variance_bar_.defined()) sink.add(0, centred_ * variance_bar_);
    add_mean(y_bar, sink);
  }

  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    const at::Tensor centred_dot = std::exchange(centred_dot_, {}), y_dot = std::exchange(y_dot_, {});
    if (!sink.wants(0)) return;
    at::Tensor variance_bar_dot;
    if (y_bar_dot[0].defined()) variance_bar_dot = adjoint_of_variance(y_bar_dot[0]);
    if (is_std_ && variance_bar_.defined() && y_dot.defined())
      variance_bar_dot = sum_of(variance_bar_dot, -variance_bar_ * inverse_ * y_dot);
    if (variance_bar_dot.defined()) sink.add(0, centred_ * variance_bar_dot);
    if (variance_bar_.defined() && centred_dot.defined()) sink.add(0, centred_dot * variance_bar_);
    add_mean(y_bar_dot, sink);
  }

 private:
  static double correction_of(const Arguments& arguments) {
    const IValue correction = argument_named(arguments, "correction");
    const IValue unbiased = argument_named(arguments, "unbiased");
    if (correction.isScalar()) return correction.toScalar().toDouble();
    return unbiased.isBool() && !unbiased.toBool() ? 0 : 1;
  }
  at::Tensor mean_of(const at::Tensor& x) const { return over_.sum(x) / over_.count; }
  /// factor times the adjoint of v, of those of y.
  at::Tensor adjoint_of_variance(const at::Tensor& y) const {
    const at::Tensor v = over_.widen(y) * factor_;
    // As PyTorch has it: 0 where the square root has no derivative. The second one, and tangents, are NaN there.
    return is_std_ ? (v * inverse_ * 0.5).masked_fill_(inverse_.isinf(), 0) : v;
  }
  void add_mean(std::span<const at::Tensor> y, Sink& sink) const {
    if (has_mean_ && y[1].defined()) sink.add(0, over_.spread(over_.widen(y[1]) / over_.count), /*own=*/false);
  }

  Arguments arguments_;
  Reduced over_;
  double factor_;  // 2 / (n − correction)
  bool is_std_, has_mean_;
  at::Tensor centred_, inverse_;  // [1, shape]; of a std [1, widened]: 1 / y
  at::Tensor variance_bar_, centred_dot_, y_dot_;
};

/// norm, linalg_vector_norm, p = 2: y = √(sum x²). With u = x / y, 0 where y is: x_bar = u y_bar. The second derivative
/// is NaN where y is 0, as PyTorch's is.
class Norm final : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) {
    const bool is_vector = arguments.instruction.op->schema().name() == "aten::linalg_vector_norm";
    const IValue p = argument_named(arguments, is_vector ? "ord" : "p");
    return takes_real_of_type(arguments) && (p.isNone() || p.toScalar().toDouble() == 2);
  }

  explicit Norm(Arguments arguments) : arguments_(std::move(arguments)), over_(arguments_) {}

  std::vector<at::Tensor> value() override {
    const at::Tensor x = arguments_.tensor(0).unsqueeze(0);
    arguments_.call(arguments_.values);
    at::Tensor y = arguments_.values.at(0).toTensor();
    arguments_.values.clear();
    inverse_ = over_.widen(y.unsqueeze(0)).reciprocal();
    unit_ = (x * inverse_).masked_fill_(inverse_.isinf(), 0);
    return {std::move(y)};
  }

  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    x_dot_ = dots.at(0);
    y_dot_ = over_.sum(x_dot_ * unit_);
    return {over_.narrow(y_dot_)};
  }

  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override {
    y_bar_ = over_.widen(y_bar[0]);
    if (sink.wants(0)) sink.add(0, unit_ * y_bar_);
  }

  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    const at::Tensor x_dot = std::exchange(x_dot_, {}), y_dot = std::exchange(y_dot_, {});
    if (!sink.wants(0)) return;
    at::Tensor along;  // what is multiplied by u
    if (y_bar_dot[0].defined()) along = over_.widen(y_bar_dot[0]);
    if (y_bar_.defined() && x_dot.defined()) {  // u_dot = (x_dot − u y_dot) / y
      const at::Tensor scaled = y_bar_ * inverse_;
      along = sum_of(along, -scaled * y_dot);
      sink.add(0, x_dot * scaled);
    }
    if (along.defined()) sink.add(0, unit_ * along);
  }

 private:
  Arguments arguments_;
  Reduced over_;
  at::Tensor unit_, inverse_;  // [1, shape], [1, widened]
  at::Tensor y_bar_, x_dot_, y_dot_;
};

/// amax, amin, and max and min of all entries: where several are the largest, they share the adjoint evenly.
class Extreme final : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) { return takes_real_input(arguments); }

  explicit Extreme(Arguments arguments) : arguments_(std::move(arguments)), over_(arguments_) {}

  std::vector<at::Tensor> value() override {
    const at::Tensor x = arguments_.tensor(0).unsqueeze(0);
    arguments_.call(arguments_.values);
    at::Tensor y = arguments_.values.at(0).toTensor();
    arguments_.values.clear();
    share_ = (x == over_.widen(y.unsqueeze(0))).to(x.scalar_type());
    share_ = share_ / over_.sum(share_);
    return {std::move(y)};
  }
  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    return {over_.narrow(over_.sum(dots.at(0) * share_))};
  }
  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override { pull(y_bar[0], sink); }
  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override { pull(y_bar_dot[0], sink); }

 private:
  void pull(const at::Tensor& y, Sink& sink) const {
    if (y.defined() && sink.wants(0)) sink.add(0, over_.widen(y) * share_);
  }

  Arguments arguments_;
  Reduced over_;
  at::Tensor share_;  // [1, shape]
};

/// logsumexp: with p = exp(x − y), y_dot = sum p x_dot.
class LogSumExp final : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) { return takes_real_input(arguments); }

  explicit LogSumExp(Arguments arguments) : arguments_(std::move(arguments)), over_(arguments_) {}

  std::vector<at::Tensor> value() override {
    const at::Tensor x = arguments_.tensor(0).unsqueeze(0);
    arguments_.call(arguments_.values);
    at::Tensor y = arguments_.values.at(0).toTensor();
    arguments_.values.clear();
    p_ = (x - over_.widen(y.unsqueeze(0))).exp_();
    return {std::move(y)};
  }
  std::vector<at::Tensor> tangent(const Tangents& dots) override {
    p_dot_ = dots.at(0) * p_;
    const at::Tensor y_dot = over_.sum(p_dot_);
    p_dot_ = at::addcmul(p_dot_, p_, y_dot, -1);
    return {over_.narrow(y_dot)};
  }
  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override {
    y_bar_ = over_.widen(y_bar[0]);
    if (sink.wants(0)) sink.add(0, p_ * y_bar_);
  }
  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    const at::Tensor p_dot = std::exchange(p_dot_, {});
    if (!sink.wants(0)) return;
    if (y_bar_dot[0].defined()) sink.add(0, p_ * over_.widen(y_bar_dot[0]));
    if (y_bar_.defined() && p_dot.defined()) sink.add(0, p_dot * y_bar_);
  }

 private:
  Arguments arguments_;
  Reduced over_;
  at::Tensor p_, y_bar_, p_dot_;  // p [1, shape]
};

/// cumsum(x, dim): the adjoint is summed up from the other end.
class CumulativeSum final : public OneToOne {
 public:
  static bool covers(const Arguments& arguments) {
    return takes_real_of_type(arguments) && arguments.tensor(0).dim() > 0;
  }

  explicit CumulativeSum(Arguments arguments)
      : OneToOne(std::move(arguments)),
        dim_(at::maybe_wrap_dim(arguments_.values[1].toInt(), static_cast<std::int64_t>(shape_.size())) + 1) {}

  std::vector<at::Tensor> tangent(const Tangents& dots) override { return {dots.at(0).cumsum(dim_)}; }

 private:
  void pull(const at::Tensor& y, Sink& sink) const override { sink.add(0, y.flip(dim_).cumsum(dim_).flip(dim_)); }

  std::int64_t dim_;  // of stacked tensors
};

}  // namespace

const RuleTable& reduction_rules() {
  static const RuleTable rules = {
      {{"sum", "mean"}, make_rule<Total>},
      {{"var", "std", "var_mean"}, make_rule<Variance>},
      {{"norm", "linalg_vector_norm"}, make_rule<Norm>},
      {{"amax", "amin", "max.", "min."}, make_rule<Extreme>},
      {{"logsumexp"}, make_rule<LogSumExp>},
      {{"cumsum"}, make_rule<CumulativeSum>},
  };
  return rules;
}

}  // namespace hesspect
