// The program as a function of its inputs, and of what its integer inputs look up in embeddings.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "hesspect/model/program.h"

namespace hesspect {

/// A floating input of the program, or the output of an embedding whose index comes from an integer one.
struct InputVariable {
  std::string name;
  std::size_t input = 0;                     // of the program
  const Instruction* instruction = nullptr;  // the embedding
  std::int64_t batch_dim = 0;
};

/// @param names  of inputs; none: all floating ones, and where there are none, embeddings of the others
/// @throws UsageError: an unknown input, or one that is neither floating nor looks anything up
std::vector<InputVariable> input_variables(const Program& program, const std::vector<std::string>& names);

struct InputRun {
  std::vector<at::Tensor> variables;  // leaves, in the variables' order
  std::vector<at::Tensor> outputs;
};

/// Runs the program with autograd on, in the variables alone.
/// @param shifts  added to the variables, undefined ones are none; or empty
InputRun run_in_inputs(const Program& program, const std::vector<InputVariable>& variables,
                       const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>& shifts);

}  // namespace hesspect
