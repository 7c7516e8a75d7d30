// Arithmetic on the program's symbolic ints, floats and bools: the few Python operators that exported graphs use.
#pragma once

#include <ATen/core/ivalue.h>

#include <optional>
#include <span>
#include <string>

#include "hesspect/model/graph.h"

namespace hesspect {

/// The operator of a node's target such as `_operator.floordiv`, `torch.sym_max` or `math.trunc`; nothing for others.
std::optional<SymbolicOp> symbolic_op_from(const std::string& target);

/// Python's semantics: floor division and modulo round towards minus infinity, `/` gives a float.
/// @throws std::domain_error where Python raises an error (a division by zero, say), or an integer leaves 64 bits
c10::IValue evaluate(const SymbolicOp& op, std::span<const c10::IValue> arguments);

}  // namespace hesspect
