// Ops that are linear in one argument and have one output: the tangent is the op itself.
#pragma once

#include <ATen/ATen.h>

#include <utility>
#include <vector>

#include "../registry.h"
#include "../stacked.h"

namespace hesspect {

class OneToOne : public NodeRun {
 public:
  static bool covers(const Arguments& arguments) { return !arguments.active_beyond({0}); }

  explicit OneToOne(Arguments arguments)
      : arguments_(std::move(arguments)),
        shape_(arguments_.tensor(0).sizes().vec()),
        like_(at::empty({}, arguments_.tensor(0).options())) {}

  std::vector<at::Tensor> value() override {
    at::Tensor y = of(arguments_.tensor(0));
    y_shape_ = y.sizes().vec();
    arguments_.values[0] = c10::IValue();
    return {std::move(y)};
  }
  std::vector<at::Tensor> tangent(const Tangents& x_dot) override {
    return {each(x_dot.at(0), [&](const at::Tensor& t) { return of(t); })};
  }
  void adjoint(std::span<const at::Tensor> y_bar, Sink& x_bar) override {
    if (x_bar.wants(0)) pull(y_bar[0], x_bar);
  }
  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& x_bar_dot) override {
    if (y_bar_dot[0].defined() && x_bar_dot.wants(0)) pull(y_bar_dot[0], x_bar_dot);
  }

 protected:
  /// The op of another first argument.
  at::Tensor of(const at::Tensor& x) const {
    std::vector<c10::IValue> stack = arguments_.values;
    stack[0] = x;
    arguments_.call(stack);
    return stack.at(0).toTensor();
  }
  std::vector<std::int64_t> stacked_shape(std::int64_t k) const { return with_count(k, shape_); }
  /// Has x's shape, dtype and device, but no memory.
  at::Tensor like() const { return like_.expand(shape_); }
  /// Adds Jᵀ y to x's sum. @param y  [K, shape of the output]
  virtual void pull(const at::Tensor& y, Sink& sink) const = 0;

  Arguments arguments_;
  std::vector<std::int64_t> shape_, y_shape_;  // of x and y
  at::Tensor like_;
};

}  // namespace hesspect
