#include "adam.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "hesspect/core/errors.h"
#include "hesspect/core/sha256.h"
#include "hesspect/core/text.h"
#include "hesspect/data/dataset.h"
#include "hesspect/model/optimizer_state.h"

namespace hesspect {
namespace {

constexpr double kUsualBeta1 = 0.9, kUsualBeta2 = 0.999, kUsualEps = 1e-8;  // PyTorch's

const std::string kWhatItHas = "exp_avg_sq";

/// "layer.weight" of "layer/weight", "layer.weight.exp_avg_sq" or "exp_avg_sq.layer.weight"; "" of another moment's.
std::string parameter_name(std::string array) {
  std::ranges::replace(array, '/', '.');
  const std::string behind = "." + kWhatItHas, before = kWhatItHas + ".";
  if (array.ends_with(behind)) return array.substr(0, array.size() - behind.size());
  if (array.starts_with(before)) return array.substr(before.size());
  return array.ends_with(".exp_avg") || array.starts_with("exp_avg.") ? "" : array;
}

/// Arrays by parameter name; `step`, where there is one, is of all.
OptimizerState read_named_moments(const std::string& path) {
  const std::unique_ptr<ArrayFile> file = ArrayFile::open(path);
  OptimizerState state;
  state.file = path;
  state.format = file->format();
  state.named = true;
  double step = 0;
  const auto read = [&](const ArrayInfo& info) {
    const std::int64_t rows = info.shape.empty() ? 1 : info.shape.front();
    return file->read_slab(info.name, 0, 0, rows).view(info.shape);
  };
  for (const ArrayInfo& info : file->arrays()) {
    if (info.name == "step") {
      const at::Tensor steps = read(info);
      if (steps.numel() != 1) throw InputError(quote(path) + ": its array 'step' is no single number");
      step = steps.to(at::kDouble).item<double>();
      continue;
    }
    SecondMoment moment;
    moment.name = parameter_name(info.name);
    moment.place = std::ssize(state.moments);
    if (moment.name.empty() || info.name.ends_with(".step") || info.name.ends_with("/step")) continue;
    moment.moment = read(info);
    state.moments.push_back(std::move(moment));
  }
  for (SecondMoment& moment : state.moments) moment.step = step >= 1 ? step : 0;
  return state;
}

/// Prefixes that wrappers put before all names.
std::string unwrapped(std::string name, const std::vector<std::string>& prefixes) {
  for (const std::string& prefix : prefixes)
    if (name.starts_with(prefix)) name = name.substr(prefix.size());
  return name;
}

/// The moment of each of the layout's parameters.
class Matching {
 public:
  Matching(const OptimizerState& state, const Problem& problem, std::vector<std::string>& warnings)
      : state_(state), layout_(problem.program->layout()), file_(quote(state.file.string())) {
    const std::vector<const SecondMoment*> found = state.named ? by_name() : by_place(problem, warnings);
    check(found);
    moments_ = found;
  }
  const SecondMoment& of(std::size_t entry) const { return *moments_[entry]; }

 private:
  std::vector<const SecondMoment*> by_name() const {
    std::map<std::string, const SecondMoment*> named;
    std::vector<std::string> names;
    for (const SecondMoment& moment : state_.moments) {
      names.push_back(unwrapped(moment.name, {"module.", "_orig_mod."}));
      named[names.back()] = &moment;
      named[moment.name] = &moment;
    }
    std::vector<const SecondMoment*> found;
    std::vector<std::string> missing;
    for (const ParameterEntry& entry : layout_.entries()) {
      auto at = named.find(entry.name);
      for (std::size_t a = 0; at == named.end() && a < entry.aliases.size(); ++a) at = named.find(entry.aliases[a]);
      if (at == named.end()) missing.push_back(entry.name);
      found.push_back(at == named.end() ? nullptr : at->second);
    }
    if (!missing.empty())
      throw InputError(file_ + " has no second moments of " + format_count(std::ssize(missing)) + " of the " +
                       format_count(std::ssize(found)) + " parameters: " + format_names(missing, 3) +
                       did_you_mean(missing.front(), names) + "; --params and --exclude leave parameters out");
    return found;
  }

  /// The optimiser's order is that of the program's parameters, where it got them all as one group.
  std::vector<const SecondMoment*> by_place(const Problem& problem, std::vector<std::string>& warnings) const {
    if (state_.moments.size() != layout_.entries().size())
      throw InputError(file_ + " is of an optimiser of " + format_count(std::ssize(state_.moments)) +
                       " parameters without names, where " +
                       (problem.selected.empty() ? "the model has " : "--params and --exclude leave ") +
                       format_count(std::ssize(layout_.entries())) +
                       ": which is which can't be told; save it by names (Adam(model.named_parameters()), or a file of "
                       "arrays named as the parameters)");
    if (state_.groups > 1)
      warnings.push_back("second moments of " + format_count(state_.groups) +
                         " parameter groups without names are taken in the order of the model's parameters: their "
                         "shapes agree, but tensors of the same shape may be exchanged");
    std::vector<const SecondMoment*> found;
    for (const SecondMoment& moment : state_.moments) found.push_back(&moment);
    return found;
  }

  void check(const std::vector<const SecondMoment*>& found) const {
    for (std::size_t i = 0; i < found.size(); ++i) {
      const ParameterEntry& entry = layout_.entries()[i];
      const SecondMoment& moment = *found[i];
      const std::string place =
          moment.name.empty() ? " (the optimiser's number " + std::to_string(moment.place) + ")" : "";
      if (entry.is_complex())
        throw InputError(file_ + ": parameter " + quote(entry.name) + " is complex, whose second moments are not read");
      if (!moment.moment.defined())
        throw InputError(file_ + " has no second moment of " + quote(entry.name) + place +
                         ": it never had a gradient; --exclude leaves it out");
      if (moment.moment.sizes() != at::IntArrayRef(entry.model_shape))
        throw InputError(file_ + ": the second moment of " + quote(entry.name) + place + " has shape " +
                         format_shape(moment.moment.sizes().vec()) + ", the parameter " +
                         format_shape(entry.model_shape) +
                         (moment.name.empty() ? ": the optimiser's order is not the model's; save it by names "
                                                "(Adam(model.named_parameters()))"
                                              : ""));
    }
  }

  const OptimizerState& state_;
  const ParameterLayout& layout_;
  const std::string file_;
  std::vector<const SecondMoment*> moments_;
};

/// What was given, else what the file says, else the usual.
double chosen(double given, double of_file, double usual) {
  return given >= 0 ? given : std::isfinite(of_file) ? of_file : usual;
}

}  // namespace

AdamPreconditioner read_adam(const SharpnessConfig& config, const Problem& problem) {
  at::NoGradGuard no_grad;
  const std::string& path = config.second_moments;
  const OptimizerState state = is_torch_archive(path) ? read_optimizer_state(path) : read_named_moments(path);
  AdamPreconditioner adam;
  const Matching matching(state, problem, adam.warnings);
  const ParameterLayout& layout = problem.program->layout();
  AdamSharpness& found = adam.found;
  found.file = path;
  found.format = state.format;
  found.sha256 = sha256_file(path);
  found.largest = state.largest;
  found.step_fewest = std::numeric_limits<double>::infinity();
  adam.inverse_root = at::empty({layout.size()}, at::kDouble);
  for (std::size_t i = 0; i < layout.entries().size(); ++i) {
    const ParameterEntry& entry = layout.entries()[i];
    const SecondMoment& moment = matching.of(i);
    const double beta1 = chosen(config.adam_beta1, moment.beta1, kUsualBeta1);
    const double beta2 = chosen(config.adam_beta2, moment.beta2, kUsualBeta2);
    const double eps = chosen(config.adam_eps, moment.eps, kUsualEps);
    const double step = moment.step > 0 ? moment.step : static_cast<double>(config.adam_step);
    if (!(beta1 >= 0 && beta1 < 1 && beta2 >= 0 && beta2 < 1 && eps >= 0 && std::isfinite(eps)))
      throw InputError(quote(path) + ": betas of " + format_number(beta1) + " and " + format_number(beta2) +
                       " and eps " + format_number(eps) + " are none of Adam's");
    if (i > 0 && beta1 != found.beta1)
      throw InputError(quote(path) + ": parameter groups have different beta1, " + format_number(found.beta1) +
                       " and " + format_number(beta1) +
                       ": there is no one largest learning rate; --adam-beta1 sets one");
    if (i == 0) found.eps_least = found.eps_most = eps;
    found.beta1 = beta1;
    found.beta2 = beta2;
    found.eps_least = std::min(found.eps_least, eps);
    found.eps_most = std::max(found.eps_most, eps);
    found.step_fewest = std::min(found.step_fewest, step);
    found.step_most = std::max(found.step_most, step);
    const at::Tensor v = rows_held(entry, moment.moment).to(at::kDouble).reshape({-1});
    if (!at::isfinite(v).all().item<bool>() || (v < 0).any().item<bool>())
      throw InputError(quote(path) + ": the second moment of " + quote(entry.name) +
                       " has an entry that is negative or not finite");
    // 1 − β₂ᵗ is what the moments of the first steps lack.
    const double corrected = step > 0 ? -std::expm1(step * std::log(beta2)) : 1;
    const at::Tensor d = (v / corrected).sqrt() + eps;
    if (entry.numel > 0 && !(d > 0).all().item<bool>())
      throw InputError(quote(path) + ": the second moment of " + quote(entry.name) +
                       " has a zero, and eps is 0: Adam's step is infinite there; give --adam-eps");
    adam.inverse_root.narrow(0, entry.offset, entry.numel).copy_(d.rsqrt());
  }
  if (found.step_fewest == 0)
    adam.warnings.push_back(quote(path) +
                            " does not say how many steps were taken: its second moments are taken as "
                            "corrected for their bias already; --adam-step gives the number");
  return adam;
}

}  // namespace hesspect
