#include "program_weights.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "checkpoint_names.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"

namespace hesspect {
namespace {

using Stored = Program::Impl::StoredParameter;

constexpr double kStandIn = 0.1;  // size of a made-up weight

bool same_form(const ParameterEntry& a, const ParameterEntry& b) {
  return a.shape == b.shape && a.stored_dtype == b.stored_dtype;
}

std::vector<std::size_t> own_owners(std::size_t count) {
  std::vector<std::size_t> owners(count);
  std::iota(owners.begin(), owners.end(), std::size_t{0});
  return owners;
}

/// Makes `a` and `b`, and what is tied to them, one; the first in order owns.
void tie(std::vector<std::size_t>& owners, std::size_t a, std::size_t b) {
  const std::size_t first = std::min(owners[a], owners[b]), second = std::max(owners[a], owners[b]);
  std::replace(owners.begin(), owners.end(), second, first);
}

bool same_memory(const at::Tensor& a, const at::Tensor& b) {
  return a.numel() > 0 && a.const_data_ptr() == b.const_data_ptr() && a.strides() == b.strides() &&
         a.scalar_type() == b.scalar_type();
}

/// A tensor's first values, by which copies find each other.
std::vector<double> first_values(const at::Tensor& tensor) {
  at::Tensor row = tensor;
  while (row.dim() > 1 && row.numel() > 0) row = row[0];
  row = row.reshape({-1}).slice(0, 0, 16).to(at::kDouble).contiguous();
  const auto* values = row.const_data_ptr<double>();
  return {values, values + row.numel()};
}

/// All values the same, as weights that were only initialized may have.
bool is_constant(const at::Tensor& tensor) {
  return tensor.numel() < 2 || tensor.eq(tensor.flatten()[0]).all().item<bool>();
}

/// Values that two tensors hardly have in common unless one is a copy of the other.
bool is_copy(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && first_values(a) == first_values(b) && a.equal(b) && !is_constant(a);
}

std::string module_of(const ParameterEntry& entry) { return entry.name.substr(0, entry.name.rfind('.') + 1); }

std::string taken_for_tied(const std::string& missing, const std::string& kept) {
  return quote(missing) + " is in no checkpoint and is taken to be tied to " + quote(kept) +
         ", which is there and which the program does not use by that name";
}

/// Which parameters without data are one, by the checkpoints that are laid over them.
class Ties {
 public:
  Ties(const std::vector<Stored>& stored, const std::vector<NamedTensors>& sources)
      : stored_(stored), owners_(own_owners(stored.size())) {
    for (const Stored& parameter : stored) found_.push_back(tensor_of(parameter.entry, sources));
    for (std::size_t i = 0; i < stored.size(); ++i)
      if (!stored[i].has_data && !stored[i].is_used) settle_unused(i);
    settle_kept_names();
    settle_used();
  }

  const std::vector<std::size_t>& owners() const { return owners_; }
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  static const CheckpointTensor* tensor_of(const ParameterEntry& entry, const std::vector<NamedTensors>& sources) {
    for (auto source = sources.rbegin(); source != sources.rend(); ++source)
      if (const CheckpointTensor* tensor = source->find(entry.name)) return tensor;
    return nullptr;
  }

  /// Parameters that the graph uses, without data, and of the same form.
  std::vector<std::size_t> partners(std::size_t i) const {
    std::vector<std::size_t> all;
    for (std::size_t j = 0; j < stored_.size(); ++j)
      if (j != i && stored_[j].is_used && !stored_[j].has_data && same_form(stored_[i].entry, stored_[j].entry))
        all.push_back(j);
    return all;
  }

  void settle_unused(std::size_t i) {
    const std::vector<std::size_t> candidates = partners(i);
    if (candidates.empty()) return;  // of no use to the model, but a parameter of it
    if (found_[i] == nullptr) {      // as save_pretrained leaves out all names of a weight but one
      tie(owners_, i, candidates.front());
      if (candidates.size() > 1)
        warnings_.push_back(quote(stored_[i].entry.name) + " is in no checkpoint and not used by the program: it is " +
                            "taken to be tied to another weight of its shape");
      return;
    }
    for (const std::size_t j : candidates) {
      if (found_[j] == nullptr) continue;
      if (!same_memory(found_[i]->tensor, found_[j]->tensor) && !is_copy(found_[i]->tensor, found_[j]->tensor))
        continue;
      tie(owners_, i, j);
      return;
    }
    kept_.push_back(i);
  }

  /// Of a tied weight the file may have kept one name and the graph another: an unused name that is there and a used
  /// one that is not, the only ones of their form. Not where more of a module is there without use: that is one which
  /// the model left out.
  void settle_kept_names() {
    for (const std::size_t i : kept_) {
      std::vector<std::size_t> missing = partners(i);
      std::erase_if(missing, [&](std::size_t j) { return found_[j] != nullptr; });
      const bool alone = std::none_of(kept_.begin(), kept_.end(), [&](std::size_t k) {
        const ParameterEntry &a = stored_[i].entry, &b = stored_[k].entry;
        return k != i && (same_form(a, b) || module_of(a) == module_of(b));
      });
      if (missing.size() != 1 || !alone) continue;
      tie(owners_, i, missing.front());
      warnings_.push_back(taken_for_tied(stored_[missing.front()].entry.name, stored_[i].entry.name));
    }
  }

  /// Names that the graph uses side by side are one where they share their memory in the file. Equal values alone may
  /// be a copy that is trained by itself.
  void settle_used() {
    std::map<const void*, std::vector<std::size_t>> by_memory;
    std::map<std::vector<double>, std::vector<std::size_t>> by_values;
    for (std::size_t i = 0; i < stored_.size(); ++i) {
      if (stored_[i].has_data || !stored_[i].is_used || found_[i] == nullptr) continue;
      const at::Tensor& tensor = found_[i]->tensor;
      auto& here = by_memory[tensor.const_data_ptr()];
      const auto one = std::find_if(here.begin(), here.end(), [&](std::size_t j) {
        return same_form(stored_[i].entry, stored_[j].entry) && same_memory(tensor, found_[j]->tensor);
      });
      if (one != here.end()) {
        tie(owners_, i, *one);
        continue;
      }
      here.push_back(i);
      if (is_constant(tensor)) continue;
      auto& alike = by_values[first_values(tensor)];
      const auto copy = std::find_if(alike.begin(), alike.end(), [&](std::size_t j) {
        const at::Tensor& other = found_[j]->tensor;
        return tensor.sizes() == other.sizes() && tensor.scalar_type() == other.scalar_type() && tensor.equal(other);
      });
      if (copy == alike.end()) {
        alike.push_back(i);
        continue;
      }
      warnings_.push_back(quote(stored_[*copy].entry.name) + " and " + quote(stored_[i].entry.name) +
                          " hold the same values, but the program uses both: they are counted as two parameters");
    }
  }

  const std::vector<Stored>& stored_;
  std::vector<const CheckpointTensor*> found_;
  std::vector<std::size_t> owners_;
  std::vector<std::size_t> kept_;  // names that are in a file, not used, and not settled
  std::vector<std::string> warnings_;
};

/// What a checkpoint may set: parameters, persistent buffers, and what else has no data.
std::vector<OverlayTarget> targets_of(Program::Impl& impl) {
  std::vector<OverlayTarget> targets;
  const std::vector<at::Tensor> views = impl.layout.views(impl.flat);
  for (std::size_t i = 0; i < views.size(); ++i) {
    const ParameterEntry& entry = impl.layout.entries()[i];
    targets.push_back(
        {entry.name, entry.aliases, entry.is_complex() ? as_complex(views[i]) : views[i], true, true, true});
  }
  for (const auto& tensor : impl.tensors)
    if (tensor.persistent || !tensor.has_data)
      targets.push_back({tensor.name, tensor.aliases, tensor.tensor, tensor.has_data || tensor.is_used,
                         tensor.is_parameter, tensor.persistent});
  return targets;
}

/// Frozen weights that are tied: a name that the graph uses and no checkpoint has gets the values of the one name of
/// its shape that the graph does not use and a checkpoint has, where these are the only ones of their shape.
/// @return a sentence for each
std::vector<std::string> tie_frozen(Program::Impl& impl, const std::vector<NamedTensors>& sources) {
  using Tensor = Program::Impl::NamedTensor;
  std::vector<std::string> warnings;
  const auto is_found = [&](const std::string& name) {
    return std::any_of(sources.begin(), sources.end(), [&](const auto& s) { return s.find(name) != nullptr; });
  };
  const auto names_like = [&](const Tensor& tensor, bool used, bool found) {
    std::vector<std::string> names;
    for (const Tensor& other : impl.tensors)
      if (!other.has_data && other.persistent && other.is_used == used && is_found(other.name) == found &&
          other.tensor.sizes() == tensor.tensor.sizes() && other.tensor.scalar_type() == tensor.tensor.scalar_type())
        names.push_back(other.name);
    return names;
  };
  for (Tensor& tensor : impl.tensors) {
    if (!tensor.is_parameter || tensor.has_data || !tensor.is_used || is_found(tensor.name)) continue;
    const auto kept = names_like(tensor, /*used=*/false, /*found=*/true);
    if (kept.size() != 1 || names_like(tensor, /*used=*/true, /*found=*/false).size() != 1) continue;
    tensor.aliases.push_back(kept.front());
    warnings.push_back(taken_for_tied(tensor.name, kept.front()));
  }
  return warnings;
}

/// @throws InputError naming what no state dict can hold and no checkpoint gives
void require_constants(const Program::Impl& impl, const std::vector<NamedTensors>& sources) {
  std::vector<std::string> names;
  for (const auto& tensor : impl.tensors) {
    const bool found = std::any_of(sources.begin(), sources.end(),
                                   [&](const NamedTensors& source) { return source.find(tensor.name) != nullptr; });
    if (!tensor.has_data && tensor.is_used && !tensor.persistent && !found) names.push_back(tensor.name);
  }
  if (names.empty()) return;
  throw InputError(
      impl.where +
      "its non-persistent buffers or constants hold no data, and state dicts don't hold them: " + format_names(names) +
      "; export from a model that was made on the CPU, or give them by name in a further --weights file");
}

at::Tensor stand_in(const std::vector<std::int64_t>& shape, std::int64_t numel, const at::TensorOptions& options) {
  return at::sin(at::arange(1, numel + 1, options)).mul_(kStandIn).reshape(shape);
}

/// Real memory for buffers and constants that have no data.
void allocate_tensors(Program::Impl& impl) {
  for (auto& tensor : impl.tensors) {
    if (!tensor.tensor.is_meta()) continue;
    const auto options = tensor.tensor.options().device(impl.options.device);
    tensor.tensor = at::isFloatingType(tensor.tensor.scalar_type()) ? at::ones(tensor.tensor.sizes(), options)
                                                                    : at::zeros(tensor.tensor.sizes(), options);
  }
}

/// Real memory for a program that lacks data: what it holds, and stand-ins for what it does not.
void make_real(Program::Impl& impl, const std::vector<std::size_t>& owners) {
  impl.lay_out(owners, /*real=*/true);
  allocate_tensors(impl);
}

}  // namespace

std::set<std::string> names_used(const nlohmann::json& graph) {
  std::set<std::string> names;
  std::vector<const nlohmann::json*> open;  // nesting costs no stack
  for (const auto& node : graph.at("nodes")) open.push_back(&node.at("inputs"));
  open.push_back(&graph.at("outputs"));
  while (!open.empty()) {
    const nlohmann::json& value = *open.back();
    open.pop_back();
    if (value.is_object() && value.contains("name") && value["name"].is_string())
      names.insert(value["name"].get<std::string>());
    if (value.is_structured())
      for (const auto& item : value) open.push_back(&item);
  }
  return names;
}

std::vector<std::size_t> likely_owners(const std::vector<Stored>& stored) {
  std::vector<std::size_t> owners = own_owners(stored.size());
  std::map<std::string, int> unused_in;
  for (const Stored& one : stored) unused_in[module_of(one.entry)] += !one.has_data && !one.is_used;
  for (std::size_t i = 0; i < stored.size(); ++i) {
    if (stored[i].has_data || stored[i].is_used || unused_in[module_of(stored[i].entry)] > 1) continue;
    for (std::size_t j = 0; j < stored.size(); ++j) {
      if (stored[j].has_data || !stored[j].is_used || !same_form(stored[i].entry, stored[j].entry)) continue;
      tie(owners, i, j);
      break;
    }
  }
  return owners;
}

bool Program::Impl::lacks_data() const {
  const auto lacks = [](const auto& one) { return !one.has_data; };
  return std::any_of(stored.begin(), stored.end(), lacks) || std::any_of(tensors.begin(), tensors.end(), lacks);
}

void Program::Impl::lay_out(std::vector<std::size_t> new_owners, bool real) {
  owners = std::move(new_owners);
  std::vector<ParameterEntry> entries(stored.size());
  for (std::size_t i = 0; i < stored.size(); ++i) {
    const ParameterEntry& own = stored[i].entry;
    if (owners[i] == i) {
      entries[i] = own;
      continue;
    }
    auto& aliases = entries[owners[i]].aliases;
    aliases.push_back(own.name);
    aliases.insert(aliases.end(), own.aliases.begin(), own.aliases.end());
  }
  layout = ParameterLayout();
  std::vector<std::size_t> leaf(stored.size());
  for (std::size_t i = 0; i < stored.size(); ++i) {
    leaf[i] = owners[i] == i ? layout.entries().size() : leaf[owners[i]];
    if (owners[i] == i) layout.add(std::move(entries[i]));
  }
  for (Feed& feed : feeds)
    if (feed.kind == Feed::Kind::kParameter) feed.index = leaf[feed.stored];

  const auto here = at::TensorOptions().dtype(options.dtype).device(real ? options.device : at::Device(at::kMeta));
  at::Tensor whole = at::empty({layout.size()}, here);
  const std::vector<at::Tensor> views = layout.views(whole);
  std::vector<at::Tensor> new_leaves;
  for (std::size_t i = 0; i < stored.size(); ++i) {
    if (owners[i] != i) continue;
    const at::Tensor& view = views[leaf[i]];
    if (real) {
      at::Tensor& value = stored[i].value;
      view.copy_(value.defined() ? value : stand_in(stored[i].entry.shape, stored[i].entry.numel, here));
      value = at::Tensor();
    }
    new_leaves.push_back(view.detach().requires_grad_(true));
  }
  flat = whole;
  leaves = std::move(new_leaves);
}

std::vector<std::string> Program::lacking() const {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < impl_->stored.size(); ++i)
    if (impl_->owners[i] == i && !impl_->stored[i].has_data) names.push_back(impl_->stored[i].entry.name);
  for (const auto& tensor : impl_->tensors)
    if (!tensor.has_data && tensor.is_used && !is_tolerated(tensor.name)) names.push_back(tensor.name);
  return names;
}

void Program::require_data() const {
  const std::vector<std::string> names = lacking();
  if (names.empty()) return;
  require_constants(*impl_, {});
  throw InputError(impl_->where + "holds no data for " + format_count(static_cast<std::int64_t>(names.size())) +
                   " of its weights (exported on the meta device or with fake tensors): " + format_names(names) +
                   "; give them by --weights FILE");
}

void Program::use_stand_ins() {
  const at::NoGradGuard no_grad;
  if (impl_->flat.is_meta()) make_real(*impl_, impl_->owners);
}

OverlayReport Program::overlay(std::span<const Checkpoint> checkpoints, bool partial) {
  const at::NoGradGuard no_grad;
  std::vector<std::string> warnings;
  if (impl_->flat.is_meta()) {
    const ProgramNames names(targets_of(*impl_));
    std::vector<NamedTensors> sources;
    for (const Checkpoint& checkpoint : checkpoints) sources.emplace_back(checkpoint, names);
    require_constants(*impl_, sources);
    warnings = tie_frozen(*impl_, sources);
    const Ties ties(impl_->stored, sources);
    warnings.insert(warnings.end(), ties.warnings().begin(), ties.warnings().end());
    make_real(*impl_, ties.owners());
  }
  const std::vector<OverlayTarget> targets = targets_of(*impl_);
  OverlayReport report = hesspect::overlay(checkpoints, targets, partial);
  const std::vector<at::Tensor> views = impl_->layout.views(impl_->flat);
  for (std::size_t i = 0; i < views.size(); ++i)
    if (impl_->layout.entries()[i].is_complex()) views[i].copy_(as_reals(targets[i].tensor));
  report.warnings = std::move(warnings);
  const std::set<std::string> left(report.not_covered.begin(), report.not_covered.end());
  for (std::size_t i = 0; i < impl_->stored.size(); ++i)
    impl_->stored[i].has_data |= !left.contains(impl_->stored[impl_->owners[i]].entry.name);
  for (auto& tensor : impl_->tensors) tensor.has_data |= !left.contains(tensor.name);
  return report;
}

void Program::check_finite() const {
  // A buffer may hold infinities: attention masks do.
  const auto check = [&](const std::string& kind, const std::string& name, const at::Tensor& tensor,
                         bool is_parameter) {
    if (tensor.is_meta() || !(at::isFloatingType(tensor.scalar_type()) || tensor.is_complex())) return;
    const at::Tensor finite = is_parameter ? at::isfinite(tensor) : at::isnan(tensor).logical_not();
    if (finite.all().item<bool>()) return;
    const std::int64_t bad = tensor.numel() - finite.sum().item<std::int64_t>();
    throw InputError(impl_->where + kind + " '" + name + "' holds " + format_count(bad) + " non-finite value" +
                     (bad == 1 ? "" : "s") + " (NaN or infinity) of " + format_count(tensor.numel()));
  };
  for (std::size_t i = 0; i < impl_->leaves.size(); ++i)
    check("parameter", impl_->layout.entries()[i].name, impl_->leaves[i].detach(), true);
  for (const auto& tensor : impl_->tensors)
    if (tensor.persistent)
      check(tensor.is_parameter ? "parameter" : "buffer", tensor.name, tensor.tensor, tensor.is_parameter);
}

}  // namespace hesspect
