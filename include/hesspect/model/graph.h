// A program's graph as instructions, which the executor and the sweeps of room `tangent` walk.
//
// A graph's values live in numbered slots (one per SSA name). An instruction names its operands by slot or holds them
// as constants; the run path looks up no string.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>

#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

namespace hesspect {

struct Rewrite;  // an op's other form (src/model/rewrites.h)

/// One of Python's operators.
struct SymbolicOp {
  std::size_t arity = 0;  // arguments at least
  c10::IValue (*run)(std::span<const c10::IValue> arguments) = nullptr;
};

/// Where a node came from, for messages.
struct Origin {
  std::string node;    // its name in the graph
  std::string target;  // "torch.ops.aten.linear.default"
  std::string source;  // "model.py:12, in forward: x = self.fc(x)"; empty if the file does not say
  /// "node 'linear' (aten.linear.default, from model.py:12, in forward: x = self.fc(x))"
  std::string describe() const;
};

struct Operand {
  enum class Kind { kConstant, kSlot, kIntList, kFloatList, kTensorList, kOptionalTensorList };
  Kind kind = Kind::kConstant;
  c10::IValue constant;
  int slot = -1;
  bool wrap_number = false;    // the op takes a tensor here, the program may give a number
  std::vector<Operand> items;  // of a list that is not constant
};

Operand slot_operand(int slot);

/// Calls visit(slot) for each slot that an operand takes.
template <class MaybeConstOperand, class F>
void for_each_slot(MaybeConstOperand& operand, F&& visit) {
  if (operand.kind == Operand::Kind::kSlot) visit(operand.slot);
  for (auto& item : operand.items) for_each_slot(item, visit);
}

struct Graph;

struct Instruction {
  enum class Kind {
    kDispatch,   // an op through the dispatcher
    kSymbolic,   // arithmetic on ints, floats, bools
    kSubgraph,   // wrap_with_set_grad_enabled: a nested graph under a grad mode
    kRewritten,  // an op run in another form (rewrites.h)
    kVmap,       // a region of torch.vmap (vmap.h): a nested graph under a level of functorch
    kAddBatchDim,
    kRemoveBatchDim,
  };
  Kind kind = Kind::kDispatch;
  std::optional<c10::OperatorHandle> op;
  SymbolicOp symbolic;
  const Rewrite* rewrite = nullptr;
  std::unique_ptr<Graph> subgraph;
  std::optional<bool> grad_mode;  // of a subgraph; unset: unchanged
  std::vector<Operand> operands;
  std::vector<bool> writes;   // per operand: the op mutates it
  std::vector<int> outputs;   // slots; -1: dropped
  bool spreads_list = false;  // the op returns one list whose elements go to `outputs`
  std::vector<int> dead;      // slots whose last use this is
  Origin origin;
};

struct Graph {
  int slots = 0;
  std::vector<bool> continuous;  // per slot: a floating or complex tensor, or a float; gradients may flow through it
  std::vector<int> folded_from;  // in a region of torch.vmap: its slots' numbers in the graph that it was folded out of
  std::vector<int> inputs;       // slots, in the graph's input order
  std::vector<Operand> outputs;
  std::vector<Instruction> instructions;
};

/// The slots that instructions or outputs of the graph take.
std::set<int> slots_read(const Graph& graph);

}  // namespace hesspect
