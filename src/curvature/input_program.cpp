#include "input_program.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/model/executor.h"

namespace hesspect {
namespace {

bool is_op(const Instruction& instruction, std::string_view name) {
  return instruction.op && instruction.op->schema().name() == name;
}

/// Where rows of a table are left out: the step from an index to where its rows are held, which has these as a
/// constant.
bool finds_held_rows(const Instruction& instruction) {
  return std::ranges::any_of(instruction.operands, [](const Operand& operand) {
    return operand.kind == Operand::Kind::kConstant && operand.constant.isTensor();
  });
}

/// Ops of whose arguments a shape is all that counts: ids of positions and of segments come from them.
bool takes_shape_alone(const Instruction& instruction) {
  static constexpr std::array<std::string_view, 12> kOps = {
      "aten::zeros_like", "aten::ones_like", "aten::full_like", "aten::empty_like", "aten::new_zeros", "aten::new_ones",
      "aten::new_full",   "aten::new_empty", "aten::sym_size",  "aten::size",       "aten::sym_numel", "aten::numel"};
  return (instruction.kind == Instruction::Kind::kSymbolic && !finds_held_rows(instruction)) ||
         std::ranges::any_of(kOps, [&](std::string_view op) { return is_op(instruction, op); });
}

/// The program's slot of each of its inputs, as far as it reads it; -1.
std::vector<int> slots_of_inputs(const Program& program) {
  std::vector<at::Tensor> marks;
  for (std::size_t i = 0; i < program.inputs().size(); ++i) marks.push_back(at::empty({0}));
  const std::vector<c10::IValue> values = program.graph_inputs(marks);
  std::vector<int> slots(marks.size(), -1);
  for (std::size_t v = 0; v < values.size(); ++v)
    for (std::size_t i = 0; i < marks.size(); ++i)
      if (values[v].isTensor() && values[v].toTensor().is_same(marks[i])) slots[i] = program.graph().inputs[v];
  return slots;
}

/// The embeddings whose index the input's values decide.
std::vector<const Instruction*> lookups_of(const Graph& graph, int input_slot) {
  std::vector<bool> depends(static_cast<std::size_t>(graph.slots), false);
  const auto at = [](int slot) { return static_cast<std::size_t>(slot); };
  if (input_slot < 0) return {};
  depends[at(input_slot)] = true;
  std::vector<const Instruction*> found;
  for (const Instruction& instruction : graph.instructions) {
    const auto reads = [&](const Operand& operand) {
      bool any = false;
      for_each_slot(operand, [&](int slot) { any = any || depends[at(slot)]; });
      return any;
    };
    if (is_op(instruction, "aten::embedding")) {
      if (instruction.operands.size() > 1 && reads(instruction.operands[1])) found.push_back(&instruction);
      continue;  // behind it nothing is an index any more
    }
    if (takes_shape_alone(instruction) || !std::ranges::any_of(instruction.operands, reads)) continue;
    for (const int slot : instruction.outputs)
      if (slot >= 0) depends[at(slot)] = true;
  }
  return found;
}

}  // namespace

std::vector<InputVariable> input_variables(const Program& program, const std::vector<std::string>& names) {
  const std::vector<int> slots = slots_of_inputs(program);
  std::vector<std::string> known;
  for (const InputSpec& input : program.inputs()) known.push_back(input.name);
  for (const std::string& name : names)
    if (std::ranges::find(known, name) == known.end())
      throw UsageError("--vary " + name + ": the model has no such input" + did_you_mean(name, known) +
                       "; its inputs are " + format_names(known));
  const auto is_asked = [&](std::size_t i) { return std::ranges::find(names, known[i]) != names.end(); };
  std::vector<InputVariable> floating, embedded;
  for (std::size_t i = 0; i < known.size(); ++i) {
    const InputSpec& input = program.inputs()[i];
    if (at::isFloatingType(input.dtype)) {
      if (names.empty() || is_asked(i)) floating.push_back({known[i], i, nullptr, input.batch_dim});
      continue;
    }
    if (!names.empty() && !is_asked(i)) continue;
    const std::vector<const Instruction*> lookups = lookups_of(program.graph(), slots[i]);
    if (lookups.empty() && is_asked(i))
      throw UsageError("--vary " + known[i] + ": the input is of " + c10::toString(input.dtype) +
                       " and looks nothing up in an embedding, so that the loss has no derivative in it");
    for (const Instruction* lookup : lookups)
      if (std::ranges::none_of(embedded, [&](const InputVariable& v) { return v.instruction == lookup; }))
        embedded.push_back({lookup->origin.node, i, lookup, input.batch_dim});
  }
  if (names.empty() && !floating.empty()) return floating;
  floating.insert(floating.end(), embedded.begin(), embedded.end());
  if (floating.empty())
    throw InputError(
        "the model has no floating input, and its integer inputs look nothing up in an embedding: there is "
        "nothing to differentiate in");
  return floating;
}

InputRun run_in_inputs(const Program& program, const std::vector<InputVariable>& variables,
                       const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>& shifts) {
  const DefaultDtypeScope default_dtype(program.default_dtype());
  InputRun run;
  run.variables.resize(variables.size());
  /// Not the leaf itself: the program may write to what it is given.
  const auto leaf_of = [&](std::size_t i, const at::Tensor& value) {
    at::Tensor leaf = value.detach();
    leaf = i < shifts.size() && shifts[i].defined() ? leaf + shifts[i] : leaf.clone();
    run.variables[i] = leaf.requires_grad_(true);
    return leaf.clone();
  };
  std::vector<at::Tensor> given = inputs;
  for (std::size_t i = 0; i < variables.size(); ++i)
    if (variables[i].instruction == nullptr) given[variables[i].input] = leaf_of(i, given[variables[i].input]);
  std::vector<c10::IValue> values = program.graph_inputs(given);
  const std::vector<std::optional<std::size_t>> parameters = program.parameter_inputs();
  for (std::size_t v = 0; v < values.size(); ++v)
    if (parameters[v] && values[v].isTensor()) values[v] = values[v].toTensor().detach();
  const Graph& graph = program.graph();
  Frame frame = first_frame(graph, std::move(values));
  for (const Instruction& instruction : graph.instructions) {
    execute(instruction, frame, program.where());
    for (std::size_t i = 0; i < variables.size(); ++i) {
      if (variables[i].instruction != &instruction || instruction.outputs.at(0) < 0) continue;
      c10::IValue& looked_up = frame[static_cast<std::size_t>(instruction.outputs[0])];
      if (looked_up.isTensor()) looked_up = leaf_of(i, looked_up.toTensor());
    }
  }
  for (const Operand& output : graph.outputs) {
    const c10::IValue value = materialise(output, frame);
    run.outputs.push_back(value.isTensor() ? value.toTensor() : at::Tensor());
  }
  run.outputs.resize(program.outputs().size());
  return run;
}

}  // namespace hesspect
