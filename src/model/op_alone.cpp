#include "op_alone.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "hesspect/model/executor.h"
#include "node_steps.h"

namespace hesspect {

using c10::IValue;

OpAlone::OpAlone(const Instruction& instruction, const std::vector<IValue>& arguments, const std::string& where) {
  std::vector<IValue> stack;
  for (std::size_t i = 0; i < arguments.size(); ++i) stack.push_back(with_leaves(arguments[i], instruction.writes[i]));
  if (leaves_.empty()) return;
  call_op(instruction, stack, where);
  results_ = tensors_in(stack);
}

at::Tensor OpAlone::leaf(const at::Tensor& tensor, bool written) {
  if (!tensor.defined()) return tensor;
  if (!tensor.requires_grad()) return written ? tensor.clone() : tensor;
  leaves_.push_back(tensor.detach().requires_grad_(true));
  return written ? leaves_.back().clone() : leaves_.back();
}

IValue OpAlone::with_leaves(const IValue& value, bool written) {
  if (value.isTensor()) return leaf(value.toTensor(), written);
  if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(leaf(tensor, written));
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> list;
    for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector())
      list.push_back(tensor ? std::optional<at::Tensor>(leaf(*tensor, written)) : std::nullopt);
    return list;
  }
  return value;
}

std::vector<at::Tensor> differentiable(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> some;
  for (const at::Tensor& tensor : tensors)
    if (tensor.defined() && tensor.requires_grad() && tensor.grad_fn()) some.push_back(tensor);
  return some;
}

std::vector<at::Tensor> pulled_back(const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& inputs,
                                    const std::vector<at::Tensor>& adjoints, bool differentiable_again) {
  if (outputs.empty() || inputs.empty()) return {};
  return torch::autograd::grad(outputs, inputs, adjoints, /*retain_graph=*/true, differentiable_again,
                               /*allow_unused=*/true);
}

std::vector<at::Tensor> pulled_back_twice(const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& inputs,
                                          const std::vector<at::Tensor>& adjoints) {
  const std::vector<at::Tensor> gradients = differentiable(pulled_back(outputs, inputs, adjoints, true));
  std::vector<at::Tensor> ones, wanted = inputs;
  for (const at::Tensor& gradient : gradients) ones.push_back(at::ones_like(gradient));
  wanted.insert(wanted.end(), adjoints.begin(), adjoints.end());
  return pulled_back(gradients, wanted, ones, false);
}

}  // namespace hesspect
