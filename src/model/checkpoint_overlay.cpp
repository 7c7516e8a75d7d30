#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <unordered_map>

#include "hesspect/core/element_type.h"
#include "hesspect/core/element_type_torch.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/model/checkpoint.h"

namespace hesspect {
namespace {

// What wrappers put before every name: DataParallel, torch.compile, Lightning and other trainers.
constexpr std::array<std::string_view, 3> kWrapperPrefixes{"module.", "_orig_mod.", "model."};

/// Names as they end in state dicts without being weights: counters, and index buffers that older libraries stored.
bool is_tolerated(const std::string& name) {
  const std::string last = name.substr(name.rfind('.') + 1);  // npos + 1 = 0: the whole name
  return last == "num_batches_tracked" || last == "position_ids";
}

std::vector<std::string> names_of(const OverlayTarget& target) {
  std::vector<std::string> names{target.name};
  names.insert(names.end(), target.aliases.begin(), target.aliases.end());
  return names;
}

/// The checkpoint's tensors under their names in the program.
class Source {
 public:
  Source(const Checkpoint& checkpoint, const std::vector<OverlayTarget>& targets) {
    std::set<std::string> wanted;
    for (const OverlayTarget& target : targets) {
      for (std::string& name : names_of(target)) wanted.insert(std::move(name));
    }
    prefix_ = best_prefix(checkpoint, wanted);
    for (const CheckpointTensor& tensor : checkpoint.tensors)
      by_name_.emplace(tensor.name.substr(prefix_.size()), &tensor);
  }

  const std::string& prefix() const { return prefix_; }
  const CheckpointTensor* find(const std::string& name) const {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : found->second;
  }

 private:
  /// The wrappers' prefix, one or several in a row, that all names share and whose loss makes most names fit.
  static std::string best_prefix(const Checkpoint& checkpoint, const std::set<std::string>& wanted) {
    const auto fitting = [&](std::size_t cut) {
      return std::count_if(checkpoint.tensors.begin(), checkpoint.tensors.end(),
                           [&](const auto& tensor) { return wanted.contains(tensor.name.substr(cut)); });
    };
    std::string prefix;
    std::string best;
    auto most = fitting(0);
    while (!checkpoint.tensors.empty()) {
      const auto next = std::find_if(kWrapperPrefixes.begin(), kWrapperPrefixes.end(), [&](std::string_view wrapper) {
        return std::all_of(checkpoint.tensors.begin(), checkpoint.tensors.end(), [&](const auto& tensor) {
          return std::string_view(tensor.name).substr(prefix.size()).starts_with(wrapper);
        });
      });
      if (next == kWrapperPrefixes.end()) break;
      prefix += *next;
      const auto fit = fitting(prefix.size());
      if (fit > most) {
        most = fit;
        best = prefix;
      }
    }
    return best;
  }

  std::string prefix_;
  std::unordered_map<std::string, const CheckpointTensor*> by_name_;
};

/// One target and what the checkpoint holds under its names.
struct Match {
  const OverlayTarget* target;
  std::vector<const CheckpointTensor*> found;  // under its name and aliases
};

std::string dtype_name(at::ScalarType type) {
  const auto element = from_scalar_type(type);
  return element ? std::string(element_name(*element)) : c10::toString(type);
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
std::vector<Match> match_names(const std::string& file, const Checkpoint& checkpoint,
                               const std::vector<OverlayTarget>& targets, const Source& source, OverlayReport& report) {
  std::vector<Match> matches;
  std::vector<std::string> missing;
  std::vector<std::string> misshapen;
  std::vector<std::string> mistyped;
  std::set<const CheckpointTensor*> used;
  for (const OverlayTarget& target : targets) {
    Match match{&target, {}};
    for (const std::string& name : names_of(target)) {
      const CheckpointTensor* tensor = source.find(name);
      if (tensor == nullptr) continue;
      used.insert(tensor);
      match.found.push_back(tensor);
      if (tensor->tensor.sizes() != target.tensor.sizes()) {
        misshapen.push_back(name + ": " + format_shape(tensor->shape) + " in the checkpoint, " +
                            format_shape(target.tensor.sizes().vec()) + " in the program");
      } else if (!same_kind(tensor->dtype, target.tensor.scalar_type())) {
        mistyped.push_back(name + ": " + dtype_name(tensor->dtype) + " in the checkpoint, " +
                           dtype_name(target.tensor.scalar_type()) + " in the program");
      }
    }
    if (!match.found.empty()) {
      matches.push_back(std::move(match));
    } else if (target.required && !is_tolerated(target.name)) {
      missing.push_back(target.name);
    }
  }
  std::vector<std::string> extra;
  for (const CheckpointTensor& tensor : checkpoint.tensors) {
    if (!used.contains(&tensor)) (is_tolerated(tensor.name) ? report.ignored : extra).push_back(tensor.name);
  }
  if (missing.empty() && extra.empty() && misshapen.empty() && mistyped.empty()) return matches;
  const std::string near = missing.size() == 1 ? did_you_mean(missing[0], extra) : "";
  const std::string advice =
      missing.empty() && misshapen.empty() && mistyped.empty() && !extra.empty()
          ? " (torch.export with strict=True drops what the model does not use: strict=False keeps it)"
          : "";
  throw InputError(file + " does not fit the program" + part(missing, "missing") + near + part(extra, "extra") +
                   part(misshapen, "misshapen") + part(mistyped, "of another type") + advice);
}

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

/// Values: finite, within the range of the program's type, and the same under all names of a tied weight.
void check_values(const std::string& file, const Match& match) {
  for (const CheckpointTensor* tensor : match.found) {
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
    if (!fits) {
      throw InputError(file + ": tensor " + quote(tensor->name) + " holds a value of " + dtype_name(tensor->dtype) +
                       " that does not fit the program's " + dtype_name(to));
    }
  }
  const CheckpointTensor& first = *match.found.front();
  for (const CheckpointTensor* other : match.found) {
    const bool same_memory = other->tensor.const_data_ptr() == first.tensor.const_data_ptr() &&
                             other->tensor.strides() == first.tensor.strides() && other->dtype == first.dtype;
    if (same_memory) continue;
    const at::ScalarType widest = at::isComplexType(first.dtype) ? at::kComplexDouble : at::kDouble;
    if (!other->tensor.to(widest).equal(first.tensor.to(widest))) {
      throw InputError(file + ": " + quote(first.name) + " and " + quote(other->name) +
                       " are one tied weight in the program, but differ in the checkpoint");
    }
  }
}

void write(const Match& match, OverlayReport& report) {
  const CheckpointTensor& from = *match.found.front();
  const at::ScalarType to = match.target->tensor.scalar_type();
  const bool is_half = from.dtype == at::kHalf || from.dtype == at::kBFloat16;
  if (is_half && (to == at::kFloat || to == at::kDouble)) report.widened.push_back(match.target->name);
  if (is_inexact(to) && is_narrowing(from.dtype, to)) report.narrowed.push_back(match.target->name);
  at::Tensor target = match.target->tensor;
  // A file's bool bytes may be other than 0 and 1.
  target.copy_(from.dtype == at::kBool ? from.tensor.view(at::kByte).ne(0) : from.tensor);
}

}  // namespace

OverlayReport overlay(const Checkpoint& checkpoint, const std::vector<OverlayTarget>& targets) {
  const at::NoGradGuard no_grad;
  const std::string file = checkpoint.files.empty() ? "the checkpoint" : quote(checkpoint.files.front().string());
  OverlayReport report;
  const Source source(checkpoint, targets);
  report.stripped_prefix = source.prefix();
  const std::vector<Match> matches = match_names(file, checkpoint, targets, source, report);
  for (const Match& match : matches) check_values(file, match);
  for (const Match& match : matches) write(match, report);
  return report;
}

}  // namespace hesspect
