// Losses as sums and counts, so that shards and micro-batches need not be equal: PyTorch's own values, where
// reduction='mean' is the sum over all rows divided by the count over all rows.
//
//   const LossOptions loss = fit_loss(options, output);  // once an output is known
//   const at::Tensor t = check_target(loss, output, target, first_row);
//   const at::Tensor w = check_weight(loss, output, weight, first_row);
//   sum += loss_sum(loss, output, t, w);
//   count += loss_count(loss, t, w);
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "hesspect/core/reduction.h"

namespace hesspect {

enum class LossKind {
  kCrossEntropy,  // output [N, C, …] of logits, target [N, …] of classes or [N, C, …] of probabilities
  kCausalLm,      // output [N, T, C] of logits, target [N, T] of classes, moved by `shift`
  kMaskedLm,      // the same, not moved
  kNll,           // output [N, C, …] of log-probabilities, target [N, …] of classes
  // target of the output's shape:
  kMse,
  kL1,
  kSmoothL1,
  kHuber,
  kBce,            // output of probabilities
  kBceWithLogits,  // output of logits
  kOutput          // what the program computes itself (src/curvature/output_loss.h)
};

std::string_view to_string(LossKind kind);
/// @throws UsageError naming the known losses
LossKind loss_kind_from(std::string_view name);

struct LossOptions {
  LossKind kind = LossKind::kCrossEntropy;
  Reduction reduction = Reduction::kMean;
  std::int64_t ignore_index = -100;  // target classes that do not count
  std::int64_t shift = 1;            // causal_lm: targets are the inputs moved by this many; 0: already shifted
  double label_smoothing = 0;        // cross_entropy, causal_lm, masked_lm
  double beta = 1;                   // smooth_l1: above 0
  double delta = 1;                  // huber: above 0
  at::Tensor class_weights;          // [C], for the class losses; undefined: all 1
  at::Tensor pos_weight;             // bce_with_logits: as the output's last dimensions, or 1 in their place
  /// output: the program's output that says how many terms, or what weight, its mean is over; -1: one a row.
  int count_output = -1;
};

/// True where the loss needs a target array.
bool needs_target(LossKind kind);

/// The sum of the loss over the micro-batch, with autograd on; not of loss `output`, which the program computes. Takes
/// what fit_loss, check_target and check_weight returned.
/// @param weight  one for each term of the sum; undefined: all 1
/// @return scalar
at::Tensor loss_sum(const LossOptions& options, const at::Tensor& output, const at::Tensor& target,
                    const at::Tensor& weight);

/// What the mean divides by: the sum over all terms of their weight and, where targets are classes, their class weight;
/// ignored targets do not count. Added up in double from the weights that loss_sum takes.
double loss_count(const LossOptions& options, const at::Tensor& target, const at::Tensor& weight);

/// Returns the options with their tensors checked against the output's shape and moved to its dtype and device.
/// @throws InputError: class weights that are not one for each class, a pos_weight that does not fit
LossOptions fit_loss(const LossOptions& options, const at::Tensor& output);

/// Checks and converts a micro-batch's target against the output it will meet.
/// @return target of int64 (classes) or the output's dtype, on its device
/// @throws InputError, naming row and value: shape or dtype that does not fit, a class outside [0, C), probabilities
///         that are negative or do not sum to 1, bce targets outside [0, 1]
at::Tensor check_target(const LossOptions& options, const at::Tensor& output, const at::Tensor& target,
                        std::int64_t first_row);

/// Checks and converts a micro-batch's weights: of rows [N], of terms, or of the terms' first dimensions.
/// @return a view of the terms' shape, in the output's dtype, on its device; undefined where there are none
/// @throws InputError, naming row and value: a shape that does not fit, a negative or non-finite weight
at::Tensor check_weight(const LossOptions& options, const at::Tensor& output, const at::Tensor& weight,
                        std::int64_t first_row);

/// Checks what the loss assumes of the values of an output: that bce meets probabilities, nll log-probabilities.
/// @throws InputError, naming row and value
void check_output(const LossOptions& options, const at::Tensor& output, std::int64_t first_row);

}  // namespace hesspect
