#include "read_loss.h"

#include <ATen/ATen.h>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"

namespace hesspect {
namespace {

at::Tensor whole_array(const std::string& name, const ArrayFile& file) {
  const ArrayInfo& info = file.info(name);
  if (info.shape.empty()) throw InputError("array " + quote(info.name) + " is a scalar: give the number itself");
  const at::Tensor weights = file.read_rows(info.name, 0, info.shape.front()).to(at::kDouble);
  if (((weights >= 0) & weights.isfinite()).all().item<bool>()) return weights;
  throw InputError("array " + quote(info.name) +
                   " holds a weight that is negative or not finite; expected weights that are neither");
}

/// In double, on the CPU; undefined where nothing is asked for.
at::Tensor weights_of(const NumbersOrArray& asked, const std::string& option, const ArrayFile& file) {
  if (asked.array.empty()) return asked.given() ? at::tensor(asked.numbers, at::kDouble) : at::Tensor();
  try {
    return whole_array(asked.array, file);
  } catch (const InputError& error) {
    throw InputError("--" + option + ": " + error.what());
  }
}

}  // namespace

LossOptions read_loss(const LossConfig& config, const ArrayFile& file) {
  LossOptions loss;
  loss.kind = loss_kind_from(config.loss);
  loss.reduction = config.reduction;
  loss.ignore_index = config.ignore_index;
  loss.shift = config.shift;
  loss.label_smoothing = config.label_smoothing;
  loss.beta = config.beta;
  loss.delta = config.delta;
  loss.class_weights = weights_of(config.class_weights, "class-weights", file);
  loss.pos_weight = weights_of(config.pos_weight, "pos-weight", file);
  return loss;
}

}  // namespace hesspect
