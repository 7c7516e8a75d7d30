// The trial that every node's op differentiates twice on the arguments it really gets, before any work is spent on the
// run.
//
// A missing formula would only show in the middle of a product, where autograd no longer knows the user's line. So each
// op is tried alone: its floating inputs become leaves, its outputs are pulled back twice with random weights.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "executor.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/foreign_error.h"
#include "program_impl.h"

namespace hesspect {
namespace {

using c10::IValue;

/// Replaces every differentiable tensor among an op's arguments by a fresh leaf (a copy of it where the op writes to
/// it).
class LeafArguments {
 public:
  LeafArguments(const Instruction& instruction, const Frame& frame) {
    for (std::size_t i = 0; i < instruction.operands.size(); ++i) {
      IValue value = materialise(instruction.operands[i], frame);
      stack_.push_back(replace(value, instruction.writes[i]));
    }
  }
  std::vector<IValue>& stack() { return stack_; }
  const std::vector<at::Tensor>& leaves() const { return leaves_; }

 private:
  at::Tensor leaf(const at::Tensor& tensor, bool written) {
    if (!tensor.defined()) return tensor;
    if (!tensor.requires_grad()) return written ? tensor.detach().clone() : tensor;
    leaves_.push_back(tensor.detach().requires_grad_(true));
    return written ? leaves_.back().clone() : leaves_.back();
  }

  IValue replace(const IValue& value, bool written) {
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

  std::vector<IValue> stack_;
  std::vector<at::Tensor> leaves_;
};

void collect_differentiable(const std::vector<IValue>& values, std::vector<at::Tensor>& tensors) {
  const auto add = [&](const at::Tensor& tensor) {
    if (tensor.defined() && tensor.requires_grad() && tensor.grad_fn()) tensors.push_back(tensor);
  };
  for (const IValue& value : values) {
    if (value.isTensor()) add(value.toTensor());
    if (value.isTensorList())
      for (const at::Tensor& tensor : value.toTensorVector()) add(tensor);
  }
}

/// Pulls the op's outputs back to its inputs, and that back again.
void differentiate_twice(const Instruction& instruction, const Frame& frame, const std::string& where) {
  LeafArguments arguments(instruction, frame);
  if (arguments.leaves().empty()) return;
  call_op(instruction, arguments.stack(), where);
  std::vector<at::Tensor> outputs;
  collect_differentiable(arguments.stack(), outputs);
  if (outputs.empty()) return;              // a comparison, argmax, detach: constant to autograd
  for (const at::Tensor& output : outputs)  // autograd would warn, and take its derivative as zero
    if (output.grad_fn()->name().find("WarnNotImplemented") != std::string::npos)
      throw std::runtime_error("it has no derivative in PyTorch at all");
  std::vector<at::Tensor> weights;
  for (const at::Tensor& output : outputs) weights.push_back(at::ones_like(output).requires_grad_(true));
  const std::vector<at::Tensor> first = torch::autograd::grad(
      outputs, arguments.leaves(), weights, /*retain_graph=*/true, /*create_graph=*/true, /*allow_unused=*/true);
  std::vector<at::Tensor> gradients, ones;
  for (const at::Tensor& gradient : first)
    if (gradient.defined() && gradient.requires_grad() && gradient.grad_fn()) {
      gradients.push_back(gradient);
      ones.push_back(at::ones_like(gradient));
    }
  if (gradients.empty()) return;
  std::vector<at::Tensor> wanted = arguments.leaves();
  wanted.insert(wanted.end(), weights.begin(), weights.end());
  torch::autograd::grad(gradients, wanted, ones, /*retain_graph=*/false, /*create_graph=*/false, /*allow_unused=*/true);
}

void check_graph(const Graph& graph, std::vector<IValue> inputs, const std::string& where) {
  Frame frame = first_frame(graph, std::move(inputs));
  for (const Instruction& instruction : graph.instructions) {
    const bool is_op = instruction.kind == Instruction::Kind::kDispatch ||
                       instruction.kind == Instruction::Kind::kRewritten ||
                       instruction.kind == Instruction::Kind::kVmap;
    if (is_op && at::GradMode::is_enabled()) {
      try {
        differentiate_twice(instruction, frame, where);
      } catch (const Error&) {
        throw;
      } catch (const std::exception& e) {
        if (is_allocation_failure(e)) throw;
        throw InputError(where + instruction.origin.describe() + " has no double backward: " + first_line(e));
      }
    } else if (instruction.kind == Instruction::Kind::kSubgraph && instruction.grad_mode.value_or(true)) {
      check_graph(*instruction.subgraph, operand_values(instruction, frame), where);
    }
    execute(instruction, frame, where);
  }
}

}  // namespace

void Program::check_twice_differentiable(const std::vector<at::Tensor>& inputs) const {
  DefaultDtypeScope default_dtype(impl_->map_dtype(at::kFloat));
  at::AutoGradMode grad(true);
  check_graph(impl_->graph, impl_->graph_inputs(inputs), impl_->where);
}

}  // namespace hesspect
