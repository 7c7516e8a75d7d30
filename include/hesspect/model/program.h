// A user's model: the exported program of a `.pt2` file, run node by node through LibTorch's dispatcher, autograd on.
//
// Purpose: C++ LibTorch runs `.pt2` files for inference only; this executor records autograd, so that a loss on top can
// be differentiated twice. Limits: no control flow but `wrap_with_set_grad_enabled`, no transform but `torch.vmap`, no
// mutated buffers, no train-mode norm with running statistics or dropout, no op that draws random numbers; each is
// refused at load with its node, op and source line. Complex parameters are leaves of pairs of reals.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "hesspect/model/checkpoint.h"
#include "hesspect/model/parameter_layout.h"

namespace hesspect {

/// One dimension of an input: a number, or a symbol with its range.
struct Dimension {
  std::int64_t size = -1;  // -1: symbolic
  std::string symbol;      // "s0" where symbolic
  std::int64_t min = 0;
  std::int64_t max = -1;  // -1: unbounded
  bool is_static() const { return size >= 0; }
};

/// A tensor that the caller must supply, by its name in the exported signature.
struct InputSpec {
  std::string name;
  at::ScalarType dtype;  // as exported
  std::vector<Dimension> shape;
};

struct OutputSpec {
  std::string name;
  at::ScalarType dtype;
  std::vector<Dimension> shape;
  bool is_tensor = true;
};

struct ProgramOptions {
  at::ScalarType dtype = at::kFloat;  // of parameters, floating buffers, constants and inputs in the run
  at::Device device = at::kCPU;
};

/// An op the program uses, and how often; for `inspect`.
struct OpCount {
  std::string op;
  std::int64_t count;
};

class Program {
 public:
  /// Reads, checks and prepares a `.pt2`.
  /// @throws InputError: not a file, not such an archive, broken, or a node that cannot be run or differentiated twice
  ///         (the line names node, op and the line of the user's model it came from)
  static Program load(const std::filesystem::path& path, const ProgramOptions& options);
  ~Program();
  Program(Program&&) noexcept;
  Program& operator=(Program&&) noexcept;

  const ProgramOptions& options() const;
  const ParameterLayout& layout() const;
  const std::vector<InputSpec>& inputs() const;
  const std::vector<OutputSpec>& outputs() const;
  /// Size of dimension 0 that every input must have, where the program was exported with a fixed batch.
  std::optional<std::int64_t> static_batch() const;
  std::vector<OpCount> op_counts() const;
  /// Total bytes of buffers and constants, run dtype.
  std::int64_t buffer_bytes() const;
  /// PyTorch's version that wrote the file, "" if unknown.
  const std::string& torch_version() const;

  /// The parameters, flat: [layout().size()], run dtype and device. The leaves of `parameters()` alias it.
  at::Tensor& flat_parameters();
  /// Leaf tensors that require grad, in layout order; aliasing flat_parameters().
  const std::vector<at::Tensor>& parameters() const;

  /// Lays a checkpoint over parameters and buffers.
  OverlayReport overlay(const Checkpoint& checkpoint);
  /// Frozen weights are finite? @throws InputError naming the first parameter or buffer with NaN or infinity
  void check_finite() const;

  /// Runs the program with autograd on.
  /// @param inputs  in the order of inputs(), already of run dtype (floating ones) and device
  /// @return the outputs in the order of outputs(); undefined tensors for non-tensor outputs
  /// @throws InputError if an op fails, naming node, op and source line
  std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs) const;

  /// Runs the program once and differentiates each node's op twice on its actual arguments.
  /// @throws InputError at the first op without a double backward, naming node, op and source line
  void check_twice_differentiable(const std::vector<at::Tensor>& inputs) const;

  /// Made-up inputs that fit inputs(): small random floats, zeros (a valid index) for integers, true; `rows` rows where
  /// the batch is symbolic. For looking at a program without data; run dtype and device.
  std::vector<at::Tensor> example_inputs(std::int64_t rows) const;

  /// Checks arrays against inputs(): number of dimensions, fixed sizes, symbols' ranges and agreement, kind of dtype.
  /// @return inputs converted to the run's dtype and device
  /// @throws InputError naming the input, what was given and what was expected
  std::vector<at::Tensor> prepare_inputs(const std::vector<at::Tensor>& inputs) const;

  struct Impl;  // the implementation's own

 private:
  explicit Program(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hesspect
