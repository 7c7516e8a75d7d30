// What a Program holds, shared by the files that implement it.
#pragma once

#include <map>
#include <optional>
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
  at::ScalarType program_dtype = at::kFloat;  // that most parameters have, as exported
  at::ScalarType narrowest = at::kDouble;     // that any value has in the run

  Graph graph;
  /// What fills graph.inputs[i] at each run.
  struct Feed {
    enum class Kind { kParameter, kTensor, kUserInput, kUnused } kind = Kind::kUnused;
    std::size_t index = 0;   // into leaves, tensors or inputs
    std::size_t stored = 0;  // into `stored`, for a parameter
  };
  std::vector<Feed> feeds;
  struct NamedTensor {
    std::string name;
    std::vector<std::string> aliases;  // further names of the same data
    at::Tensor tensor;
    bool persistent = false;
    bool is_parameter = false;  // exported with requires_grad = False
    bool has_data = true;
    bool is_used = true;                              // by the graph; looked up only where data lack
    std::optional<std::size_t> fixed = std::nullopt;  // its place among `fixed`: it has a shape, but no values
  };
  std::vector<NamedTensor> tensors;  // buffers, constants, frozen parameters
  NodeSteps* record = nullptr;       // where runs are being recorded (node_record.h)

  /// A trainable parameter as the archive holds it: names of one record are one already.
  struct StoredParameter {
    ParameterEntry entry;
    at::Tensor value;  // from the archive, until it is laid out; undefined where that has no data
    bool has_data = true;
    bool is_used = true;  // as above
    /// Of an owner whose rows are held in part, which.
    std::shared_ptr<const std::vector<std::int64_t>> rows = nullptr;
  };
  std::vector<StoredParameter> stored;
  std::vector<std::size_t> owners;            // for each of stored, the first that it is tied to, or itself
  bool has_weights = true;                    // `stored` does, and what is tied is settled
  bool is_left_in_file = false;               // parameters stay in `stored`
  std::vector<ParameterEntry> fixed;          // of them those that are held fixed, which the layout has not
  std::vector<std::size_t> held;              // where each that is brought is in `stored`: the layout's, then `fixed`
  Program::Runner runner;                     // what `run` calls then; none: it runs by itself
  std::vector<std::shared_ptr<void>> mapped;  // state dicts' memory that `stored` refers to until it is laid out

  /// Makes layout, flat and leaves of `stored`, tied ones in one place, and copies their values; those without data get
  /// stand-ins.
  /// @param real  false: on the meta device, which takes no memory
  void lay_out(std::vector<std::size_t> new_owners, bool real);

  /// The dtype in the run of a floating dtype of the program.
  at::ScalarType map_dtype(at::ScalarType type) const;
  std::vector<c10::IValue> graph_inputs(const std::vector<at::Tensor>& user_inputs) const;
};

/// A tensor's numbers as reals: a complex one has a last dimension of 2 more.
at::Tensor as_reals(const at::Tensor& tensor);

/// A complex tensor of pairs of reals. A copy: a view would ask for an even offset, of the products' vectors too.
at::Tensor as_complex(const at::Tensor& pairs);

}  // namespace hesspect
