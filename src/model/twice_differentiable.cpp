// The trial that every node's op differentiates twice on the arguments it really gets, before any work is spent on the
// run.
//
// A missing formula would only show in the middle of a product, where autograd no longer knows the user's line. So each
// op is tried alone: its floating inputs become leaves, its outputs are pulled back twice, with weights of one.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function.h>

#include "hesspect/core/errors.h"
#include "hesspect/core/foreign_error.h"
#include "hesspect/model/executor.h"
#include "op_alone.h"
#include "program_impl.h"

namespace hesspect {
namespace {

using c10::IValue;

/// @return whether the op is part of a derivative at all
bool differentiate_twice(const Instruction& instruction, const Frame& frame, const std::string& where) {
  const OpAlone op(instruction, operand_values(instruction, frame), where);
  const std::vector<at::Tensor> outputs = differentiable(op.results());  // none of a comparison, an argmax, a detach
  std::vector<at::Tensor> adjoints;
  for (const at::Tensor& output : outputs) {
    // Autograd would warn, and take its derivative as zero.
    if (output.grad_fn()->name().find("WarnNotImplemented") != std::string::npos)
      throw std::runtime_error("it has no derivative in PyTorch at all");
    adjoints.push_back(at::ones_like(output).requires_grad_(true));
  }
  pulled_back_twice(outputs, op.leaves(), adjoints);
  return !outputs.empty();
}

using Which = std::function<bool(const Instruction&)>;

bool check_graph(const Graph& graph, std::vector<IValue> inputs, const std::string& where, const Which& which) {
  bool found = false;
  Frame frame = first_frame(graph, std::move(inputs));
  for (const Instruction& instruction : graph.instructions) {
    const bool is_op = instruction.kind == Instruction::Kind::kDispatch ||
                       instruction.kind == Instruction::Kind::kRewritten ||
                       instruction.kind == Instruction::Kind::kVmap;
    if (is_op && at::GradMode::is_enabled() && (!which || which(instruction))) {
      try {
        found = differentiate_twice(instruction, frame, where) || found;
      } catch (const Error&) {
        throw;
      } catch (const std::exception& e) {
        if (is_allocation_failure(e)) throw;
        throw InputError(where + instruction.origin.describe() + " has no double backward: " + first_line(e));
      }
    } else if (instruction.kind == Instruction::Kind::kSubgraph && instruction.grad_mode.value_or(true)) {
      found = check_graph(*instruction.subgraph, operand_values(instruction, frame), where, which) || found;
    }
    execute(instruction, frame, where);
  }
  return found;
}

}  // namespace

bool Program::check_twice_differentiable(const std::vector<at::Tensor>& inputs, const Which& which) const {
  DefaultDtypeScope default_dtype(impl_->map_dtype(at::kFloat));
  at::AutoGradMode grad(true);
  return check_graph(impl_->graph, impl_->graph_inputs(inputs), impl_->where, which);
}

}  // namespace hesspect
