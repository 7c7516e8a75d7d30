#include "hesspect/curvature/loss.h"

#include <ATen/ATen.h>

#include <string>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"

namespace hesspect {
namespace {

constexpr std::pair<LossKind, std::string_view> kLosses[] = {{LossKind::kCrossEntropy, "cross_entropy"},
                                                             {LossKind::kCausalLm, "causal_lm"},
                                                             {LossKind::kMse, "mse"},
                                                             {LossKind::kBceWithLogits, "bce_with_logits"},
                                                             {LossKind::kOutput, "output"}};

bool takes_classes(LossKind kind) { return kind == LossKind::kCrossEntropy || kind == LossKind::kCausalLm; }

/// Targets [N, T] that meet outputs [N, T]: moved by `shift`, both cut to the positions that have a successor.
at::Tensor shifted_target(const LossOptions& options, const at::Tensor& target) {
  return target.narrow(1, options.shift, target.size(1) - options.shift);
}

/// A one-output regression or logit head often carries a trailing dimension of 1 that the targets lack.
bool differs_by_trailing_one(at::IntArrayRef output, at::IntArrayRef target) {
  return output.size() == target.size() + 1 && output.back() == 1 && output.slice(0, target.size()) == target;
}

std::string shapes(const at::Tensor& output, const at::Tensor& target) {
  return "targets have shape " + format_shape(target.sizes().vec()) + " and the model's output " +
         format_shape(output.sizes().vec());
}

void check_class_shapes(const LossOptions& options, const at::Tensor& output, const at::Tensor& target) {
  if (options.kind == LossKind::kCausalLm) {
    if (output.dim() != 3 || target.dim() != 2 || output.size(0) != target.size(0) || output.size(1) != target.size(1))
      throw InputError("causal_lm: " + shapes(output, target) + "; expected targets [N, T] and output [N, T, C]");
    if (options.shift >= target.size(1))
      throw InputError("causal_lm: sequences of length " + std::to_string(target.size(1)) +
                       " leave nothing after a shift of " + std::to_string(options.shift));
    return;
  }
  bool fits = output.dim() == target.dim() + 1 && output.dim() >= 2 && output.size(0) == target.size(0);
  for (std::int64_t d = 1; fits && d < target.dim(); ++d) fits = output.size(d + 1) == target.size(d);
  if (!fits)
    throw InputError("cross_entropy: " + shapes(output, target) +
                     "; expected output [N, C, …] with the classes in dimension 1 and targets [N, …] of class indices");
}

void check_classes(const LossOptions& options, const at::Tensor& target, std::int64_t classes, std::int64_t first_row) {
  const at::Tensor bad = ((target < 0) | (target >= classes)) & (target != options.ignore_index);
  if (!bad.any().item<bool>()) return;
  const at::Tensor at = bad.nonzero()[0];
  at::Tensor value = target;
  for (std::int64_t d = 0; d < at.size(0); ++d) value = value[at[d].item<std::int64_t>()];
  throw InputError("target in row " + std::to_string(first_row + at[0].item<std::int64_t>()) + " is " +
                   std::to_string(value.item<std::int64_t>()) + ", but the model has " + std::to_string(classes) +
                   " classes: expected 0 to " + std::to_string(classes - 1) + ", or the ignored index " +
                   std::to_string(options.ignore_index));
}

}  // namespace

std::string_view to_string(LossKind kind) {
  for (const auto& [value, name] : kLosses)
    if (value == kind) return name;
  return "?";
}

LossKind loss_kind_from(std::string_view name) {
  std::vector<std::string> names;
  for (const auto& [value, known] : kLosses) {
    if (known == name) return value;
    names.emplace_back(known);
  }
  throw UsageError("unknown loss '" + std::string(name) + "'" + did_you_mean(name, names) +
                   "; known: " + format_names(names));
}

bool needs_target(LossKind kind) { return kind != LossKind::kOutput; }

at::Tensor loss_sum(const LossOptions& options, const at::Tensor& output, const at::Tensor& target, std::int64_t rows) {
  constexpr auto kSum = at::Reduction::Sum;
  switch (options.kind) {
    case LossKind::kCrossEntropy: return at::cross_entropy_loss(output, target, {}, kSum, options.ignore_index);
    case LossKind::kCausalLm: {
      const at::Tensor labels = shifted_target(options, target);
      const at::Tensor logits = output.narrow(1, 0, labels.size(1));
      return at::cross_entropy_loss(logits.reshape({-1, logits.size(2)}), labels.reshape({-1}), {}, kSum,
                                    options.ignore_index);
    }
    case LossKind::kMse: return at::mse_loss(output, target, kSum);
    case LossKind::kBceWithLogits: return at::binary_cross_entropy_with_logits(output, target, {}, {}, kSum);
    case LossKind::kOutput: return output.reshape({}) * static_cast<double>(rows);
  }
  throw UsageError("unknown loss");
}

double loss_count(const LossOptions& options, const at::Tensor& target, std::int64_t rows) {
  switch (options.kind) {
    case LossKind::kCrossEntropy:
      return static_cast<double>((target != options.ignore_index).sum().item<std::int64_t>());
    case LossKind::kCausalLm:
      return static_cast<double>((shifted_target(options, target) != options.ignore_index).sum().item<std::int64_t>());
    case LossKind::kMse:
    case LossKind::kBceWithLogits: return static_cast<double>(target.numel());
    case LossKind::kOutput: return static_cast<double>(rows);
  }
  return 0;
}

at::Tensor check_target(const LossOptions& options, const at::Tensor& output, const at::Tensor& target,
                        std::int64_t first_row) {
  const std::string name(to_string(options.kind));
  if (options.kind == LossKind::kOutput) {
    if (output.numel() != 1)
      throw InputError("loss 'output': the model's output has shape " + format_shape(output.sizes().vec()) +
                       "; expected a scalar, the mean loss of its rows");
    return {};
  }
  if (!target.defined()) throw InputError(name + ": needs a target array");
  if (target.is_complex())
    throw InputError(name + ": targets are complex numbers, which no loss takes; give two reals");
  const bool floating = at::isFloatingType(target.scalar_type());
  if (takes_classes(options.kind)) {
    if (floating || target.scalar_type() == at::kBool)
      throw InputError(name + ": targets are " + std::string(c10::toString(target.scalar_type())) +
                       "; expected integer class indices");
    at::Tensor classes = target.to(at::TensorOptions().dtype(at::kLong).device(output.device()));
    // Column vectors of indices are common in files.
    if (options.kind == LossKind::kCrossEntropy && output.dim() == 2 && classes.dim() == 2 && classes.size(1) == 1)
      classes = classes.squeeze(1);
    check_class_shapes(options, output, classes);
    check_classes(options, classes, output.size(options.kind == LossKind::kCausalLm ? 2 : 1), first_row);
    return classes;
  }
  at::Tensor values = target.to(at::TensorOptions().dtype(output.scalar_type()).device(output.device()));
  if (values.sizes() != output.sizes()) {
    if (!differs_by_trailing_one(output.sizes(), values.sizes()) &&
        !differs_by_trailing_one(values.sizes(), output.sizes()))
      throw InputError(name + ": " + shapes(output, target) + "; expected the same shape");
    values = values.reshape(output.sizes());
  }
  if (options.kind == LossKind::kBceWithLogits && ((values < 0) | (values > 1)).any().item<bool>())
    throw InputError("bce_with_logits: targets lie outside [0, 1]");
  return values;
}

}  // namespace hesspect
