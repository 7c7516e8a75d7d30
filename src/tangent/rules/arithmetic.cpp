// Sums, differences, products and quotients of two arguments, broadcast.
#include <ATen/ATen.h>

#include "hesspect/model/executor.h"

#include "../registry.h"
#include "../stacked.h"

namespace hesspect {
namespace {

bool is_real(const at::Tensor& t) {
  return !t.is_complex() && t.scalar_type() != at::kHalf && t.scalar_type() != at::kBFloat16;
}

/// The second argument, a number as a tensor.
at::Tensor second(const Arguments& arguments) { return wrapped_number(arguments.values[1]).toTensor(); }

/// Two real arguments, of which the second may be a number.
bool takes_two(const Arguments& arguments) {
  return arguments.values.size() >= 2 && arguments.values[0].isTensor() &&
         (arguments.values[1].isTensor() || arguments.values[1].isScalar()) && is_real(arguments.tensor(0)) &&
         is_real(second(arguments)) && !arguments.active_beyond({0, 1});
}

/// An argument of a broadcast op: what its tangents and adjoints must become.
struct Operand2 {
  std::vector<std::int64_t> shape;
  at::ScalarType type;

  explicit Operand2(const at::Tensor& t) : shape(t.sizes().vec()), type(t.scalar_type()) {}
  /// Adds t [K, shape of the output] to the operand's sum.
  void give(Sink& sink, std::size_t operand, const at::Tensor& t, bool own) const {
    const at::Tensor reduced = as_type(summed_to(t, shape), type);
    sink.add(operand, reduced, own || !reduced.is_alias_of(t));
  }
};

/// add(a, b, alpha), sub, rsub: y = s a + t b.
class Sum2 final : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) { return takes_two(arguments); }

  explicit Sum2(Arguments arguments)
      : arguments_(std::move(arguments)), a_(arguments_.tensor(0)), b_(second(arguments_)) {
    const double alpha = arguments_.values.size() > 2 ? arguments_.values[2].toScalar().toDouble() : 1;
    const std::string& name = arguments_.instruction.op->schema().name();
    if (name == "aten::add" || name == "aten::add_") factor_b_ = alpha;
    if (name == "aten::sub" || name == "aten::sub_") factor_b_ = -alpha;
    if (name == "aten::rsub") factor_a_ = -alpha;
  }

  std::vector<at::Tensor> value() override {
    arguments_.call(arguments_.values);
    const at::Tensor y = arguments_.values.at(0).toTensor();
    arguments_.values.clear();
    y_shape_ = y.sizes().vec();
    type_ = y.scalar_type();
    return {y};
  }

  std::vector<at::Tensor> tangent(const Tangents& x_dot) override {
    const at::Tensor a = term(x_dot.at(0), factor_a_), b = x_dot.at(1);
    if (!a.defined()) return {whole(term(b, factor_b_))};
    if (!b.defined()) return {whole(a)};
    return {whole(at::add(a, aligned(b, rank()), factor_b_))};
  }

  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override { pull(y_bar[0], sink); }
  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    if (y_bar_dot[0].defined()) pull(y_bar_dot[0], sink);
  }

 private:
  std::int64_t rank() const { return static_cast<std::int64_t>(y_shape_.size()); }
  at::Tensor term(const at::Tensor& t, double factor) const {
    if (!t.defined()) return t;
    const at::Tensor wide = aligned(t, rank());
    return factor == 1 ? wide : wide * factor;
  }
  at::Tensor whole(const at::Tensor& t) const { return as_output(t, type_, y_shape_); }
  void pull(const at::Tensor& y, Sink& sink) const {
    if (sink.wants(0)) a_.give(sink, 0, factor_a_ == 1 ? y : y * factor_a_, factor_a_ != 1);
    if (sink.wants(1)) b_.give(sink, 1, factor_b_ == 1 ? y : y * factor_b_, factor_b_ != 1);
  }

  Arguments arguments_;
  Operand2 a_, b_;
  double factor_a_ = 1, factor_b_ = 1;
  std::vector<std::int64_t> y_shape_;
  at::ScalarType type_ = at::kFloat;
};

/// mul(a, b): y = a b. Of an operand that tangents do not reach only its value is kept, and of one whose partner they
/// do not reach nothing.
class Product2 final : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) { return takes_two(arguments); }

  explicit Product2(Arguments arguments)
      : a_(arguments.tensor(0)),
        b_(second(arguments)),
        a_place_(a_),
        b_place_(b_),
        is_bilinear_(arguments.active(0) && arguments.active(1)),
        keeps_a_(arguments.active(1)),
        keeps_b_(arguments.active(0)) {}

  std::vector<at::Tensor> value() override {
    at::Tensor y = at::mul(a_, b_);
    rank_ = y.dim();
    type_ = y.scalar_type();
    if (!keeps_a_) a_ = at::Tensor();
    if (!keeps_b_) b_ = at::Tensor();
    return {std::move(y)};
  }

  std::vector<at::Tensor> tangent(const Tangents& x_dot) override {
    const at::Tensor a_dot = aligned(x_dot.at(0), rank_), b_dot = aligned(x_dot.at(1), rank_);
    if (is_bilinear_) {
      a_dot_ = a_dot;
      b_dot_ = b_dot;
    }
    if (!b_dot.defined()) return {as_type(a_dot * b_, type_)};
    if (!a_dot.defined()) return {as_type(b_dot * a_, type_)};
    return {as_type(at::addcmul(a_dot * b_, b_dot, a_), type_)};
  }

  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override {
    if (is_bilinear_) y_bar_ = part(y_bar[0], 0);
    if (sink.wants(0)) a_place_.give(sink, 0, y_bar[0] * b_, true);
    if (sink.wants(1)) b_place_.give(sink, 1, y_bar[0] * a_, true);
  }

  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    const at::Tensor a_dot = std::exchange(a_dot_, {}), b_dot = std::exchange(b_dot_, {});
    const auto give = [&](const Operand2& place, std::size_t operand, const at::Tensor& other,
                          const at::Tensor& other_dot) {
      if (!sink.wants(operand)) return;
      const bool bends = y_bar_.defined() && other_dot.defined();
      if (y_bar_dot[0].defined() && bends)
        place.give(sink, operand, at::addcmul(y_bar_dot[0] * other, other_dot, y_bar_), true);
      else if (y_bar_dot[0].defined())
        place.give(sink, operand, y_bar_dot[0] * other, true);
      else if (bends)
        place.give(sink, operand, other_dot * y_bar_, true);
    };
    give(a_place_, 0, b_, b_dot);
    give(b_place_, 1, a_, a_dot);
  }

 private:
  at::Tensor a_, b_;
  Operand2 a_place_, b_place_;
  bool is_bilinear_, keeps_a_, keeps_b_;
  std::int64_t rank_ = 0;
  at::ScalarType type_ = at::kFloat;
  at::Tensor y_bar_, a_dot_, b_dot_;
};

/// div(a, b): y = a / b, y_dot = (a_dot - y b_dot) / b. Where tangents do not reach b only b is kept.
class Quotient final : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) {
    const bool rounds = arguments.values.size() > 2 && !arguments.values[2].isNone();
    return takes_two(arguments) && !rounds;
  }

  explicit Quotient(Arguments arguments)
      : b_(second(arguments)), a_(arguments.tensor(0)), a_place_(a_), b_place_(b_), bends_(arguments.active(1)) {}

  std::vector<at::Tensor> value() override {
    at::Tensor y = at::div(a_, b_);
    a_ = at::Tensor();
    rank_ = y.dim();
    type_ = y.scalar_type();
    if (bends_) y_ = y;
    return {std::move(y)};
  }

  std::vector<at::Tensor> tangent(const Tangents& x_dot) override {
    const at::Tensor a_dot = aligned(x_dot.at(0), rank_);
    b_dot_ = aligned(x_dot.at(1), rank_);
    if (!b_dot_.defined()) {
      const at::Tensor y_dot = as_type(a_dot / b_, type_);
      if (bends_) y_dot_ = y_dot;
      return {y_dot};
    }
    y_dot_ = as_type((a_dot.defined() ? at::addcmul(a_dot, b_dot_, y_, -1) : -b_dot_ * y_) / b_, type_);
    return {y_dot_};
  }

  void adjoint(std::span<const at::Tensor> y_bar, Sink& sink) override {
    if (bends_) y_bar_ = part(y_bar[0], 0);
    const at::Tensor a_bar = y_bar[0] / b_;  // of a; of b it is - y a_bar
    if (sink.wants(0)) a_place_.give(sink, 0, a_bar, true);
    if (sink.wants(1)) b_place_.give(sink, 1, -a_bar * y_, true);
  }

  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& sink) override {
    const at::Tensor b_dot = std::exchange(b_dot_, {}), y_dot = std::exchange(y_dot_, {});
    // (y_bar / b) ˙ = (y_bar_dot - (y_bar / b) b_dot) / b
    at::Tensor a_bar_dot = y_bar_dot[0], a_bar;
    if (y_bar_.defined()) a_bar = y_bar_ / b_;
    if (a_bar.defined() && b_dot.defined())
      a_bar_dot = a_bar_dot.defined() ? at::addcmul(a_bar_dot, b_dot, a_bar, -1) : -b_dot * a_bar;
    if (a_bar_dot.defined()) a_bar_dot = a_bar_dot / b_;
    if (a_bar_dot.defined() && sink.wants(0)) a_place_.give(sink, 0, a_bar_dot, /*own=*/!sink.wants(1));
    if (!sink.wants(1)) return;
    at::Tensor b_bar_dot = a_bar_dot.defined() ? -a_bar_dot * y_ : a_bar_dot;
    if (a_bar.defined() && y_dot.defined())
      b_bar_dot = b_bar_dot.defined() ? at::addcmul(b_bar_dot, y_dot, a_bar, -1) : -y_dot * a_bar;
    if (b_bar_dot.defined()) b_place_.give(sink, 1, b_bar_dot, true);
  }

 private:
  at::Tensor b_, a_;
  Operand2 a_place_, b_place_;
  bool bends_;  // tangents reach b
  std::int64_t rank_ = 0;
  at::ScalarType type_ = at::kFloat;
  at::Tensor y_, y_bar_, b_dot_, y_dot_;  // none where it does not bend
};

}  // namespace

const RuleTable& arithmetic_rules() {
  static const RuleTable rules = {
      {{"add", "sub", "rsub", "subtract"}, make_rule<Sum2>, Redo::kShapes},
      {{"mul", "multiply"}, make_rule<Product2>},
      {{"div", "divide", "true_divide"}, make_rule<Quotient>},
  };
  return rules;
}

}  // namespace hesspect
