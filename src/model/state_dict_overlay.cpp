#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "hesspect/core/element_type.h"
#include "hesspect/core/element_type_torch.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/model/state_dict.h"
#include "state_dict_names.h"

namespace hesspect {
namespace {

std::vector<std::string> names_of(const OverlayTarget& target) {
  std::vector<std::string> names{target.name};
  names.insert(names.end(), target.aliases.begin(), target.aliases.end());
  return names;
}

/// One target and what the last state dict that has it holds under its names.
struct Match {
  const OverlayTarget* target;
  const StateDict* state_dict = nullptr;
  std::vector<const StateDictTensor*> found;  // under its name and aliases
};

std::string file_of(const StateDict& state_dict) {
  return state_dict.files.empty() ? "the state dict" : quote(state_dict.files.front().string());
}

std::string dtype_name(at::ScalarType type) {
  const auto element = from_scalar_type(type);
  return element ? to_string(*element) : c10::toString(type);
}

bool same_kind(at::ScalarType from, at::ScalarType to) {
  const auto kind = [](at::ScalarType type) {
    if (at::isFloatingType(type)) return 'f';
    if (at::isComplexType(type)) return 'c';
    return type == at::kBool ? 'b' : at::isIntegralType(type, false) ? 'i' : 'x';
  };
  return kind(from) == kind(to);
}

std::string part(const std::vector<std::string>& names, const std::string& what) {
  return names.empty() ? "" : "; " + std::to_string(names.size()) + " " + what + " (" + format_names(names) + ")";
}

/// Pairs targets with tensors. All names that do not fit are listed together.
class Matching {
 public:
  Matching(std::span<const StateDict> state_dicts, const std::vector<OverlayTarget>& targets, bool partial,
           OverlayReport& report)
      : state_dicts_(state_dicts) {
    const ProgramNames names(targets);
    for (const StateDict& state_dict : state_dicts) {
      sources_.emplace_back(state_dict, names);
      report.changes.push_back(sources_.back().change());
    }
    for (const OverlayTarget& target : targets) {
      Match match = match_of(target);
      if (!match.found.empty()) {
        matches_.push_back(std::move(match));
      } else if (target.required && !is_tolerated(target.name)) {
        (partial ? report.not_covered : missing_).push_back(target.name);
      }
    }
    for (const StateDict& state_dict : state_dicts) look_for_extra(state_dict, report);
    refuse_misfits();
  }

  const std::vector<Match>& matches() const { return matches_; }

 private:
  Match match_of(const OverlayTarget& target) {
    Match match{&target, nullptr, {}};
    for (std::size_t i = 0; i < state_dicts_.size(); ++i) {
      for (const std::string& name : names_of(target)) {
        const StateDictTensor* tensor = sources_[i].find(name);
        if (tensor == nullptr) continue;
        if (match.state_dict != &state_dicts_[i]) match = {&target, &state_dicts_[i], {}};
        used_.insert(tensor);
        match.found.push_back(tensor);
        compare_forms(name, *tensor, target);
      }
    }
    return match;
  }

  void compare_forms(const std::string& name, const StateDictTensor& tensor, const OverlayTarget& target) {
    if (tensor.tensor.sizes() != target.tensor.sizes()) {
      misshapen_.push_back(name + ": " + format_shape(tensor.shape) + " in the state dict, " +
                           format_shape(target.tensor.sizes().vec()) + " in the program");
    } else if (!same_kind(tensor.dtype, target.tensor.scalar_type())) {
      mistyped_.push_back(name + ": " + dtype_name(tensor.dtype) + " in the state dict, " +
                          dtype_name(target.tensor.scalar_type()) + " in the program");
    }
  }

  void look_for_extra(const StateDict& state_dict, OverlayReport& report) {
    bool covers = false;
    for (const StateDictTensor& tensor : state_dict.tensors) {
      const bool used = used_.contains(&tensor);
      covers = covers || used;
      if (!used) (is_tolerated(tensor.name) ? report.ignored : extra_).push_back(tensor.name);
    }
    if (!covers && useless_.empty()) useless_ = file_of(state_dict);
  }

  void refuse_misfits() const {
    if (missing_.empty() && extra_.empty() && misshapen_.empty() && mistyped_.empty()) {
      if (!useless_.empty() && !state_dicts_.empty())
        throw InputError(useless_ + " holds none of the program's weights");
      return;
    }
    std::string files;
    for (const StateDict& state_dict : state_dicts_) files += (files.empty() ? "" : " and ") + file_of(state_dict);
    const std::string near = missing_.size() == 1 ? did_you_mean(missing_[0], extra_) : "";
    throw InputError(files + (state_dicts_.size() > 1 ? " do not fit" : " does not fit") + " the program" +
                     part(missing_, "missing") + near + made_by_others() + part(extra_, "extra") +
                     part(misshapen_, "misshapen") + part(mistyped_, "of another type") + advice());
  }

  /// Names that are missing because the file holds something else than a tensor under them.
  std::string made_by_others() const {
    for (const StateDict& state_dict : state_dicts_)
      for (const auto& [name, maker] : state_dict.objects)
        if (std::find(missing_.begin(), missing_.end(), name) != missing_.end())
          return " (" + quote(name) + " is there as an object of " + quote(maker) + ", which hesspect does not make)";
    return "";
  }

  std::string advice() const {
    if (!misshapen_.empty() || !mistyped_.empty()) return "";
    if (missing_.empty())
      return " (torch.export with strict=True drops what the model does not use: strict=False keeps it)";
    return extra_.empty() ? " (--weights-partial leaves what is missing as it is in the .pt2)" : "";
  }

  std::span<const StateDict> state_dicts_;
  std::vector<NamedTensors> sources_;
  std::vector<Match> matches_;
  std::set<const StateDictTensor*> used_;
  std::vector<std::string> missing_, extra_, misshapen_, mistyped_;
  std::string useless_;  // the first file that has nothing of the program
};

std::string index_text(std::int64_t flat, const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> index(shape.size());
  for (std::size_t d = shape.size(); d-- > 0;) {
    index[d] = flat % shape[d];
    flat /= shape[d];
  }
  return format_shape(index);
}

/// The index of the first NaN or infinity of a tensor, in row-major order.
std::optional<std::int64_t> non_finite(const at::Tensor& tensor) {
  const auto type = from_scalar_type(tensor.scalar_type());
  if (!type || !(is_floating(*type) || is_complex(*type)) || tensor.numel() == 0) return std::nullopt;
  const at::Tensor whole = tensor.contiguous();
  return first_non_finite(*type, whole.const_data_ptr(), whole.numel());
}

bool is_inexact(at::ScalarType type) { return at::isFloatingType(type) || at::isComplexType(type); }

/// The first value that a parameter (finite) or a buffer (not NaN) may not hold.
std::optional<std::int64_t> not_allowed(const at::Tensor& tensor, bool is_parameter) {
  if (is_parameter || !is_inexact(tensor.scalar_type())) return non_finite(tensor);
  const at::Tensor bad = at::isnan(tensor).reshape({-1}).nonzero();
  return bad.numel() == 0 ? std::nullopt : std::optional<std::int64_t>(bad[0].item<std::int64_t>());
}

bool is_narrowing(at::ScalarType from, at::ScalarType to) {
  if (from == to) return false;
  return c10::elementSize(to) <= c10::elementSize(from);  // also bfloat16 and float16, either way
}

/// Checks that values are finite, in the range of the program's type, and the same under all names of a tied weight.
void check_values(const Match& match) {
  const std::string file = file_of(*match.state_dict);
  for (const StateDictTensor* tensor : match.found) {
    if (!match.target->is_read_now) break;
    if (const auto bad = not_allowed(tensor->tensor, match.target->is_parameter)) {
      const double value = tensor->tensor.reshape({-1})[*bad].abs().item<double>();
      throw InputError(file + ": tensor " + quote(tensor->name) + " holds " +
                       (std::isnan(value) ? "NaN" : "an infinite value") + " at index " +
                       index_text(*bad, tensor->shape));
    }
    const at::ScalarType to = match.target->tensor.scalar_type();
    if (!is_narrowing(tensor->dtype, to)) continue;
    const at::Tensor narrow = tensor->tensor.to(to);
    const bool fits = is_inexact(to) ? !not_allowed(narrow, match.target->is_parameter)
                                     : narrow.to(tensor->dtype).equal(tensor->tensor);
    if (!fits)
      throw InputError(file + ": tensor " + quote(tensor->name) + " holds a value of " + dtype_name(tensor->dtype) +
                       " that does not fit the program's " + dtype_name(to));
  }
  const StateDictTensor& first = *match.found.front();
  for (const StateDictTensor* other : match.found) {
    const bool same_memory = other->tensor.const_data_ptr() == first.tensor.const_data_ptr() &&
                             other->tensor.strides() == first.tensor.strides() && other->dtype == first.dtype;
    if (same_memory) continue;
    const at::ScalarType widest = at::isComplexType(first.dtype) ? at::kComplexDouble : at::kDouble;
    if (!other->tensor.to(widest).equal(first.tensor.to(widest)))
      throw InputError(file + ": " + quote(first.name) + " and " + quote(other->name) +
                       " are one tied weight in the program, but differ in the state dict");
  }
}

void write(const Match& match, OverlayReport& report) {
  const StateDictTensor& from = *match.found.front();
  const at::ScalarType to = match.target->tensor.scalar_type();
  const bool is_half = from.dtype == at::kHalf || from.dtype == at::kBFloat16;
  if (is_half && (to == at::kFloat || to == at::kDouble)) report.widened.push_back(match.target->name);
  if (match.target->kept != nullptr) {
    *match.target->kept = from.tensor;
    return;
  }
  at::Tensor target = match.target->tensor;
  // A file's bool bytes may be other than 0 and 1.
  target.copy_(from.dtype == at::kBool ? from.tensor.view(at::kByte).ne(0) : from.tensor);
}

}  // namespace

OverlayReport overlay(std::span<const StateDict> state_dicts, const std::vector<OverlayTarget>& targets, bool partial) {
  const at::NoGradGuard no_grad;
  OverlayReport report;
  const Matching matching(state_dicts, targets, partial, report);
  for (const Match& match : matching.matches()) check_values(match);
  for (const Match& match : matching.matches()) write(match, report);
  return report;
}

}  // namespace hesspect
