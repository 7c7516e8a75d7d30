// What a rule is: how one op's values, tangents and adjoints follow from its arguments'.
//
// For y = f(x), with K directions x_dot at once (Pearlmutter 1994, on a graph):
//
//   value            y = f(x)
//   tangent          y_dot_k = J x_dot_k
//   adjoint          x_bar = Jᵀ y_bar
//   adjoint tangent  x_bar_dot_k = Jᵀ y_bar_dot_k + (dJ/dx · x_dot_k)ᵀ y_bar
//
// Tangents are stacked: [K, shape of the value], of its dtype. Adjoints are the same with K = 1, so that one routine
// serves both where a rule is linear. An undefined tensor is zero, everywhere. Parameters are arguments like any other:
// their tangents are the vector that is multiplied, the sums of their adjoints' tangents the product.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "hesspect/model/graph.h"

namespace hesspect {

/// A tensor among a node's arguments that tangents may reach.
struct Source {
  std::size_t operand = 0;
  std::size_t item = 0;  // of a list
  int slot = -1;
};

/// One node's arguments in one run.
struct Arguments {
  const Instruction& instruction;
  std::span<const Source> sources;
  std::vector<c10::IValue> values;  // the op's, in order
  /// In the place of the instruction's op, one that writes to none of its arguments; nullptr: there is no need.
  const c10::OperatorHandle* fresh_op = nullptr;

  /// Runs the op: arguments on the stack become returns.
  void call(std::vector<c10::IValue>& stack) const;
  const at::Tensor& tensor(std::size_t operand) const { return values[operand].toTensor(); }
  /// Undefined where the argument is None.
  at::Tensor optional_tensor(std::size_t operand) const {
    return operand < values.size() && values[operand].isTensor() ? values[operand].toTensor() : at::Tensor();
  }
  /// Whether tangents may reach the operand.
  bool active(std::size_t operand) const;
  /// Whether they may reach any but these.
  bool active_beyond(std::initializer_list<std::size_t> operands) const;
};

/// The tangents of a node's arguments.
class Tangents {
 public:
  Tangents(std::span<const Source> sources, std::vector<at::Tensor> stacked, std::int64_t count)
      : sources_(sources), stacked_(std::move(stacked)), count_(count) {}
  /// [K, shape]; undefined where zero.
  at::Tensor at(std::size_t operand, std::size_t item = 0) const;
  std::span<const at::Tensor> all() const { return stacked_; }
  std::int64_t count() const { return count_; }

 private:
  std::span<const Source> sources_;
  std::vector<at::Tensor> stacked_;
  std::int64_t count_;
};

/// Where adjoints, or their tangents, are added up: one sum for each slot, and views of the product for parameters.
struct Sum {
  at::Tensor value;    // [K, shape]
  bool own = false;    // may be written to
  bool fixed = false;  // a parameter's: exists beforehand
  bool wanted = true;
};

class Sink {
 public:
  Sink(std::span<const Source> sources, std::span<Sum> by_slot, std::int64_t count)
      : sources_(sources), by_slot_(by_slot), count_(count) {}

  std::int64_t count() const { return count_; }
  bool wants(std::size_t operand, std::size_t item = 0) const;
  /// Adds t [K, shape of the argument].
  /// @param own  nobody else holds t's memory, so that it may be written to
  void add(std::size_t operand, at::Tensor t, bool own = true, std::size_t item = 0);
  /// The sum so far, to be added to in place; undefined where there is none, or where it may not be written to.
  at::Tensor open(std::size_t operand, std::size_t item = 0) const;
  /// The sum so far, or zeros, to be added to in place. @param like  the argument: its shape, dtype and device
  at::Tensor open_or_zeros(std::size_t operand, const at::Tensor& like, std::size_t item = 0);

 private:
  Sum* find(std::size_t operand, std::size_t item) const;

  std::span<const Source> sources_;
  std::span<Sum> by_slot_;
  std::int64_t count_;
};

/// One node in one micro-batch. Its members are what the rule keeps: what `value` and `adjoint` leave stays for any
/// number of products, what `tangent` leaves is taken by the `adjoint_tangent` that follows.
///
/// The order of calls is value, then adjoint (not in a Gauss-Newton product) and tangent in either order, then
/// adjoint_tangent. Gradients of autograd are off.
class NodeRun {
 public:
  virtual ~NodeRun() = default;
  /// @return the op's outputs in order; what is no tensor may be left undefined
  virtual std::vector<at::Tensor> value() = 0;
  /// @return for each output [K, shape], undefined where zero
  virtual std::vector<at::Tensor> tangent(const Tangents& x_dot) = 0;
  /// In the place of value and tangent, where a segment is run again and nobody will read the outputs: what tangent
  /// leaves for adjoint_tangent. Of rules whose Redo is kArguments.
  virtual void take(const Tangents& x_dot) { (void)x_dot; }
  /// @param y_bar  for each output [1, shape], undefined where zero; one at least is not
  virtual void adjoint(std::span<const at::Tensor> y_bar, Sink& x_bar) = 0;
  /// @param y_bar_dot  for each output [K, shape], undefined where zero, as all may be
  virtual void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& x_bar_dot) = 0;
};

/// What a node needs to be run again, where nobody will read its outputs.
enum class Redo {
  kAll,        // values and tangents of its arguments, and the calls of value and tangent
  kArguments,  // values and tangents of its arguments, of which it is made and which it takes
  kShapes      // the shapes of its arguments, of which it is made
};

/// Makes a node's run; nullptr where the rule does not cover these arguments (and the fallback does).
using MakeRun = std::unique_ptr<NodeRun> (*)(Arguments& arguments);

}  // namespace hesspect
