// Losses as sums and counts, so that shards and micro-batches need not be equal.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>
#include <vector>

namespace hesspect {

enum class LossKind { kCrossEntropy, kCausalLm, kMse, kBceWithLogits, kOutput };

std::string_view to_string(LossKind kind);
/// @throws UsageError naming the known losses
LossKind loss_kind_from(std::string_view name);

/// Of the loss over all its terms, as PyTorch has it. Of 'output' it also says what the program's scalar is over its
/// rows.
enum class Reduction { kMean, kSum };

struct LossOptions {
  LossKind kind = LossKind::kCrossEntropy;
  Reduction reduction = Reduction::kMean;
  std::int64_t ignore_index = -100;  // cross_entropy, causal_lm
  std::int64_t shift = 1;            // causal_lm: targets are the inputs moved by this many; 0: already shifted
  /// output: the program's output that says how many terms, or what weight, its mean is over; -1: one a row.
  int count_output = -1;
};

/// True where the loss needs a target array.
bool needs_target(LossKind kind);

/// Sum of the loss over the micro-batch (autograd on).
/// cross_entropy: output [N, C, …], target [N, …] int64. causal_lm: output [N, T, C], target [N, T].
/// mse, bce_with_logits: target of the output's shape. output: the program's scalar mean times its rows.
/// Targets were checked by check_target. @return scalar
at::Tensor loss_sum(const LossOptions& options, const at::Tensor& output, const at::Tensor& target, std::int64_t rows);

/// How many terms the mean divides by: targets not ignored, elements, or rows.
double loss_count(const LossOptions& options, const at::Tensor& target, std::int64_t rows);

/// Checks and converts a micro-batch's target against the output it will meet.
/// @return target of int64 (class losses) or the output's dtype, on its device
/// @throws InputError: shape or dtype that does not fit, a class outside [0, C) (naming row and value)
at::Tensor check_target(const LossOptions& options, const at::Tensor& output, const at::Tensor& target,
                        std::int64_t first_row);

}  // namespace hesspect
