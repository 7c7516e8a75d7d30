#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "hesspect/core/errors.h"
#include "hesspect/model/executor.h"
#include "hesspect/model/node_record.h"
#include "node_steps.h"
#include "op_alone.h"
#include "program_impl.h"

namespace hesspect {
namespace {

using Step = NodeSteps::Step;

bool is_finite(const at::Tensor& tensor) { return !has_nan(tensor) && !has_infinity(tensor); }

bool all_finite(const std::vector<at::Tensor>& tensors) {
  return std::all_of(tensors.begin(), tensors.end(), [](const at::Tensor& tensor) { return is_finite(tensor); });
}

struct Reason {
  std::vector<std::string_view> ops;
  const char* of_values;
  const char* of_derivatives;
};

/// Why numbers stop being finite at an op, where that is well known; nullptr elsewhere. @param values  not derivatives
const char* reason_of(const std::string& target, bool values) {
  static const std::vector<Reason> reasons = {
      {{"norm", "linalg_norm", "linalg_vector_norm", "linalg_matrix_norm", "frobenius_norm", "norm_except_dim", "dist",
        "cdist", "_cdist_forward", "pairwise_distance", "pdist", "cosine_similarity"},
       nullptr,
       "a norm has no derivatives at 0; add an epsilon, as in (x.square().sum() + eps).sqrt()"},
      {{"sqrt"},
       "the root of a negative number",
       "a root has no finite derivatives at 0; add an epsilon under it, also where torch.where discards the result"},
      {{"rsqrt"}, "a division by the root of 0; add an epsilon", "a division by the root of 0; add an epsilon"},
      {{"pow", "float_power"},
       "a negative number to a fractional power or 0 to a negative one; clamp the base",
       "a power has no finite derivatives at 0; clamp the base, also where torch.where discards the result"},
      {{"std", "std_mean"}, nullptr, "a standard deviation has no derivatives at 0; add an epsilon to the variance"},
      {{"log", "log2", "log10", "log1p", "xlogy", "special_xlogy"},
       "the logarithm of 0 or of a negative number; clamp the argument",
       "a logarithm has no finite derivatives at 0; clamp the argument, also where torch.where discards the result"},
      {{"atan2", "arctan2", "hypot", "angle", "abs", "sgn"}, nullptr, "it has no derivatives at 0; add an epsilon"},
      {{"div", "true_divide", "reciprocal", "remainder", "fmod"},
       "a division by 0; add an epsilon",
       "a division by 0; add an epsilon, also where torch.where discards the result"},
      {{"acos", "asin", "arccos", "arcsin", "acosh", "atanh"},
       "an argument outside the domain; clamp it",
       "it has no finite derivatives at the ends of its domain; clamp the argument"},
      {{"softmax", "_softmax", "scaled_dot_product_attention"},
       "a row that is masked everywhere, or arguments too large",
       nullptr},
      {{"exp", "expm1", "sinh", "cosh"}, "the argument is too large", "the argument is too large"}};
  const std::size_t end = target.rfind('.');
  const std::size_t begin = end == std::string::npos ? end : target.rfind('.', end - 1);
  if (begin == std::string::npos) return nullptr;
  std::string op = target.substr(begin + 1, end - begin - 1);
  if (op.ends_with('_')) op.pop_back();
  for (const Reason& known : reasons)
    if (std::find(known.ops.begin(), known.ops.end(), op) != known.ops.end())
      return values ? known.of_values : known.of_derivatives;
  return nullptr;
}

std::string blame(const Step& step, const std::string& what, bool values, const std::string& more = "") {
  const char* why = reason_of(step.instruction->origin.target, values);
  return step.instruction->origin.describe() + " " + what + more + (why != nullptr ? std::string(": ") + why : "");
}

// --- values ---------------------------------------------------------------------------------------------------------

/// From a step that gave NaN, or else infinity, back to the one that began it.
int beginning(const std::vector<Step>& steps, int at, bool nan) {
  while (true) {
    const std::vector<NodeSteps::Source>& sources = steps[static_cast<std::size_t>(at)].sources;
    const auto found = std::find_if(sources.begin(), sources.end(), [&](const NodeSteps::Source& source) {
      return source.step >= 0 && source.step != at && (nan ? source.nan : source.infinite);
    });
    if (found == sources.end()) return at;
    at = found->step;
  }
}

std::string blame_for_values(const NodeSteps& record) {
  for (const bool nan : {true, false})
    for (const at::Tensor& output : record.outputs) {
      if (!(nan ? has_nan(output) : has_infinity(output))) continue;
      const int last = record.maker_of(output);
      if (last < 0) continue;
      const int first = beginning(record.steps, last, nan);
      const Step& step = record.steps[static_cast<std::size_t>(first)];
      const int infinite = beginning(record.steps, first, /*nan=*/false);
      // Attention masks hold infinities that do no harm; a division by 0 gives one that does.
      const std::string more = nan && infinite != first
                                   ? ", from infinities of " +
                                         record.steps[static_cast<std::size_t>(infinite)].instruction->origin.describe()
                                   : "";
      return blame(step, nan ? "gives NaN" : "gives infinity", true, more);
    }
  return "the loss itself is not finite, of outputs that are";
}

// --- derivatives ----------------------------------------------------------------------------------------------------

/// Whether a function's gradient for these adjoints, or the derivative of that, is not finite.
bool breaks(const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& inputs,
            std::vector<at::Tensor> adjoints, bool second) {
  for (at::Tensor& adjoint : adjoints) adjoint = adjoint.detach().requires_grad_(second);
  return !all_finite(second ? pulled_back_twice(outputs, inputs, adjoints)
                            : pulled_back(outputs, inputs, adjoints, false));
}

class Derivatives {
 public:
  Derivatives(const NodeSteps& record, const at::Tensor& loss) : record_(record), loss_(loss) {
    std::vector<at::Tensor> wanted;
    for (const Step& step : record.steps)
      for (const at::Tensor& tensor : differentiable(step.results)) wanted.push_back(tensor);
    const std::vector<at::Tensor> adjoints = pulled_back({loss}, wanted, {}, false);
    for (std::size_t i = 0; i < adjoints.size(); ++i)
      if (adjoints[i].defined()) adjoints_[wanted[i].unsafeGetTensorImpl()] = adjoints[i];
  }

  /// Backwards from the loss: the first op that makes infinite adjoints of finite ones.
  std::string blame_for_gradient() const {
    if (loss_breaks(/*second=*/false)) return "the gradient of the loss itself is not finite";
    for (auto step = record_.steps.rbegin(); step != record_.steps.rend(); ++step)
      if (step_breaks(*step, /*second=*/false)) return blame(*step, "has a gradient that is not finite", false);
    return "";
  }

  std::string blame_for_second() const {
    for (const Step& step : record_.steps)
      if (step_breaks(step, /*second=*/true)) return blame(step, "has a second derivative that is not finite", false);
    return loss_breaks(/*second=*/true) ? "the second derivative of the loss itself is not finite" : "";
  }

 private:
  bool step_breaks(const Step& step, bool second) const {
    if (!step.differentiated) return false;
    std::vector<std::size_t> known;
    for (std::size_t i = 0; i < step.results.size(); ++i)
      if (step.results[i].defined() && adjoints_.contains(step.results[i].unsafeGetTensorImpl())) known.push_back(i);
    if (known.empty()) return false;
    const OpAlone replay(*step.instruction, step.arguments, "");
    std::vector<at::Tensor> outputs, adjoints;
    for (const std::size_t i : known) {
      if (i >= replay.results().size() || !replay.results()[i].requires_grad()) continue;
      outputs.push_back(replay.results()[i]);
      adjoints.push_back(adjoints_.at(step.results[i].unsafeGetTensorImpl()));
    }
    return all_finite(adjoints) && breaks(outputs, replay.leaves(), adjoints, second);
  }

  /// From the program's outputs on.
  bool loss_breaks(bool second) const {
    return breaks({loss_}, differentiable(record_.outputs), {at::ones_like(loss_)}, second);
  }

  const NodeSteps& record_;
  at::Tensor loss_;
  std::unordered_map<const void*, at::Tensor> adjoints_;
};

}  // namespace

NodeRecord::NodeRecord(Program& program) : program_(program), steps_(std::make_unique<NodeSteps>()) {
  program_.impl_->record = steps_.get();
}

NodeRecord::~NodeRecord() { program_.impl_->record = nullptr; }

std::string NodeRecord::first_non_finite(const at::Tensor& loss) const {
  DefaultDtypeScope default_dtype(program_.impl_->map_dtype(at::kFloat));
  at::AutoGradMode grad(true);
  if (!is_finite(loss)) return blame_for_values(*steps_);
  const Derivatives derivatives(*steps_, loss);
  const std::string gradient = derivatives.blame_for_gradient();
  return gradient.empty() ? derivatives.blame_for_second() : gradient;
}

}  // namespace hesspect
