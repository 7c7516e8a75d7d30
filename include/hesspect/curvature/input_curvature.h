// Curvature of each row's loss in the row's own inputs, or in the embeddings that its integer inputs look up.
//
// Rows stand alone (row_check.h), so that one product of a micro-batch's summed loss with vectors over its inputs is a
// product for each of the rows at once: Lanczos runs side by side, with dots row by row. Products are by autograd,
// reverse over reverse, in the inputs alone: nothing is differentiated in the parameters.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

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

/// The rows of this process, without what is said of all of them together. Not collective.
/// @throws UsageError: an input that the program does not have, or that is neither floating nor looks anything up;
///         InputError: loss and outputs that don't fit, an op without a second derivative, a result that is not finite
InputSharpness input_sharpness(Program& program, const DataShard& shard, const InputOptions& options);

}  // namespace hesspect
