// One op by itself, on the arguments that it gets in a run: its derivatives, whatever the program around it is.
#pragma once

#include <ATen/core/ivalue.h>

#include <string>
#include <vector>

#include "hesspect/model/graph.h"

namespace hesspect {

/// An op called on leaves of its own: each differentiable tensor among its arguments becomes one (and is copied where
/// the op writes to it). Without any it is not called.
class OpAlone {
 public:
  /// @param arguments  the instruction's operands, in order
  /// @param where      start of messages
  OpAlone(const Instruction& instruction, const std::vector<c10::IValue>& arguments, const std::string& where);

  const std::vector<at::Tensor>& leaves() const { return leaves_; }
  const std::vector<at::Tensor>& results() const { return results_; }  // in order; undefined ones stay

 private:
  at::Tensor leaf(const at::Tensor& tensor, bool written);
  c10::IValue with_leaves(const c10::IValue& value, bool written);

  std::vector<at::Tensor> leaves_, results_;
};

/// Those of the tensors that are defined and can be differentiated.
std::vector<at::Tensor> differentiable(const std::vector<at::Tensor>& tensors);

/// Derivatives of the inputs, undefined where there are none; no tensors where there are no outputs or inputs.
std::vector<at::Tensor> pulled_back(const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& inputs,
                                    const std::vector<at::Tensor>& adjoints, bool differentiable_again);

/// Derivatives of `pulled_back`, its result weighted by ones, in the inputs and the adjoints.
/// @param adjoints  leaves that require gradients
std::vector<at::Tensor> pulled_back_twice(const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& inputs,
                                          const std::vector<at::Tensor>& adjoints);

}  // namespace hesspect
