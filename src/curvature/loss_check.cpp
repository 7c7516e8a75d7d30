// Checks what a loss needs of options, targets, weights and outputs. Every fault is one line, with the row and the
// value.
#include <ATen/ATen.h>

#include <optional>
#include <string>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/curvature/loss.h"
#include "loss_shapes.h"

namespace hesspect {
namespace {

constexpr double kSumTolerance = 1e-3;   // how far probabilities' sum may be from 1: float16 rounds by less
constexpr double kLogTolerance = 1e-3;   // how far above 0 a log-probability may be, as log(p + epsilon) is
constexpr double kRoundBfloat16 = 8e-3;  // bfloat16's epsilon

std::string shape_of(const at::Tensor& tensor) { return format_shape(tensor.sizes().vec()); }

InputError fault(const LossOptions& options, const std::string& what) {
  return InputError(std::string(to_string(options.kind)) + ": " + what);
}

std::string shapes(const at::Tensor& output, const at::Tensor& target) {
  return "targets have shape " + shape_of(target) + " and the model's output " + shape_of(output);
}

at::TensorOptions like(const at::Tensor& output) {
  return at::TensorOptions().dtype(output.scalar_type()).device(output.device());
}

/// The first of `values` [rows, …] that is bad, and its row.
struct BadValue {
  std::int64_t row;
  double value;
};

std::optional<BadValue> first_bad(const at::Tensor& bad, const at::Tensor& values, std::int64_t first_row) {
  if (!bad.any().item<bool>()) return std::nullopt;
  return BadValue{first_row + bad.nonzero()[0][0].item<std::int64_t>(),
                  values.masked_select(bad)[0].to(at::kDouble).item<double>()};
}

/// A one-output regression or logit head often carries a trailing dimension of 1 that the targets lack.
bool differs_by_trailing_one(at::IntArrayRef output, at::IntArrayRef target) {
  return output.size() == target.size() + 1 && output.back() == 1 && output.slice(0, target.size()) == target;
}

// --- targets --------------------------------------------------------------------------------------------------------

void check_outputs_of_classes(const LossOptions& options, const at::Tensor& output) {
  const bool last = has_classes_last(options.kind);
  const bool fits = last ? output.dim() == 3 : output.dim() >= 2;
  if (!fits || output.size(class_dimension(options.kind, output)) == 0)
    throw fault(options, "the model's output has shape " + shape_of(output) + "; expected " +
                             (last ? "[N, T, C] with the classes last" : "[N, C, …] with the classes in dimension 1"));
}

void check_class_shapes(const LossOptions& options, const at::Tensor& output, const at::Tensor& target) {
  if (target.sizes() != at::IntArrayRef(term_shape(options.kind, output)))
    throw fault(options,
                shapes(output, target) +
                    (has_classes_last(options.kind)
                         ? "; expected targets [N, T] and output [N, T, C]"
                         : "; expected output [N, C, …] with the classes in dimension 1 and targets [N, …] of class "
                           "indices") +
                    (options.kind == LossKind::kCrossEntropy && target.sizes() == output.sizes()
                         ? ", or floating targets [N, C, …] of probabilities"
                         : ""));
  if (options.kind == LossKind::kCausalLm && options.shift >= target.size(1))
    throw fault(options, "sequences of length " + std::to_string(target.size(1)) + " leave nothing after a shift of " +
                             std::to_string(options.shift));
}

at::Tensor check_classes(const LossOptions& options, const at::Tensor& output, const at::Tensor& target,
                         std::int64_t first_row) {
  at::Tensor classes = target.to(at::TensorOptions().dtype(at::kLong).device(output.device()));
  // Column vectors of indices are common in files.
  if (!has_classes_last(options.kind) && output.dim() == 2 && classes.dim() == 2 && classes.size(1) == 1)
    classes = classes.squeeze(1);
  check_class_shapes(options, output, classes);
  const std::int64_t count = output.size(class_dimension(options.kind, output));
  const at::Tensor outside = ((classes < 0) | (classes >= count)) & (classes != options.ignore_index);
  if (!outside.any().item<bool>()) return classes;
  throw InputError("target in row " + std::to_string(first_row + outside.nonzero()[0][0].item<std::int64_t>()) +
                   " is " + std::to_string(classes.masked_select(outside)[0].item<std::int64_t>()) +
                   ", but the model has " + std::to_string(count) + " classes: expected 0 to " +
                   std::to_string(count - 1) + ", or the ignored index " + std::to_string(options.ignore_index));
}

/// Floating targets: PyTorch takes them as probabilities whatever they sum to.
at::Tensor check_probabilities(const LossOptions& options, const at::Tensor& output, const at::Tensor& target,
                               std::int64_t first_row) {
  const std::string type(c10::toString(target.scalar_type()));
  if (options.kind != LossKind::kCrossEntropy)
    throw fault(options, "targets are " + type + "; expected integer class indices" +
                             (has_classes_last(options.kind)
                                  ? " (cross_entropy takes probabilities, with the classes in dimension 1)"
                                  : " (cross_entropy takes probabilities, and logits)"));
  if (target.sizes() != output.sizes())
    throw fault(options, shapes(output, target) + ", and targets are " + type +
                             "; expected integer class indices [N, …], or probabilities of the output's shape");
  if (options.ignore_index >= 0)
    throw fault(options,
                "--ignore-index " + std::to_string(options.ignore_index) +
                    " is for targets that are class indices; these are probabilities (--loss-weight leaves rows out)");
  const std::string expected = "; expected probabilities: not negative, and 1 in sum over the classes";
  if (const auto bad = first_bad((target >= 0).logical_not(), target, first_row))
    throw fault(options, "a target in row " + std::to_string(bad->row) + " is " + format_number(bad->value) + expected);
  const at::Tensor sums = target.sum(1, false, at::kDouble);
  const double tolerance = target.scalar_type() == at::kBFloat16 ? kRoundBfloat16 : kSumTolerance;
  if (const auto bad = first_bad(((sums - 1).abs() <= tolerance).logical_not(), sums, first_row))
    throw fault(options, "targets in row " + std::to_string(bad->row) + " sum to " + format_number(bad->value) +
                             " over the classes" + expected + " (--loss-weight weighs rows)");
  return target.to(like(output));
}

at::Tensor check_elements(const LossOptions& options, const at::Tensor& output, const at::Tensor& target,
                          std::int64_t first_row) {
  if (output.dim() == 0) throw fault(options, "the model's output is a scalar; expected one with rows");
  at::Tensor values = target.to(like(output));
  if (values.sizes() != output.sizes()) {
    if (!differs_by_trailing_one(output.sizes(), values.sizes()) &&
        !differs_by_trailing_one(values.sizes(), output.sizes()))
      throw fault(options, shapes(output, target) + "; expected the same shape");
    values = values.reshape(output.sizes());
  }
  if (options.kind == LossKind::kBceWithLogits || options.kind == LossKind::kBce)
    if (const auto bad = first_bad(((values >= 0) & (values <= 1)).logical_not(), values, first_row))
      throw fault(options, "targets lie outside [0, 1]: one in row " + std::to_string(bad->row) + " is " +
                               format_number(bad->value));
  return values;
}

// --- options --------------------------------------------------------------------------------------------------------

void check_class_weights(const LossOptions& options, const at::Tensor& output) {
  check_outputs_of_classes(options, output);
  const std::int64_t classes = output.size(class_dimension(options.kind, output));
  const at::Tensor& weights = options.class_weights;
  if (weights.dim() != 1 || weights.size(0) != classes)
    throw InputError("--class-weights has shape " + shape_of(weights) + ", but the model has " +
                     std::to_string(classes) + " classes: expected a weight for each, [" + std::to_string(classes) +
                     "]");
}

/// Takes what PyTorch broadcasts, but not along the rows: which row has which weight would then be chance.
void check_pos_weight(const at::Tensor& output, const at::Tensor& pos_weight) {
  const std::int64_t more = output.dim() - pos_weight.dim();
  bool fits = more >= 0;
  for (std::int64_t d = 0; fits && d < pos_weight.dim(); ++d)
    fits = pos_weight.size(d) == 1 || (pos_weight.size(d) == output.size(more + d) && more + d > 0);
  if (!fits)
    throw InputError("--pos-weight has shape " + shape_of(pos_weight) + " and the model's output " + shape_of(output) +
                     "; expected the shape of its last dimensions, or 1 in place of any, without the rows "
                     "(--loss-weight weighs rows)");
}

}  // namespace

LossOptions fit_loss(const LossOptions& options, const at::Tensor& output) {
  LossOptions fitted = options;
  if (options.class_weights.defined()) {
    check_class_weights(options, output);
    fitted.class_weights = options.class_weights.to(like(output));
  }
  if (options.pos_weight.defined()) {
    check_pos_weight(output, options.pos_weight);
    fitted.pos_weight = options.pos_weight.to(like(output));
  }
  return fitted;
}

at::Tensor check_target(const LossOptions& options, const at::Tensor& output, const at::Tensor& target,
                        std::int64_t first_row) {
  if (!target.defined()) throw fault(options, "needs a target array");
  if (target.is_complex()) throw fault(options, "targets are complex numbers, which no loss takes; give two reals");
  if (!takes_classes(options.kind)) return check_elements(options, output, target, first_row);
  check_outputs_of_classes(options, output);
  if (at::isFloatingType(target.scalar_type())) return check_probabilities(options, output, target, first_row);
  if (target.scalar_type() == at::kBool) throw fault(options, "targets are Bool; expected integer class indices");
  return check_classes(options, output, target, first_row);
}

at::Tensor check_weight(const LossOptions& options, const at::Tensor& output, const at::Tensor& weight,
                        std::int64_t first_row) {
  if (!weight.defined()) return {};
  at::Tensor weights = weight.to(like(output));
  if (const auto bad = first_bad(((weights >= 0) & weights.isfinite()).logical_not(), weights, first_row))
    throw InputError("a weight of the loss in row " + std::to_string(bad->row) + " is " + format_number(bad->value) +
                     "; expected finite weights that are not negative");
  const std::vector<std::int64_t> terms = term_shape(options.kind, output);
  const auto dimensions = static_cast<std::int64_t>(terms.size());
  while (weights.dim() > dimensions && weights.size(-1) == 1) weights = weights.squeeze(-1);
  bool fits = weights.dim() <= dimensions;
  for (std::int64_t d = 0; fits && d < weights.dim(); ++d)
    fits = weights.size(d) == terms[static_cast<std::size_t>(d)] || (d > 0 && weights.size(d) == 1);
  if (!fits)
    throw fault(options, "weights have shape " + shape_of(weight) + " and the loss has terms " + format_shape(terms) +
                             "; expected a weight for each row, [N], or for each term");
  while (weights.dim() < dimensions) weights = weights.unsqueeze(-1);
  return weights.expand(terms);
}

void check_output(const LossOptions& options, const at::Tensor& output, std::int64_t first_row) {
  const auto what = [](const BadValue& bad) {
    return "the model's output in row " + std::to_string(bad.row) + " is " + format_number(bad.value);
  };
  if (options.kind == LossKind::kBce)
    if (const auto bad = first_bad(((output >= 0) & (output <= 1)).logical_not(), output, first_row))
      throw fault(options, what(*bad) + "; expected probabilities in [0, 1] (for logits, --loss bce_with_logits)");
  if (options.kind == LossKind::kNll)
    if (const auto bad = first_bad(output > kLogTolerance, output, first_row))
      throw fault(options, what(*bad) +
                               "; expected log-probabilities, none above 0, as log_softmax gives (for logits, --loss "
                               "cross_entropy)");
}

}  // namespace hesspect
