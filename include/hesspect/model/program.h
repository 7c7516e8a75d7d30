// A user's model: the exported program of a `.pt2` file, run node by node through LibTorch's dispatcher, autograd on.
//
// Purpose: C++ LibTorch runs `.pt2` files for inference only; this executor records autograd, so that a loss on top can
// be differentiated twice. Limits: no control flow but `wrap_with_set_grad_enabled`, no transform but `torch.vmap`, no
// mutated buffers, no train-mode norm with running statistics or dropout, no op that draws random numbers; each is
// refused at load with its node, op and source line. Complex parameters are leaves of pairs of reals.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hesspect/model/parameter_layout.h"
#include "hesspect/model/rows_in_use.h"
#include "hesspect/model/state_dict.h"

namespace hesspect {

struct Instruction;  // graph.h

/// One dimension of an input: a number, or a symbol with its range.
struct Dimension {
  std::int64_t size = -1;  // -1: symbolic
  std::string symbol;      // "s0" where symbolic
  std::int64_t min = 0;
  std::int64_t max = -1;  // -1: unbounded
  bool is_static() const { return size >= 0; }
};

struct Graph;         // hesspect/model/graph.h
struct InputColumns;  // hesspect/model/rows_in_use.h

/// A tensor that the caller must supply, by its name in the exported signature.
struct InputSpec {
  std::string name;
  at::ScalarType dtype;  // as exported
  std::vector<Dimension> shape;
  /// The dimension that is the rows. The first, but where one symbol alone stands once in every input's shape: there.
  std::int64_t batch_dim = 0;
};

struct OutputSpec {
  std::string name;
  std::string path;  // its place in what the module returns, as "loss" or "1.logits"; "" for a lone tensor
  at::ScalarType dtype;
  std::vector<Dimension> shape;
  bool is_tensor = true;
  std::int64_t batch_dim = 0;  // as of an input; 0 where the rows' symbol does not stand once in its shape
};

struct ProgramOptions {
  at::ScalarType dtype = at::kFloat;  // of parameters, floating buffers, constants and inputs in the run
  at::Device device = at::kCPU;
  bool lay_out = true;  // false: parameters take no memory before Program::lay_out
};

/// An op the program uses, and how often; for `inspect`.
struct OpCount {
  std::string op;
  std::int64_t count;
};

/// Values that depend on parameters, but that the program makes constant to autograd on the way to its outputs.
struct LostGradients {
  std::vector<std::string> warnings;  // a line for each kind of stop, with its first node
  std::string reason;                 // why an output has no gradient at all; ends a line, empty where nothing stops it
};

class Program {
 public:
  /// Reads, checks and prepares a `.pt2`.
  /// @throws InputError: not a file, not such an archive, broken, or a node that cannot be run or differentiated twice
  ///         (the line names node, op and the line of the user's model it came from)
  /// A program without weights loads, but takes no memory for them and can't be run before overlay or use_stand_ins.
  static Program load(const std::filesystem::path& path, const ProgramOptions& options);
  ~Program();
  Program(Program&&) noexcept;
  Program& operator=(Program&&) noexcept;

  const ProgramOptions& options() const;
  const ParameterLayout& layout() const;
  const std::vector<InputSpec>& inputs() const;
  const std::vector<OutputSpec>& outputs() const;
  /// Sets which dimension of an input or output is the rows; of both where they share the name.
  /// @throws UsageError: no input or output of that name, or it has no such dimension
  void set_batch_dim(const std::string& name, std::int64_t dim);
  /// The output of that name or path. @throws UsageError that lists them
  std::size_t output_named(const std::string& name) const;
  /// The number of rows that every input must have, where the program was exported with a fixed batch.
  std::optional<std::int64_t> static_batch() const;
  /// Rows that the program takes at once: at least, and at most (none: any number).
  std::int64_t fewest_rows() const;
  std::optional<std::int64_t> most_rows() const;
  std::vector<OpCount> op_counts() const;
  /// Where gradients of parameters stop on their way to an output, or to any where none is named. By the graph alone.
  LostGradients lost_gradients(std::optional<int> output) const;
  /// Total bytes of buffers and constants, run dtype.
  std::int64_t buffer_bytes() const;
  /// The floating type of fewest bits that any value of the program has in the run.
  at::ScalarType narrowest_type() const;
  /// PyTorch's version that wrote the file, "" if unknown.
  const std::string& torch_version() const;

  /// The parameters, flat: [layout().size()], run dtype and device. The leaves of `parameters()` alias it.
  at::Tensor& flat_parameters();
  /// Leaf tensors that require grad, in layout order; aliasing flat_parameters().
  const std::vector<at::Tensor>& parameters() const;

  /// Lays state dicts over parameters and buffers, later ones over earlier. Before anything takes the parameters: where
  /// the program holds no weights, ties are settled by what the state dicts hold, and the layout may change.
  /// @throws InputError as hesspect::overlay, and where a buffer or constant without data is in no state dict
  /// @param look_at_values  whether values that parameters take are finite; false: whoever reads them looks
  OverlayReport overlay(std::span<const StateDict> state_dicts, bool partial = false, bool look_at_values = true);
  OverlayReport overlay(const StateDict& state_dict) { return overlay(std::span(&state_dict, 1)); }
  /// Of a program that was loaded without: takes memory for its parameters, where it has data, and reads their values.
  /// Of the tables named here, and of those only, it holds and reads the rows in use alone; a table that is tied to
  /// what is not looked up, or to a table that is not named, stays whole.
  /// @param in_use  as RowMarks finds them; an index of another row is an InputError when the program runs
  void lay_out(const RowsInUse& in_use);
  /// The same, but parameters stay in the file, and whoever runs the program brings their values
  /// (hesspect/tangent/segments.h). parameters() are then NaN throughout and take no memory: `run` tells shapes alone.
  void leave_in_file(const RowsInUse& in_use = {});
  bool is_left_in_file() const;
  /// What whoever runs such a program brings: the parameters of layout(), and behind them those that are held fixed
  /// (select_parameters), of whose entries offsets mean nothing.
  std::size_t brought_count() const;
  const ParameterEntry& brought(std::size_t parameter) const;
  /// Entries [begin, begin + count) of a parameter that was left in the file, in layout order and in the type in which
  /// it is stored there, on the CPU; made-up ones where the file has none.
  /// @param parameter  its place among what is brought
  at::Tensor read_parameter(std::size_t parameter, std::int64_t begin, std::int64_t count) const;
  /// The type that read_parameter gives.
  at::ScalarType stored_type(std::size_t parameter) const;
  /// From here on `run` calls `runner`, which brings the parameters; nullptr: it is run_here again.
  using Runner = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs)>;
  void run_by(Runner runner);
  /// Lets go of the file: nothing will be read any more.
  void let_go_of_file();
  /// Names of the tensors without data, as a program exported on the meta device or with fake tensors has them.
  std::vector<std::string> lacking() const;
  /// @throws InputError that lists lacking(), where there are any
  void require_data() const;
  /// Gives what is lacking() made-up values, so that time and memory can be measured.
  void use_stand_ins();
  /// Holds all but the chosen parameters fixed: they are constants from here on, and layout() has the chosen alone.
  /// After overlay and use_stand_ins, or after leave_in_file, before anything takes the parameters.
  /// @param chosen  for each entry of layout(), one at least
  void select_parameters(const std::vector<bool>& chosen);
  /// Checks that weights and buffers that are held in memory are finite. @throws InputError naming the first parameter
  /// or buffer with NaN or infinity
  void check_finite() const;
  /// Names of buffers and frozen parameters that hold other numbers than those of the same place in `other`, a program
  /// of the same file.
  std::vector<std::string> unlike(const Program& other) const;

  /// Runs the program with autograd on.
  /// @param inputs  in the order of inputs(), already of run dtype (floating ones) and device
  /// @return the outputs in the order of outputs(); undefined tensors for non-tensor outputs
  /// @throws InputError if an op fails, naming node, op and source line
  std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs) const;
  /// The same, whoever brings the parameters: of a program that was left in its file outputs are right where they do
  /// not depend on parameters, and else have their shapes alone.
  std::vector<at::Tensor> run_here(const std::vector<at::Tensor>& inputs) const;

  /// What the sweeps of room `tangent` need: the graph, the values of its inputs for a run (parameters as they are in
  /// parameters(), complex ones as complex numbers), which of its inputs is which parameter of layout(), the default
  /// dtype that its ops run under, and the start of messages.
  const Graph& graph() const;
  std::vector<c10::IValue> graph_inputs(const std::vector<at::Tensor>& inputs) const;
  std::vector<std::optional<std::size_t>> parameter_inputs() const;
  /// The same of all that is brought to a program that was left in its file.
  std::vector<std::optional<std::size_t>> brought_inputs() const;
  at::ScalarType default_dtype() const;
  const std::string& where() const;

  /// Runs the program once and differentiates ops twice on their actual arguments.
  /// @param which  of the graph's instructions; none: all of them
  /// @return whether any of these is part of a derivative at all, depending on parameters
  /// @throws InputError at the first op without a double backward, naming node, op and source line
  bool check_twice_differentiable(const std::vector<at::Tensor>& inputs,
                                  const std::function<bool(const Instruction&)>& which = {}) const;

  /// Checks arrays against inputs(): number of dimensions, fixed sizes, symbols' ranges and agreement, kind of dtype.
  /// @param inputs  with the rows first, whatever the program's order of dimensions
  /// @return inputs in the program's order of dimensions, converted to the run's dtype and device
  /// @throws InputError naming the input, what was given and what was expected
  std::vector<at::Tensor> prepare_inputs(const std::vector<at::Tensor>& inputs) const;

  struct Impl;  // the implementation's own

 private:
  friend class NodeRecord;
  friend class RowMarks;
  friend std::vector<InputColumns> input_columns(const Program& program);
  explicit Program(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hesspect
