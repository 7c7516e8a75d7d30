#include "hesspect/curvature/loss.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "loss_rows.h"
#include "loss_shapes.h"

namespace hesspect {
namespace {

// In the order of LossKind.
constexpr std::array<std::string_view, 11> kNames{
    "cross_entropy", "causal_lm", "masked_lm",       "nll",   "mse", "l1", "smooth_l1",
    "huber",         "bce",       "bce_with_logits", "output"};

constexpr auto kSum = at::Reduction::Sum;
constexpr auto kNone = at::Reduction::None;

std::optional<at::Tensor> optional(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
}

/// The targets, or their weights, [N, T] that an output predicts.
at::Tensor shifted(const LossOptions& options, const at::Tensor& target) {
  if (options.kind != LossKind::kCausalLm || !target.defined()) return target;
  return target.narrow(1, options.shift, target.size(1) - options.shift);
}

/// Language models' outputs [N, T, C] as logits of single positions [N T', C].
at::Tensor positions(const LossOptions& options, const at::Tensor& output, const at::Tensor& target) {
  return output.narrow(1, 0, shifted(options, target).size(1)).reshape({-1, output.size(2)});
}

/// Binary cross entropy, as PyTorch has it: logarithms are at least -100. Its own op is not used: at probabilities
/// below 1e-9 its second derivative is not that of its value (it divides by (p + 1e-12)²).
at::Tensor bce_terms(const at::Tensor& p, const at::Tensor& target) {
  // The inner `where` keeps what the outer one leaves out finite, so that no derivative of it is 0 · inf.
  const at::Tensor above = p > std::exp(-100.0), below = p < 1;
  const at::Tensor log_p = at::where(above, at::where(above, p, 1).log(), -100);
  const at::Tensor log_not_p = at::where(below, at::where(below, p, 0).neg().log1p(), -100);
  return -(target * log_p + (1 - target) * log_not_p);
}

at::Tensor reduced(const at::Tensor& terms, at::Reduction::Reduction reduction) {
  return reduction == kSum ? terms.sum() : terms;
}

at::Tensor loss_terms(const LossOptions& o, const at::Tensor& output, const at::Tensor& target,
                      at::Reduction::Reduction reduction) {
  switch (o.kind) {
    case LossKind::kCrossEntropy:
      return at::cross_entropy_loss(output, target, optional(o.class_weights), reduction, o.ignore_index,
                                    o.label_smoothing);
    case LossKind::kCausalLm:
    case LossKind::kMaskedLm:
      return at::cross_entropy_loss(positions(o, output, target), shifted(o, target).reshape({-1}),
                                    optional(o.class_weights), reduction, o.ignore_index, o.label_smoothing);
    case LossKind::kNll: return at::nll_loss_nd(output, target, optional(o.class_weights), reduction, o.ignore_index);
    case LossKind::kMse: return at::mse_loss(output, target, reduction);
    case LossKind::kL1: return at::l1_loss(output, target, reduction);
    case LossKind::kSmoothL1: return at::smooth_l1_loss(output, target, reduction, o.beta);
    case LossKind::kHuber: return at::huber_loss(output, target, reduction, o.delta);
    case LossKind::kBce: return reduced(bce_terms(output, target), reduction);
    case LossKind::kBceWithLogits:
      return at::binary_cross_entropy_with_logits(output, target, {}, optional(o.pos_weight), reduction);
    case LossKind::kOutput: break;
  }
  throw UsageError("unknown loss");
}

/// What each target class counts as, with its weight; ignored ones are 0.
at::Tensor class_counts(const LossOptions& options, const at::Tensor& target, const at::Tensor& weight) {
  const at::Tensor classes = shifted(options, target);
  const at::Tensor counts = classes != options.ignore_index;
  at::Tensor weights = counts.to(at::kDouble);
  if (options.class_weights.defined())
    weights.mul_(options.class_weights.to(at::kDouble).take(classes.masked_fill(counts.logical_not(), 0)));
  if (weight.defined()) weights.mul_(shifted(options, weight));
  return weights;
}

double count_classes(const LossOptions& options, const at::Tensor& target, const at::Tensor& weight) {
  if (!options.class_weights.defined() && !weight.defined())
    return static_cast<double>((shifted(options, target) != options.ignore_index).sum().item<std::int64_t>());
  return class_counts(options, target, weight).sum().item<double>();
}

at::Tensor summed_by_row(const at::Tensor& terms, std::int64_t rows) {
  return terms.reshape({rows, -1}).sum(1, /*keepdim=*/false, at::kDouble);
}

}  // namespace

std::string_view to_string(LossKind kind) { return kNames.at(static_cast<std::size_t>(kind)); }

LossKind loss_kind_from(std::string_view name) {
  const auto found = std::ranges::find(kNames, name);
  if (found != kNames.end()) return static_cast<LossKind>(found - kNames.begin());
  const std::vector<std::string> names(kNames.begin(), kNames.end());
  throw UsageError("unknown loss '" + std::string(name) + "'" + did_you_mean(name, names) +
                   "; known: " + format_names(names, names.size()));
}

bool needs_target(LossKind kind) { return kind != LossKind::kOutput; }

at::Tensor loss_sum(const LossOptions& options, const at::Tensor& output, const at::Tensor& target,
                    const at::Tensor& weight) {
  if (!weight.defined()) return loss_terms(options, output, target, kSum);
  const at::Tensor terms = loss_terms(options, output, target, kNone);
  return (terms * shifted(options, weight).reshape(terms.sizes())).sum();
}

double loss_count(const LossOptions& options, const at::Tensor& target, const at::Tensor& weight) {
  if (takes_classes(options.kind) && !at::isFloatingType(target.scalar_type()))
    return count_classes(options, target, weight);
  if (weight.defined()) return weight.sum(at::kDouble).item<double>();
  const std::int64_t classes = takes_classes(options.kind) ? target.size(1) : 1;
  return static_cast<double>(target.numel() / classes);
}

at::Tensor loss_by_row(const LossOptions& options, const at::Tensor& output, const at::Tensor& target,
                       const at::Tensor& weight) {
  at::Tensor terms = loss_terms(options, output, target, kNone);
  if (weight.defined()) terms = terms * shifted(options, weight).reshape(terms.sizes());
  return summed_by_row(terms, output.size(0));
}

at::Tensor count_by_row(const LossOptions& options, const at::Tensor& target, const at::Tensor& weight) {
  const std::int64_t rows = target.size(0);
  if (takes_classes(options.kind) && !at::isFloatingType(target.scalar_type()))
    return summed_by_row(class_counts(options, target, weight), rows);
  if (weight.defined()) return summed_by_row(weight, rows);
  const std::int64_t classes = takes_classes(options.kind) ? target.size(1) : 1;
  return at::full({rows}, static_cast<double>(target.numel() / classes / rows), at::kDouble);
}

at::Tensor moved_targets(const LossOptions& options, const at::Tensor& target) { return shifted(options, target); }

}  // namespace hesspect
