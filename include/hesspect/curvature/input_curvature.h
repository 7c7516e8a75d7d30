// Curvature of each row's loss in the row's own inputs, or in the embeddings that its integer inputs look up.
//
// Rows stand alone (row_check.h), so that one product of a micro-batch's summed loss with vectors over its inputs is a
// product for each of the rows at once: Lanczos runs side by side, with dots row by row. Products are by autograd,
// reverse over reverse, in the inputs alone: nothing is differentiated in the parameters.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "hesspect/core/input_cost.h"
#include "hesspect/core/input_sharpness.h"
#include "hesspect/curvature/loss.h"
#include "hesspect/data/dataset.h"
#include "hesspect/model/program.h"

namespace hesspect {

struct InputOptions {
  LossOptions loss;  // reduction: a row's loss is the mean over its own terms, or their sum
  int output_index = 0;
  /// Names of the program's inputs: a floating one itself, of an integer one the embeddings that it looks up. None: all
  /// floating inputs, and where there are none, the embeddings of all others.
  std::vector<std::string> variables;
  std::int64_t micro_batch = 0;  // rows; 0: chosen, halved where memory runs out
  double rtol = 1e-4;            // of an eigenvalue's error, over the row's largest |eigenvalue|
  std::int64_t most_products = 100;
  InputDirection direction = InputDirection::kSign;
  double step = 0;  // h; 0: a tenth of the norm of the row's inputs
  std::uint64_t seed = 0;
};

/// The rows of this process, a micro-batch at a time. Nothing here is collective.
///
///   InputAnalysis analysis(program, shard, options, {{0, shard.rows.size()}});
///   while (!analysis.done()) analysis.advance(rows, {});
class InputAnalysis {
 public:
  /// Borrows program.
  /// @param pending  which of the shard's rows, from 0: ascending, apart
  /// @throws UsageError: an input that the program does not have, or that is neither floating nor looks anything up;
  ///         InputError: loss and outputs that don't fit
  InputAnalysis(Program& program, const DataShard& shard, const InputOptions& options, std::vector<RowRange> pending);
  ~InputAnalysis();

  std::vector<std::string> variables() const;
  std::int64_t dimensions() const;     // D; 0 where there are no rows
  std::int64_t micro_batch() const;    // rows
  std::int64_t most_products() const;  // that a micro-batch took
  bool done() const;

  /// What a micro-batch costs: one is begun, and given up after a product. Where the memory is short it gets smaller,
  /// if the user has not fixed it.
  /// @param fits  whether the cost is one that the process may have
  /// @return the cost of the size that is used from here on, whether it fits or not; without rows all zero
  InputCost measure(const std::function<bool(const InputCost&)>& fits);

  /// Analyses the next micro-batch; in half its size where memory runs out.
  /// @param rows  its rows are added to them
  /// @param stop  asked before each product: whether to give up. Empty: never
  /// @return false where it was given up: nothing is added
  /// @throws InputError: an op without a second derivative, a result that is not finite
  bool advance(std::vector<InputRow>& rows, const std::function<bool()>& stop);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hesspect
