#include "weight_ties.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"

namespace hesspect {
namespace {

using Stored = Program::Impl::StoredParameter;

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

/// Whether all values are the same, as in weights that were only initialized.
bool is_constant(const at::Tensor& tensor) {
  return tensor.numel() < 2 || tensor.eq(tensor.flatten()[0]).all().item<bool>();
}

/// Whether the values are the same, and not such as tensors have in common by chance.
bool is_copy(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && first_values(a) == first_values(b) && a.equal(b) && !is_constant(a);
}

/// Whether a file holds the same weight under both names. What a later file holds under one is then meant for both.
bool shows_tie(const std::vector<NamedTensors>& sources, const std::string& a, const std::string& b) {
  return std::any_of(sources.begin(), sources.end(), [&](const NamedTensors& source) {
    const StateDictTensor *first = source.find(a), *second = source.find(b);
    return first != nullptr && second != nullptr &&
           (same_memory(first->tensor, second->tensor) || is_copy(first->tensor, second->tensor));
  });
}

bool is_found(const std::vector<NamedTensors>& sources, const std::string& name) {
  return std::any_of(sources.begin(), sources.end(), [&](const auto& source) { return source.find(name) != nullptr; });
}

std::string module_of(const ParameterEntry& entry) { return entry.name.substr(0, entry.name.rfind('.') + 1); }

std::string taken_for_tied(const std::string& missing, const std::string& kept) {
  return quote(missing) + " is in no state dict and is taken to be tied to " + quote(kept) +
         ", which is there and which the program does not use by that name";
}

class Settling {
 public:
  Settling(const std::vector<Stored>& stored, const std::vector<NamedTensors>& sources)
      : stored_(stored), sources_(sources) {
    ties_.owners = own_owners(stored.size());
    for (const Stored& parameter : stored) found_.push_back(is_found(sources, parameter.entry.name));
    for (std::size_t i = 0; i < stored.size(); ++i)
      if (!stored[i].has_data && !stored[i].is_used) settle_unused(i);
    settle_kept_names();
    for (const NamedTensors& source : sources) settle_used(source);
  }

  const Ties& ties() const { return ties_; }

 private:
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
    if (!found_[i]) {                // as save_pretrained leaves out all names of a weight but one
      tie(ties_.owners, i, candidates.front());
      if (candidates.size() > 1)
        ties_.warnings.push_back(quote(stored_[i].entry.name) +
                                 " is in no state dict and not used by the program: it is " +
                                 "taken to be tied to another weight of its shape");
      return;
    }
    require_comparison(i, candidates);
    for (const std::size_t j : candidates) {
      if (!shows_tie(sources_, stored_[i].entry.name, stored_[j].entry.name)) continue;
      tie(ties_.owners, i, j);
      return;
    }
    kept_.push_back(i);
  }

  /// @throws InputError where no file holds the name beside one of those that it may be tied to
  void require_comparison(std::size_t i, const std::vector<std::size_t>& candidates) const {
    const std::string& name = stored_[i].entry.name;
    std::string apart;
    for (const std::size_t j : candidates) {
      const std::string& other = stored_[j].entry.name;
      if (!found_[j]) continue;
      if (std::any_of(sources_.begin(), sources_.end(), [&](const NamedTensors& source) {
            return source.find(name) != nullptr && source.find(other) != nullptr;
          }))
        return;
      if (apart.empty()) apart = other;
    }
    if (!apart.empty())
      throw InputError(quote(name) + " and " + quote(apart) +
                       " may be one tied weight, which the program does not say and no --weights file tells, for none "
                       "holds both: give one that does");
  }

  /// The file may have kept one name of a tied weight and the graph another: then there are one unused name in the file
  /// and one used name that is not, the only ones of their form. Where the file has more of a module that is not used,
  /// the model left that module out.
  void settle_kept_names() {
    for (const std::size_t i : kept_) {
      std::vector<std::size_t> missing = partners(i);
      std::erase_if(missing, [&](std::size_t j) { return found_[j]; });
      const bool alone = std::none_of(kept_.begin(), kept_.end(), [&](std::size_t k) {
        const ParameterEntry &a = stored_[i].entry, &b = stored_[k].entry;
        return k != i && (same_form(a, b) || module_of(a) == module_of(b));
      });
      if (missing.size() != 1 || !alone) continue;
      tie(ties_.owners, i, missing.front());
      ties_.warnings.push_back(taken_for_tied(stored_[missing.front()].entry.name, stored_[i].entry.name));
    }
  }

  /// Names that the graph uses side by side are one where they share their memory in the file. Equal values alone may
  /// be a copy that is trained by itself.
  void settle_used(const NamedTensors& source) {
    const auto tensor_of = [&](std::size_t i) { return source.find(stored_[i].entry.name)->tensor; };
    std::map<const void*, std::vector<std::size_t>> by_memory;
    std::map<std::vector<double>, std::vector<std::size_t>> by_values;
    for (std::size_t i = 0; i < stored_.size(); ++i) {
      if (stored_[i].has_data || !stored_[i].is_used || source.find(stored_[i].entry.name) == nullptr) continue;
      const at::Tensor tensor = tensor_of(i);
      auto& here = by_memory[tensor.const_data_ptr()];
      const auto one = std::find_if(here.begin(), here.end(), [&](std::size_t j) {
        return same_form(stored_[i].entry, stored_[j].entry) && same_memory(tensor, tensor_of(j));
      });
      if (one != here.end()) {
        tie(ties_.owners, i, *one);
        continue;
      }
      here.push_back(i);
      auto& alike = by_values[first_values(tensor)];
      const auto copy = std::find_if(alike.begin(), alike.end(), [&](std::size_t j) {
        const at::Tensor other = tensor_of(j);
        return tensor.sizes() == other.sizes() && tensor.scalar_type() == other.scalar_type() && tensor.equal(other);
      });
      if (copy == alike.end()) {
        alike.push_back(i);
        continue;
      }
      if (is_constant(tensor)) continue;  // asked last: it reads all of a tensor
      ties_.warnings.push_back(quote(stored_[*copy].entry.name) + " and " + quote(stored_[i].entry.name) +
                               " hold the same values, but the program uses both: they are counted as two parameters");
    }
  }

  const std::vector<Stored>& stored_;
  const std::vector<NamedTensors>& sources_;
  std::vector<bool> found_;  // whether any source holds stored_[i]
  Ties ties_;
  std::vector<std::size_t> kept_;  // names that are in a file, not used, and not settled
};

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

Ties settle_ties(const std::vector<Stored>& stored, const std::vector<NamedTensors>& sources) {
  return Settling(stored, sources).ties();
}

std::vector<std::string> tie_frozen(Program::Impl& impl, const std::vector<NamedTensors>& sources) {
  using Tensor = Program::Impl::NamedTensor;
  std::vector<std::string> warnings;
  const auto names_like = [&](const Tensor& tensor, bool used, bool found) {
    std::vector<std::string> names;
    for (const Tensor& other : impl.tensors)
      if (!other.has_data && other.persistent && other.is_used == used && is_found(sources, other.name) == found &&
          other.tensor.sizes() == tensor.tensor.sizes() && other.tensor.scalar_type() == tensor.tensor.scalar_type())
        names.push_back(other.name);
    return names;
  };
  for (Tensor& tensor : impl.tensors) {
    if (!tensor.is_parameter || tensor.has_data || !tensor.is_used) continue;
    for (const std::string& unused : names_like(tensor, /*used=*/false, /*found=*/true))
      if (shows_tie(sources, tensor.name, unused)) tensor.aliases.push_back(unused);
    if (is_found(sources, tensor.name)) continue;
    const auto kept = names_like(tensor, /*used=*/false, /*found=*/true);
    if (kept.size() != 1 || names_like(tensor, /*used=*/true, /*found=*/false).size() != 1) continue;
    tensor.aliases.push_back(kept.front());
    warnings.push_back(taken_for_tied(tensor.name, kept.front()));
  }
  return warnings;
}

}  // namespace hesspect
