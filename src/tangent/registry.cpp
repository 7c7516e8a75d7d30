#include "registry.h"

#include <map>

namespace hesspect {
namespace {

using RulesByName = std::map<std::string, FoundRule, std::less<>>;

RulesByName all_rules() {
  RulesByName rules;
  for (const RuleTable* table : {&matrix_rules(), &view_rules(), &arithmetic_rules(), &pointwise_rules(), &norm_rules(),
                                 &channel_norm_rules(), &softmax_rules(), &attention_rules(), &convolution_rules(),
                                 &pooling_rules(), &index_rules(), &row_rules(), &reduction_rules()})
    for (const RuleEntry& entry : *table)
      for (const std::string_view op : entry.ops) rules.emplace(op, FoundRule{entry.make, entry.redo});
  return rules;
}

}  // namespace

FoundRule rule_for(const Instruction& instruction) {
  static const RulesByName rules = all_rules();
  if (!instruction.op || instruction.kind == Instruction::Kind::kVmap) return {};
  std::string name = instruction.op->schema().name();
  if (!name.starts_with("aten::")) return {};
  name = name.substr(6);
  if (const auto found = rules.find(name + "." + instruction.op->schema().overload_name()); found != rules.end())
    return found->second;
  // In-place forms run as the forms that write to nothing.
  if (name.ends_with('_') && !name.starts_with('_')) name.pop_back();
  const auto found = rules.find(name);
  return found == rules.end() ? FoundRule{} : found->second;
}

}  // namespace hesspect
