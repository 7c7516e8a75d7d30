// The end of the sweeps: the objective, alone or together with the linear layer that makes its output.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "hesspect/tangent/objective.h"
#include "hesspect/tangent/rule.h"
#include "hesspect/tangent/tangent_program.h"
#include "linear_layer.h"

namespace hesspect {

class Head {
 public:
  virtual ~Head() = default;
  /// Takes the arguments' tangents for the backward sweep that follows.
  virtual void tangent(const Tangents& x_dot) = 0;
  /// The backward step: adjoints, their tangents, or both in one pass.
  /// @param x_bar      nullptr: not wanted
  /// @param x_bar_dot  nullptr: not wanted
  /// @param keep       what does not depend on the tangents stays for further calls
  virtual void backward(Sink* x_bar, Sink* x_bar_dot, bool keep, bool gauss_newton) = 0;
  /// The sum of terms, known after the first backward step.
  double sum() const { return sum_; }

 protected:
  double sum_ = 0;
};

/// z is the output. It is copied once: what made it may hold it.
std::unique_ptr<Head> plain_head(const at::Tensor& z, std::shared_ptr<const RowObjective> objective, OutputRows rows);

/// z = x Wᵀ + b is made here, in chunks of rows, so that no array of the output's size need live but the kept one.
/// @param arguments  of linear, addmm, mm or matmul
/// @param small      chunks are to take little memory
std::unique_ptr<Head> linear_head(const Arguments& arguments, std::shared_ptr<const RowObjective> objective,
                                  bool small);
/// The same where `objective->softmax()`: in tiles of rows and classes.
std::unique_ptr<Head> softmax_head(LinearLayer layer, std::shared_ptr<const RowObjective> objective);
/// Whether the op and its arguments are such a layer, as far as is known without values.
bool is_linear_layer(const Instruction& instruction);

}  // namespace hesspect
