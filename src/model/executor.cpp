#include "hesspect/model/executor.h"

#include <ATen/ATen.h>
#include <ATen/ScalarOps.h>
#include <ATen/core/grad_mode.h>

#include <c10/core/DefaultDtype.h>

#include <new>

#include "hesspect/core/errors.h"
#include "hesspect/core/foreign_error.h"
#include "rewrites.h"
#include "symbolic.h"
#include "vmap.h"

namespace hesspect {
namespace {

using c10::IValue;

void execute_subgraph(const Instruction& instruction, std::vector<IValue>& stack, const std::string& where) {
  std::optional<at::AutoGradMode> mode;
  if (instruction.grad_mode) mode.emplace(*instruction.grad_mode && at::GradMode::is_enabled());
  stack = execute(*instruction.subgraph, std::move(stack), where);
}

template <class Element, class Read>
c10::List<Element> list_of(const Operand& operand, const Frame& frame, Read&& read) {
  c10::List<Element> list;
  list.reserve(operand.items.size());
  for (const Operand& item : operand.items)
    list.push_back(
        read(item.kind == Operand::Kind::kSlot ? frame[static_cast<std::size_t>(item.slot)] : item.constant));
  return list;
}

/// @param stack  batch size, randomness, and what the region's graph takes
void run_vmap_region(const Instruction& instruction, std::vector<IValue>& stack, const std::string& where) {
  std::vector<IValue> inputs(stack.begin() + 2, stack.end());
  const VmapLevel level(stack[0].toInt(), stack[1].toStringRef());
  stack = execute(*instruction.subgraph, std::move(inputs), where);
  for (const IValue& output : stack)
    if (output.isTensor() && hides_batch_dim(output.toTensor()))
      throw InputError(where + instruction.origin.describe() + " gives a tensor of its inside to nodes behind it");
}

}  // namespace

DefaultDtypeScope::DefaultDtypeScope(at::ScalarType type) : saved_(c10::get_default_dtype()) {
  c10::set_default_dtype(c10::scalarTypeToTypeMeta(type));
}

DefaultDtypeScope::~DefaultDtypeScope() { c10::set_default_dtype(saved_); }

IValue wrapped_number(const IValue& value) {
  if (!value.isInt() && !value.isDouble() && !value.isBool() && !value.isComplexDouble()) return value;
  return at::native::wrapped_scalar_tensor(value.toScalar());
}

IValue materialise(const Operand& operand, const Frame& frame) {
  switch (operand.kind) {
    case Operand::Kind::kConstant: return operand.constant;
    case Operand::Kind::kSlot: {
      const IValue& value = frame[static_cast<std::size_t>(operand.slot)];
      return operand.wrap_number ? wrapped_number(value) : value;
    }
    case Operand::Kind::kIntList:
      return list_of<std::int64_t>(operand, frame, [](const IValue& item) { return item.toInt(); });
    case Operand::Kind::kFloatList:
      return list_of<double>(operand, frame, [](const IValue& item) {
        return item.isDouble() ? item.toDouble() : static_cast<double>(item.toInt());
      });
    case Operand::Kind::kTensorList:
      return list_of<at::Tensor>(operand, frame, [](const IValue& item) { return item.toTensor(); });
    case Operand::Kind::kOptionalTensorList:
      return list_of<std::optional<at::Tensor>>(operand, frame,
                                                [](const IValue& item) { return item.toOptional<at::Tensor>(); });
  }
  return IValue();
}

std::vector<IValue> operand_values(const Instruction& instruction, const Frame& frame) {
  std::vector<IValue> values;
  values.reserve(instruction.operands.size());
  for (const Operand& operand : instruction.operands) values.push_back(materialise(operand, frame));
  return values;
}

void call_op(const Instruction& instruction, std::vector<IValue>& stack, const std::string& where) {
  const auto give = [&](at::Tensor y) {
    stack.clear();
    stack.emplace_back(std::move(y));
  };
  switch (instruction.kind) {
    case Instruction::Kind::kRewritten: return give(instruction.rewrite->run(stack));
    case Instruction::Kind::kVmap: return run_vmap_region(instruction, stack, where);
    case Instruction::Kind::kAddBatchDim: return give(add_batch_dim(stack.at(0).toTensor(), stack.at(1).toInt()));
    case Instruction::Kind::kRemoveBatchDim:
      return give(remove_batch_dim(stack.at(0).toTensor(), stack.at(1).toInt(), stack.at(2).toInt()));
    default: instruction.op->callBoxed(stack);
  }
}

void call(const Instruction& instruction, std::vector<IValue>& stack, const std::string& where) {
  if (instruction.kind == Instruction::Kind::kSubgraph) return execute_subgraph(instruction, stack, where);
  if (instruction.kind != Instruction::Kind::kSymbolic) return call_op(instruction, stack, where);
  IValue value = evaluate(instruction.symbolic, stack);
  stack.clear();
  stack.push_back(std::move(value));
}

void store_outputs(const Instruction& instruction, std::vector<IValue>& stack, Frame& frame) {
  if (instruction.spreads_list) {
    const c10::List<at::Tensor> list = stack.at(0).toTensorList();
    if (list.size() != instruction.outputs.size())
      throw InputError("returned " + std::to_string(list.size()) + " tensors where the program was exported with " +
                       std::to_string(instruction.outputs.size()));
    for (std::size_t i = 0; i < instruction.outputs.size(); ++i)
      if (instruction.outputs[i] >= 0) frame[static_cast<std::size_t>(instruction.outputs[i])] = list.get(i);
    return;
  }
  for (std::size_t i = 0; i < instruction.outputs.size() && i < stack.size(); ++i)
    if (instruction.outputs[i] >= 0) frame[static_cast<std::size_t>(instruction.outputs[i])] = std::move(stack[i]);
}

void rethrow_for(const Origin& origin, const std::string& where) {
  try {
    throw;
  } catch (const Error&) {
    throw;
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& e) {
    if (is_allocation_failure(e)) throw MemoryError(0, 0, where + origin.describe() + ": " + first_line(e));
    throw InputError(where + origin.describe() + " failed: " + first_line(e));
  }
}

void execute(const Instruction& instruction, Frame& frame, const std::string& where) {
  try {
    std::vector<IValue> stack = operand_values(instruction, frame);
    call(instruction, stack, where);
    store_outputs(instruction, stack, frame);
  } catch (...) {
    rethrow_for(instruction.origin, where);
  }
  for (const int slot : instruction.dead) frame[static_cast<std::size_t>(slot)] = IValue();
}

Frame first_frame(const Graph& graph, std::vector<IValue> inputs) {
  Frame frame(static_cast<std::size_t>(graph.slots));
  for (std::size_t i = 0; i < graph.inputs.size(); ++i)
    frame[static_cast<std::size_t>(graph.inputs[i])] = std::move(inputs[i]);
  return frame;
}

std::vector<IValue> execute(const Graph& graph, std::vector<IValue> inputs, const std::string& where) {
  Frame frame = first_frame(graph, std::move(inputs));
  for (const Instruction& instruction : graph.instructions) execute(instruction, frame, where);
  std::vector<IValue> outputs;
  outputs.reserve(graph.outputs.size());
  for (const Operand& output : graph.outputs) outputs.push_back(materialise(output, frame));
  return outputs;
}

}  // namespace hesspect
