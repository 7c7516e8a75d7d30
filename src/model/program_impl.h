// What a Program holds, shared by the files that implement it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "compile.h"
#include "hesspect/model/program.h"

namespace hesspect {

struct NodeSteps;

struct Program::Impl {
  ProgramOptions options;
  std::string where;
  ParameterLayout layout;
  at::Tensor flat;                 // [n]
  std::vector<at::Tensor> leaves;  // alias flat, in layout order
  std::vector<InputSpec> inputs;
  std::vector<OutputSpec> outputs;
  std::vector<OpCount> ops;
  std::string torch_version;
  at::ScalarType program_dtype = at::kFloat;  // of most parameters, as exported
  at::ScalarType narrowest = at::kDouble;     // of all values, in the run

  Graph graph;
  /// What fills graph.inputs[i] at each run.
  struct Feed {
    enum class Kind { kParameter, kTensor, kUserInput, kUnused } kind = Kind::kUnused;
    std::size_t index = 0;  // of leaves, tensors or inputs
  };
  std::vector<Feed> feeds;
  struct NamedTensor {
    std::string name;
    std::vector<std::string> aliases;  // further names of the same data
    at::Tensor tensor;
    bool persistent = false;
    bool is_parameter = false;  // exported with requires_grad = False
  };
  std::vector<NamedTensor> tensors;  // buffers, constants, frozen parameters
  NodeSteps* record = nullptr;       // where runs are being recorded (node_record.h)

  /// A floating dtype of the program, in the run.
  at::ScalarType map_dtype(at::ScalarType type) const;
  std::vector<c10::IValue> graph_inputs(const std::vector<at::Tensor>& user_inputs) const;
};

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

}  // namespace hesspect
