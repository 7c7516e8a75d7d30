// The steps of one recorded run of a program: what each op was given, and what it made of it.
#pragma once

#include <ATen/core/ivalue.h>

#include <string>
#include <unordered_map>
#include <vector>

#include "hesspect/model/graph.h"

namespace hesspect {

struct NodeSteps {
  /// A tensor that an op was given: the step that made it (-1: an input of the program), and what it held then.
  struct Source {
    int step = -1;
    bool nan = false, infinite = false;
  };
  struct Step {
    const Instruction* instruction = nullptr;
    std::vector<c10::IValue> arguments;  // copies of what the op writes to
    std::vector<Source> sources;
    std::vector<at::Tensor> results;  // in order; undefined ones stay
    bool nan = false, infinite = false;
    bool differentiated = false;  // gradients were on
  };
  std::vector<Step> steps;
  std::vector<at::Tensor> outputs;  // of the program

  /// Runs a graph as `execute` does, and keeps everything. Forgets the run before.
  std::vector<c10::IValue> record(const Graph& graph, std::vector<c10::IValue> inputs);
  /// -1 where no step made the tensor.
  int maker_of(const at::Tensor& tensor) const;

 private:
  std::vector<c10::IValue> run(const Graph& graph, std::vector<c10::IValue> inputs);
  std::vector<c10::IValue> run_op(const Instruction& instruction, std::vector<c10::IValue> arguments);

  std::unordered_map<const void*, int> makers_;  // tensors by their identity: all stay alive
};

/// All tensors among the values, lists' included, undefined ones too.
std::vector<at::Tensor> tensors_in(const std::vector<c10::IValue>& values);

/// Whether any of a tensor's entries is NaN, or infinite. False for undefined tensors and for integers.
bool has_nan(const at::Tensor& tensor);
bool has_infinity(const at::Tensor& tensor);

}  // namespace hesspect
