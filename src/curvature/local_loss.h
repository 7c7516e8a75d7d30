// The summed loss over the rows that this process holds, a micro-batch at a time: its value, its gradient, and products
// with its Hessian. Knows no other rank. Products are taken by the tangent program (hesspect/tangent) or by autograd,
// reverse over reverse: there a product pulls ∇ℓ_sum · v back through the graph of ∇ℓ_sum.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "batch_products.h"
#include "hesspect/curvature/hessian.h"
#include "hesspect/data/dataset.h"
#include "hesspect/model/program.h"
#include "hesspect/tangent/launch_graph.h"
#include "hesspect/tangent/tangent_program.h"

namespace hesspect {

/// Rows of one micro-batch, ready for the program.
struct MicroBatch {
  std::vector<at::Tensor> inputs;
  at::Tensor target;           // checked and converted; undefined for loss 'output'
  at::Tensor weight;           // the same; undefined where all terms weigh the same
  at::Tensor output_like;      // has the shape, dtype and device of the output that the loss takes, but no memory
  std::int64_t rows = 0;       // rows of data
  std::int64_t padded = 0;     // rows of the inputs: more than `rows` where a fixed batch was filled up
  std::int64_t first_row = 0;  // global, for messages
};

/// The loss of some rows: the sum of its terms, and how many they are or what weight they have.
struct LossSum {
  at::Tensor sum;  // scalar, autograd on
  double count = 0;
};

/// ∇ℓ_sum of one micro-batch, its graph alive.
struct GradientGraph {
  std::vector<at::Tensor> gradients;    // those that depend on the parameters
  std::vector<std::size_t> parameters;  // and which parameter each belongs to
};

ProductChoice choice_of(const HessianOptions& options);

/// Whether the error says that memory ran out, on the CPU or on CUDA.
bool is_out_of_memory(const std::exception& error);

/// Waits until the device has done its work, so that a clock read next has measured it.
void finish_device_work(const at::Tensor& result);

/// Vectors over the parameters are lists of tensors, one per parameter, in layout order. Autograd must be on.
class LocalLoss {
 public:
  /// Borrows program. @throws UsageError: an output that the program does not have
  LocalLoss(Program& program, DataShard data, const LossOptions& loss, int output_index, RowUnits units = {});

  Program& program() const { return program_; }
  /// Fitted to the output, once a micro-batch has been made.
  const LossOptions& loss_options() const { return options_; }
  std::int64_t rows() const { return data_.rows.size(); }
  const RowRange& global_rows() const { return data_.rows; }
  at::TensorOptions tensor_options() const;

  /// The rows that the program takes at once, in whole units.
  std::int64_t fewest_rows() const;
  std::optional<std::int64_t> most_rows() const;
  /// The most whole units in so many rows, as rows.
  std::int64_t whole_units(std::int64_t rows) const { return rows - rows % units_.rows; }
  /// The micro-batch's size where it is fixed: by the user (`asked`, 0: free), by the program's batch, or by units that
  /// go through the program alone.
  /// @throws UsageError where these contradict each other
  std::optional<std::int64_t> given_micro_batch(std::int64_t asked) const;
  /// Cuts this process's rows into micro-batches. A last one of a single row, or of fewer than the program takes,
  /// shares rows with the one before: many models squeeze() a batch of one away.
  std::vector<RowRange> micro_batches(std::int64_t size) const;

  /// Rows [range) of this process's, checked.
  /// @throws InputError: a target or an input that does not fit
  MicroBatch batch(RowRange range);
  /// The same unchecked, its target as the file has it. Padded to what the program takes by repeating the first row.
  MicroBatch unchecked_batch(RowRange range) const;

  /// Tries on the first rows everything that can be wrong with model and data together. Does nothing without rows.
  /// @param derivatives  also differentiate twice, op by op to name one that cannot be, what is left to autograd
  /// @return bytes of the output of the first rows
  /// @throws InputError
  std::int64_t check(bool derivatives);
  /// The same of ops that the sweeps so far have left to autograd after all. @throws InputError
  void check_turned_down();

  /// The output that the loss takes, the rows first and without padded ones; a scalar as it is.
  /// @throws InputError: an output that is no floating tensor, or has other rows than were fed
  at::Tensor output(const MicroBatch& batch) const;
  /// The same of an output that the program has made of a micro-batch.
  at::Tensor rows_of_output(const at::Tensor& output, const MicroBatch& batch) const;
  /// ℓ_sum with its graph.
  at::Tensor sum(const MicroBatch& batch) const;
  /// The same with its count. @throws InputError: an output that the loss does not take
  LossSum loss(const MicroBatch& batch) const;
  /// Checks what the loss assumes of an output's values. @throws InputError
  void check_values(const MicroBatch& batch) const;
  /// Terms of the loss, or their weight.
  double count(const MicroBatch& batch) const;
  /// sums += ∇ℓ_sum. @return ℓ_sum and its count @throws InputError as loss
  std::pair<double, double> add_gradient(const MicroBatch& batch, const std::vector<at::Tensor>& sums) const;
  /// How products and gradients are taken from here on.
  void choose(const ProductChoice& choice);
  const ProductChoice& choice() const { return choice_; }
  /// Products of a micro-batch, which must outlive them as this must.
  std::unique_ptr<BatchProducts> products(const MicroBatch& batch);
  /// The sweeps of the tangent program for a micro-batch.
  Sweeps sweeps(const MicroBatch& batch);
  const TangentProgram& tangent_program();
  /// Of all micro-batches' launches; nullptr where the program does not run on a GPU.
  LaunchRecorder* recorder();
  /// Another one instead, as a test has it where there is no GPU.
  void record_with(std::unique_ptr<LaunchRecorder> recorder) { recorder_ = std::move(recorder); }
  /// Where products in segments cut the program: chosen by the bytes of this micro-batch, once.
  const Cuts& cuts(const MicroBatch& batch);
  GradientGraph gradient_graph(const MicroBatch& batch) const;
  /// sums += ∇(∇ℓ_sum · v).
  /// @param keep    the graph will be used again
  /// @param chosen  where given, the parameters outside of which v is zero, and only whose sums are wanted
  void add_product(const GradientGraph& graph, const std::vector<at::Tensor>& v, bool keep,
                   const std::vector<at::Tensor>& sums, const std::vector<bool>* chosen = nullptr) const;

 private:
  std::int64_t padded_rows(RowRange range) const;
  MicroBatch trial_batch() const;
  void check_derivatives(const MicroBatch& trial);
  void fit(MicroBatch& batch, const at::Tensor& output);
  at::Tensor shape_of_output(const MicroBatch& batch) const;
  /// Whether the outer products are of a scalar output: then a micro-batch must be a row.
  bool squares_scalar() const;
  bool is_output() const { return options_.kind == LossKind::kOutput; }
  std::vector<at::Tensor> product(const GradientGraph& graph, const std::vector<at::Tensor>& v, bool keep,
                                  const std::vector<bool>* chosen = nullptr) const;

  Program& program_;
  DataShard data_;
  LossOptions options_;  // fitted to the program's outputs
  int output_index_;
  RowUnits units_;
  at::Tensor output_like_;              // has an output's shape, dtype and device, but no memory
  std::int64_t output_like_rows_ = -1;  // the rows of that output
  ProductChoice choice_;
  std::unique_ptr<TangentProgram> tangent_;   // made when it is first asked for
  std::unique_ptr<LaunchRecorder> recorder_;  // likewise
  std::optional<Cuts> cuts_;                  // likewise
  std::set<const Instruction*> checked_;      // instructions whose derivatives by autograd were tried
};

/// Which row and which node of the program make a loss, its gradient or a product not finite: looks through this
/// process's micro-batches, halves the first one that is not finite down to a row where the program allows, and runs
/// that node by node. For error paths: costs a few products.
/// @param ranges  of rows of this process, in order
/// @param v       of the product, a tensor for each parameter; empty: loss and gradient alone
/// @return "in row 17, node 'norm' (…) has a second derivative that is not finite: …"; "" where all is finite
std::string first_non_finite(LocalLoss& local, const std::vector<RowRange>& ranges, const std::vector<at::Tensor>& v);

}  // namespace hesspect
