// Runs compiled graphs through the dispatcher, autograd on.
#pragma once

#include <ATen/core/ivalue.h>

#include <string>
#include <vector>

#include "hesspect/model/graph.h"

namespace hesspect {

/// Sets LibTorch's default dtype for the ops that fall back on it (factories, int / int), and restores it.
class DefaultDtypeScope {
 public:
  explicit DefaultDtypeScope(at::ScalarType type);
  ~DefaultDtypeScope();
  DefaultDtypeScope(const DefaultDtypeScope&) = delete;
  DefaultDtypeScope& operator=(const DefaultDtypeScope&) = delete;

 private:
  caffe2::TypeMeta saved_;
};

/// The values of one run, by slot.
using Frame = std::vector<c10::IValue>;

/// A number as the 0-dimensional tensor that yields to other tensors' dtypes (x + 1 keeps x's); anything else as it is.
c10::IValue wrapped_number(const c10::IValue& value);

/// An operand's value: lists that hold slots are assembled here.
c10::IValue materialise(const Operand& operand, const Frame& frame);

std::vector<c10::IValue> operand_values(const Instruction& instruction, const Frame& frame);

/// A frame that holds nothing but the graph's inputs. @param inputs in the order of graph.inputs
Frame first_frame(const Graph& graph, std::vector<c10::IValue> inputs);

/// Calls one op through the dispatcher, or a region of torch.vmap as a whole: arguments on the stack become returns.
/// @param where  start of messages
void call_op(const Instruction& instruction, std::vector<c10::IValue>& stack, const std::string& where);

/// The same for every kind of instruction.
void call(const Instruction& instruction, std::vector<c10::IValue>& stack, const std::string& where);

/// In a handler: throws the exception again, as an error that names node, op and source line where it is LibTorch's.
/// @throws InputError; MemoryError, and what says that memory ran out, as it is
[[noreturn]] void rethrow_for(const Origin& origin, const std::string& where);

void store_outputs(const Instruction& instruction, std::vector<c10::IValue>& stack, Frame& frame);

/// Runs one instruction and frees what it used last.
/// @throws InputError naming node, op and source line
void execute(const Instruction& instruction, Frame& frame, const std::string& where);

/// Runs a whole graph. @param inputs in the order of graph.inputs
std::vector<c10::IValue> execute(const Graph& graph, std::vector<c10::IValue> inputs, const std::string& where);

}  // namespace hesspect
