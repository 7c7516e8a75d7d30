// The weights that a program holds, and those that are laid over it.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "program_impl.h"
#include "row_tables.h"
#include "state_dict_names.h"
#include "weight_ties.h"

namespace hesspect {
namespace {

constexpr double kStandIn = 0.1;  // size of a made-up weight

/// What a state dict may set: parameters, persistent buffers, and what else has no data. Parameters that are yet to be
/// laid out take a state dict's tensors as they are; of a table that is only looked up, whose rows may not all be read
/// then, values are checked when they are.
std::vector<OverlayTarget> targets_of(Program::Impl& impl, bool look_at_values) {
  std::vector<OverlayTarget> targets;
  const std::vector<at::Tensor> views = impl.layout.views(impl.flat);
  const bool is_laid_out = !impl.flat.is_meta();
  const std::vector<TableReads> reads = is_laid_out ? std::vector<TableReads>() : table_reads(impl);
  std::size_t owner = 0;
  for (std::size_t i = 0; i < views.size(); ++i, ++owner) {
    while (impl.owners[owner] != owner) ++owner;
    const ParameterEntry& entry = impl.layout.entries()[i];
    targets.push_back(
        {entry.name, entry.aliases, entry.is_complex() ? as_complex(views[i]) : views[i], true, true, true});
    if (is_laid_out) continue;
    targets.back().kept = &impl.stored[owner].value;
    targets.back().is_read_now = look_at_values && !reads[owner].only_looked_up();
  }
  for (const auto& tensor : impl.tensors)
    if (tensor.persistent || !tensor.has_data)
      targets.push_back({tensor.name, tensor.aliases, tensor.tensor, tensor.has_data || tensor.is_used,
                         tensor.is_parameter, tensor.persistent});
  return targets;
}

/// @throws InputError naming the constants and non-persistent buffers that have no data and that no source gives
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

/// Real memory for a program that lacks data: what it holds, and stand-ins for what it does not.
/// @param parameters  false: for buffers and constants alone
void make_real(Program::Impl& impl, const std::vector<std::size_t>& owners, bool parameters) {
  impl.lay_out(owners, parameters);
  for (auto& tensor : impl.tensors) {
    if (!tensor.tensor.is_meta()) continue;
    const auto options = tensor.tensor.options().device(impl.options.device);
    tensor.tensor = at::isFloatingType(tensor.tensor.scalar_type()) ? at::ones(tensor.tensor.sizes(), options)
                                                                    : at::zeros(tensor.tensor.sizes(), options);
  }
}

/// Of a parameter whose values are not here: NaN throughout, which takes no memory.
at::Tensor unknown(const Program::Impl& impl, const ParameterEntry& entry) {
  const auto options = at::TensorOptions().dtype(impl.options.dtype).device(impl.options.device);
  return at::full({}, std::nan(""), options).expand(entry.shape);
}

void hold_rows(ParameterEntry& entry, const std::shared_ptr<const std::vector<std::int64_t>>& rows) {
  entry.rows = rows;
  entry.model_shape = entry.shape;
  entry.model_numel = entry.numel;
  entry.shape.front() = std::ssize(*rows);
  entry.numel = entry.model_numel / entry.model_shape.front() * entry.shape.front();
}

/// Sets which rows of tables are held: of those that are one, all must be looked up alone, and their rows be told.
void settle_rows(Program::Impl& impl, const RowsInUse& in_use) {
  const std::vector<TableReads> reads = table_reads(impl);
  const auto rows_of = [&](const std::string& name) {
    return std::ranges::find_if(in_use, [&](const TableRows& rows) { return rows.name == name; });
  };
  for (std::size_t o = 0; o < impl.stored.size(); ++o) {
    if (impl.owners[o] != o) continue;
    std::vector<std::int64_t> rows;
    bool is_told = true;
    for (std::size_t i = 0; i < impl.stored.size(); ++i) {
      const bool is_read = reads[i].otherwise || !reads[i].look_ups.empty();
      if (impl.owners[i] != o || !is_read) continue;
      const auto told = rows_of(impl.stored[i].entry.name);
      is_told = is_told && reads[i].only_looked_up() && told != in_use.end();
      if (is_told) rows.insert(rows.end(), told->rows.begin(), told->rows.end());
    }
    std::ranges::sort(rows);
    rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
    if (!is_told || rows.empty() || std::ssize(rows) == impl.stored[o].entry.shape.front()) continue;
    impl.stored[o].rows = std::make_shared<const std::vector<std::int64_t>>(std::move(rows));
  }
}

}  // namespace

void Program::Impl::lay_out(std::vector<std::size_t> new_owners, bool real) {
  owners = std::move(new_owners);
  std::vector<ParameterEntry> entries(stored.size());
  for (std::size_t i = 0; i < stored.size(); ++i) {
    const ParameterEntry& own = stored[i].entry;
    if (owners[i] == i) {
      entries[i] = own;
      if (stored[i].rows) hold_rows(entries[i], stored[i].rows);
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
      const ParameterEntry& entry = layout.entries()[leaf[i]];
      view.copy_(value.defined() ? rows_held(entry, as_reals(value)) : stand_in(entry.shape, entry.numel, here));
      value = at::Tensor();
    }
    new_leaves.push_back(view.detach().requires_grad_(true));
  }
  flat = whole;
  leaves = std::move(new_leaves);
  if (real) mapped.clear();
}

void Program::lay_out(const RowsInUse& in_use) {
  const at::NoGradGuard no_grad;
  if (!impl_->flat.is_meta()) throw Error(ExitCode::kInternal, "the program's parameters have been laid out already");
  settle_rows(*impl_, in_use);
  impl_->lay_out(impl_->owners, impl_->has_weights);
  look_up_held_rows(*impl_);
}

void Program::leave_in_file(const RowsInUse& in_use) {
  const at::NoGradGuard no_grad;
  if (!impl_->flat.is_meta()) throw Error(ExitCode::kInternal, "the program's parameters have been laid out already");
  settle_rows(*impl_, in_use);
  impl_->lay_out(impl_->owners, /*real=*/false);
  look_up_held_rows(*impl_);
  for (std::size_t i = 0; i < impl_->leaves.size(); ++i) impl_->leaves[i] = unknown(*impl_, impl_->layout.entries()[i]);
  for (std::size_t i = 0; i < impl_->stored.size(); ++i)
    if (impl_->owners[i] == i) impl_->held.push_back(i);
  impl_->is_left_in_file = true;
}

bool Program::is_left_in_file() const { return impl_->is_left_in_file; }

at::ScalarType Program::stored_type(std::size_t parameter) const {
  const Impl::StoredParameter& stored = impl_->stored[impl_->held.at(parameter)];
  return c10::toRealValueType(stored.value.defined() ? stored.value.scalar_type() : stored.entry.stored_dtype);
}

at::Tensor Program::read_parameter(std::size_t parameter, std::int64_t begin, std::int64_t count) const {
  const at::NoGradGuard no_grad;
  const at::Tensor& value = impl_->stored[impl_->held.at(parameter)].value;
  if (!value.defined())
    return at::sin(at::arange(begin + 1, begin + count + 1, at::TensorOptions().dtype(impl_->options.dtype)))
        .mul_(kStandIn)
        .to(stored_type(parameter));
  const at::Tensor whole = as_reals(value);
  if (const auto& rows = brought(parameter).rows) {  // of those that are held, the ones with entries here
    const std::int64_t width = std::max<std::int64_t>(1, whole.numel() / std::max<std::int64_t>(1, whole.size(0)));
    const std::int64_t first = begin / width, last = (begin + count + width - 1) / width;
    const at::Tensor wanted = at::tensor(std::vector<std::int64_t>(rows->begin() + first, rows->begin() + last));
    return whole.index_select(0, wanted).reshape({-1}).narrow(0, begin - first * width, count).clone();
  }
  // A copy: the file's pages are let go again. Contiguous tensors, as all that people export are, are cut without a
  // whole copy.
  return whole.reshape({-1}).narrow(0, begin, count).clone();
}

void Program::run_by(Runner runner) { impl_->runner = std::move(runner); }

void Program::let_go_of_file() {
  for (auto& parameter : impl_->stored) parameter.value = at::Tensor();
  impl_->mapped.clear();
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
  if (impl_->flat.is_meta()) make_real(*impl_, impl_->owners, /*parameters=*/true);
}

void Program::select_parameters(const std::vector<bool>& chosen) {
  const at::NoGradGuard no_grad;
  Impl& impl = *impl_;
  const bool in_file = impl.is_left_in_file;
  const std::vector<at::Tensor> values = in_file ? impl.leaves : impl.layout.views(impl.flat);
  ParameterLayout layout;
  std::vector<std::size_t> places;  // of each entry: among the chosen ones, or among the tensors
  std::vector<std::size_t> held, fixed_held;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const ParameterEntry& entry = impl.layout.entries()[i];
    if (in_file) (chosen.at(i) ? held : fixed_held).push_back(impl.held[i]);
    if (chosen.at(i)) {
      places.push_back(layout.entries().size());
      layout.add(entry);
      continue;
    }
    places.push_back(impl.tensors.size());
    const at::Tensor value = in_file ? values[i] : values[i].clone();
    impl.tensors.push_back({.name = entry.name,
                            .aliases = entry.aliases,
                            .tensor = entry.is_complex() ? as_complex(values[i]) : value,
                            .persistent = true,
                            .is_parameter = true});
    if (!in_file) continue;
    impl.tensors.back().fixed = impl.fixed.size();
    impl.fixed.push_back(entry);
  }
  for (Impl::Feed& feed : impl.feeds) {
    if (feed.kind != Impl::Feed::Kind::kParameter) continue;
    if (!chosen[feed.index]) feed.kind = Impl::Feed::Kind::kTensor;
    feed.index = places[feed.index];
  }
  at::Tensor whole = at::empty({layout.size()}, impl.flat.options());
  const std::vector<at::Tensor> views = layout.views(whole);
  impl.leaves.clear();
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!chosen[i]) continue;
    const at::Tensor& view = views[places[i]];
    if (!in_file) view.copy_(values[i]);
    impl.leaves.push_back(in_file ? values[i] : view.detach().requires_grad_(true));
  }
  impl.layout = std::move(layout);
  impl.flat = std::move(whole);
  held.insert(held.end(), fixed_held.begin(), fixed_held.end());
  impl.held = std::move(held);
}

OverlayReport Program::overlay(std::span<const StateDict> state_dicts, bool partial, bool look_at_values) {
  const at::NoGradGuard no_grad;
  std::vector<std::string> warnings;
  if (!impl_->has_weights && impl_->flat.is_meta()) {
    const ProgramNames names(targets_of(*impl_, look_at_values));
    std::vector<NamedTensors> sources;
    for (const StateDict& state_dict : state_dicts) sources.emplace_back(state_dict, names);
    require_constants(*impl_, sources);
    warnings = tie_frozen(*impl_, sources);
    const Ties ties = settle_ties(impl_->stored, sources);
    warnings.insert(warnings.end(), ties.warnings.begin(), ties.warnings.end());
    make_real(*impl_, ties.owners, impl_->options.lay_out);
    impl_->has_weights = true;
  }
  if (impl_->layout.numbers())
    throw Error(ExitCode::kInternal, "weights are to be laid over a program before rows are left out");
  const bool is_laid_out = !impl_->flat.is_meta();
  const std::vector<OverlayTarget> targets = targets_of(*impl_, look_at_values);
  OverlayReport report = hesspect::overlay(state_dicts, targets, partial);
  const std::vector<at::Tensor> views = impl_->layout.views(impl_->flat);
  for (std::size_t i = 0; i < views.size() && is_laid_out; ++i)
    if (impl_->layout.entries()[i].is_complex()) views[i].copy_(as_reals(targets[i].tensor));
  if (!is_laid_out)
    for (const StateDict& state_dict : state_dicts) impl_->mapped.push_back(state_dict.storage);
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
    // One pass, where no sum overflows: what is not finite leaves no sum finite.
    const bool is_summed = tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kDouble;
    if (is_summed && std::isfinite(tensor.sum().item<double>())) return;
    const at::Tensor finite = is_parameter ? at::isfinite(tensor) : at::isnan(tensor).logical_not();
    if (finite.all().item<bool>()) return;
    const std::int64_t bad = tensor.numel() - finite.sum().item<std::int64_t>();
    throw InputError(impl_->where + kind + " '" + name + "' holds " + format_count(bad) + " non-finite value" +
                     (bad == 1 ? "" : "s") + " (NaN or infinity) of " + format_count(tensor.numel()));
  };
  for (std::size_t i = 0; i < impl_->leaves.size() && !impl_->is_left_in_file; ++i)
    check("parameter", impl_->layout.entries()[i].name, impl_->leaves[i].detach(), true);
  for (const auto& tensor : impl_->tensors)
    if (tensor.persistent && !tensor.fixed)
      check(tensor.is_parameter ? "parameter" : "buffer", tensor.name, tensor.tensor, tensor.is_parameter);
}

std::vector<std::string> Program::unlike(const Program& other) const {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < std::min(impl_->tensors.size(), other.impl_->tensors.size()); ++i)
    if (const at::Tensor& own = impl_->tensors[i].tensor; !own.equal(other.impl_->tensors[i].tensor.to(own.device())))
      names.push_back(impl_->tensors[i].name);
  return names;
}

}  // namespace hesspect
