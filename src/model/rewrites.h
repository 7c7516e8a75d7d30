// Ops that run in another form, for a cheaper double backward or for one at all.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <optional>
#include <string>
#include <vector>

namespace hesspect {

enum class Rewrite {
  kBatchNorm,    // eval mode: a scale and a shift per channel; the native double backward costs several times that
  kHardsigmoid,  // clamp(x / 6 + 1/2, 0, 1): hardsigmoid_backward has no derivative
  kHardsigmoidInPlace,  // the same, written to x
  kWeightNorm,          // v · g / ‖v‖: the fused op's double backward takes the norms as constant, and is wrong
  kEmbeddingBag,        // embedding and index_add: _embedding_bag_dense_backward has no derivative; modes sum and mean
  kCopy,                // a fresh tensor and copy_: the form without side effects has no derivative
  kSliceScatter,        // a copy and copy_ into its slice: the op has no derivative for complex numbers
  kSelectScatter,       // the same
  kCdist,               // norms of differences: _cdist_backward has no derivative
  kGroupedMm,           // a product for each group: the op's own kernels take few dtypes
};

/// The form for an aten op of that name and overload, if there is one.
std::optional<Rewrite> rewrite_for(const std::string& name, const std::string& overload);

/// Whether the form covers these arguments. @param constants the arguments that are known, None for the others
/// @param given  which arguments come at run time
bool can_rewrite(Rewrite rewrite, const std::vector<c10::IValue>& constants, const std::vector<bool>& given);

/// Runs the form on the op's own arguments, autograd on. @return the op's first output
at::Tensor run_rewritten(Rewrite rewrite, const std::vector<c10::IValue>& arguments);

}  // namespace hesspect
