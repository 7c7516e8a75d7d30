#include "state_dict_names.h"

#include <algorithm>
#include <optional>

#include "hesspect/core/text.h"

namespace hesspect {
namespace {

constexpr std::size_t kMostWords = 6;  // that a prefix may have

/// Narrows `common` to what `name` has too, at a dot: never the whole of a name.
void narrow(std::optional<std::string>& common, const std::string& name) {
  const std::string before = name.substr(0, name.rfind('.') + 1);  // npos + 1 = 0: nothing
  if (!common) {
    common = before;
    return;
  }
  const auto [end, other] = std::mismatch(common->begin(), common->end(), before.begin(), before.end());
  common->erase(end, common->end());
  common->erase(common->rfind('.') + 1);
}

/// "", "lm.", "lm.model.": the prefixes that `common` can give, shortest first.
std::vector<std::string> prefixes_of(const std::string& common) {
  std::vector<std::string> prefixes{""};
  for (std::size_t dot = common.find('.'); dot != std::string::npos && prefixes.size() <= kMostWords;
       dot = common.find('.', dot + 1))
    prefixes.push_back(common.substr(0, dot + 1));
  return prefixes;
}

std::string common_of(const StateDict& state_dict) {
  std::optional<std::string> common;
  for (const StateDictTensor& tensor : state_dict.tensors)
    if (!is_tolerated(tensor.name)) narrow(common, tensor.name);
  return common.value_or("");
}

/// The adapter's name of PEFT: the word after `lora_A` and the like. "" where there are none, or several.
std::string adapter_of(const std::set<std::string>& names) {
  std::string adapter;
  for (const std::string& name : names) {
    const std::size_t lora = name.find(".lora_");
    const std::size_t begin = lora == std::string::npos ? lora : name.find('.', lora + 1);
    if (begin == std::string::npos) continue;
    const std::string word = name.substr(begin + 1, name.find('.', begin + 1) - begin - 1);
    if (!adapter.empty() && word != adapter) return "";
    adapter = word;
  }
  return adapter;
}

/// `name` without the words `.word` that stand whole in it at or after `from`.
std::string without(std::string name, const std::string& word, std::size_t from = 0) {
  for (std::size_t at = name.find("." + word, from); at != std::string::npos; at = name.find("." + word, at + 1)) {
    const std::size_t end = at + 1 + word.size();
    if (end == name.size() || name[end] == '.') return name.erase(at, end - at);
  }
  return name;
}

/// As PEFT's files call a weight of an adapter: "x.lora_A.default.weight" is "x.lora_A.weight", and
/// "x.modules_to_save.default.weight" is "x.weight".
std::string in_adapter_file(const std::string& name, const std::string& adapter) {
  const std::size_t lora = name.find(".lora_");
  if (lora != std::string::npos) return without(name, adapter, lora + 1);
  return without(name, "modules_to_save." + adapter);
}

/// The program's names by what a file of PEFT calls them. Two that would be called the same are left out.
std::unordered_map<std::string, std::string> called(const std::set<std::string>& names, const NameChange& change) {
  std::unordered_map<std::string, std::string> program_names;
  std::set<std::string> twice;
  for (const std::string& name : names) {
    std::string plain = name;
    if (!change.adapter.empty()) plain = in_adapter_file(plain, change.adapter);
    if (change.base) plain = without(without(plain, "base_layer"), "original_module");
    if (!program_names.emplace(plain, name).second) twice.insert(plain);
  }
  for (const std::string& plain : twice) program_names.erase(plain);
  return program_names;
}

std::string renamed(const std::string& name, const NameChange& change) {
  if (!name.starts_with(change.stripped)) return name;  // a counter beside the rest
  return change.added + name.substr(change.stripped.size());
}

/// The changes that PEFT may have made; none comes first.
std::vector<NameChange> kinds_of_change(const std::set<std::string>& names) {
  std::vector<NameChange> kinds(1);
  const std::string adapter = adapter_of(names);
  if (adapter.empty()) return kinds;
  kinds.push_back({"", "", adapter, false});
  kinds.push_back({"", "", "", true});
  return kinds;
}

}  // namespace

bool is_tolerated(const std::string& name) {
  const std::string last = name.substr(name.rfind('.') + 1);  // npos + 1 = 0: the whole name
  return last == "num_batches_tracked" || last == "position_ids" || last == "n_averaged";
}

std::string describe(const NameChange& change) {
  std::string text;
  const auto add = [&](bool is, const std::string& what) {
    if (is) text += (text.empty() ? "" : ", ") + what;
  };
  add(!change.stripped.empty(), quote(change.stripped) + " taken off its names");
  add(!change.added.empty(), quote(change.added) + " put before its names");
  add(!change.adapter.empty(), "taken for the adapter " + quote(change.adapter));
  add(change.base, "taken for the weights below the adapter ('base_layer')");
  return text;
}

ProgramNames::ProgramNames(const std::vector<OverlayTarget>& targets) {
  std::optional<std::string> shared;
  const auto take = [&](const OverlayTarget& target, const std::string& name) {
    all.insert(name);
    if (target.is_saved && !is_tolerated(name)) narrow(shared, name);
  };
  for (const OverlayTarget& target : targets) {
    take(target, target.name);
    for (const std::string& alias : target.aliases) take(target, alias);
  }
  common = shared.value_or("");
}

NamedTensors::NamedTensors(const StateDict& state_dict, const ProgramNames& names) {
  std::size_t most = 0;
  bool chosen = false;
  std::unordered_map<std::string, std::string> best;
  const std::vector<std::string> strippable = prefixes_of(common_of(state_dict));
  for (NameChange change : kinds_of_change(names.all)) {
    auto program_names = called(names.all, change);
    bool better = false;
    for (const std::string& added : prefixes_of(names.common)) {
      for (const std::string& stripped : strippable) {
        if (chosen && most == state_dict.tensors.size()) continue;  // all fit already
        change.added = added;
        change.stripped = stripped;
        const auto fit = static_cast<std::size_t>(std::count_if(
            state_dict.tensors.begin(), state_dict.tensors.end(),
            [&](const StateDictTensor& tensor) { return program_names.contains(renamed(tensor.name, change)); }));
        if (chosen && fit <= most) continue;
        most = fit;
        change_ = change;
        chosen = better = true;
      }
    }
    if (better) best = std::move(program_names);
  }
  for (const StateDictTensor& tensor : state_dict.tensors) {
    const auto found = best.find(renamed(tensor.name, change_));
    if (found != best.end()) by_name_.emplace(found->second, &tensor);
  }
}

const StateDictTensor* NamedTensors::find(const std::string& program_name) const {
  const auto found = by_name_.find(program_name);
  return found == by_name_.end() ? nullptr : found->second;
}

}  // namespace hesspect
