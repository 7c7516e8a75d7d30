#include "node_steps.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "hesspect/model/executor.h"
#include "symbolic.h"

namespace hesspect {
namespace {

using c10::IValue;

bool is_continuous(const at::Tensor& tensor) {
  return tensor.defined() && (at::isFloatingType(tensor.scalar_type()) || at::isComplexType(tensor.scalar_type()));
}

/// A copy of what an op is about to write to, which would be lost; anything else as it is.
IValue kept(const IValue& value, bool written) {
  if (!written || !value.isTensor() || !value.toTensor().defined()) return value;
  const at::Tensor& tensor = value.toTensor();
  return tensor.detach().clone().requires_grad_(tensor.requires_grad());
}

}  // namespace

bool has_nan(const at::Tensor& tensor) {
  at::NoGradGuard no_grad;
  return is_continuous(tensor) && at::isnan(tensor.detach()).any().item<bool>();
}

bool has_infinity(const at::Tensor& tensor) {
  at::NoGradGuard no_grad;
  return is_continuous(tensor) && at::isinf(tensor.detach()).any().item<bool>();
}

std::vector<at::Tensor> tensors_in(const std::vector<IValue>& values) {
  std::vector<at::Tensor> tensors;
  for (const IValue& value : values) {
    if (value.isTensor()) tensors.push_back(value.toTensor());
    if (value.isTensorList())
      for (const at::Tensor& tensor : value.toTensorVector()) tensors.push_back(tensor);
    if (value.isOptionalTensorList())
      for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector())
        if (tensor) tensors.push_back(*tensor);
  }
  return tensors;
}

int NodeSteps::maker_of(const at::Tensor& tensor) const {
  const auto found = makers_.find(tensor.unsafeGetTensorImpl());
  return found == makers_.end() ? -1 : found->second;
}

std::vector<IValue> NodeSteps::run_op(const Instruction& instruction, std::vector<IValue> arguments) {
  Step step;
  step.instruction = &instruction;
  step.differentiated = at::GradMode::is_enabled() && instruction.kind != Instruction::Kind::kSymbolic;
  for (std::size_t i = 0; i < arguments.size(); ++i)
    step.arguments.push_back(kept(arguments[i], instruction.writes[i]));
  for (const at::Tensor& tensor : tensors_in(arguments))
    step.sources.push_back({maker_of(tensor), has_nan(tensor), has_infinity(tensor)});
  if (instruction.kind == Instruction::Kind::kSymbolic)
    arguments = {evaluate(instruction.symbolic, arguments)};
  else
    call_op(instruction, arguments, "");
  step.results = tensors_in(arguments);
  for (const at::Tensor& tensor : step.results) {
    step.nan = step.nan || has_nan(tensor);
    step.infinite = step.infinite || has_infinity(tensor);
    if (tensor.defined()) makers_[tensor.unsafeGetTensorImpl()] = static_cast<int>(steps.size());
  }
  steps.push_back(std::move(step));
  return arguments;
}

std::vector<IValue> NodeSteps::run(const Graph& graph, std::vector<IValue> inputs) {
  Frame frame = first_frame(graph, std::move(inputs));
  for (const Instruction& instruction : graph.instructions) {
    std::vector<IValue> values = operand_values(instruction, frame);
    if (instruction.kind == Instruction::Kind::kSubgraph) {
      at::AutoGradMode mode(instruction.grad_mode.value_or(true) && at::GradMode::is_enabled());
      values = run(*instruction.subgraph, std::move(values));
    } else {
      values = run_op(instruction, std::move(values));
    }
    store_outputs(instruction, values, frame);
  }
  std::vector<IValue> results;
  for (const Operand& output : graph.outputs) results.push_back(materialise(output, frame));
  return results;
}

std::vector<IValue> NodeSteps::record(const Graph& graph, std::vector<IValue> inputs) {
  steps.clear();
  makers_.clear();
  std::vector<IValue> results = run(graph, std::move(inputs));
  outputs = tensors_in(results);
  return results;
}

}  // namespace hesspect
