#include "signature.h"

#include <algorithm>
#include <optional>
#include <set>

#include "hesspect/core/errors.h"
#include "hesspect/core/json_nesting.h"
#include "hesspect/core/text.h"
#include "program_impl.h"

namespace hesspect {
namespace {

using nlohmann::json;

/// Nested deeper than any module's return value: a broken file.
constexpr int kMostLevels = 50;

/// A text within the file's JSON that is JSON itself; discarded where it is none, or nests deeper than any.
json parsed(const std::string& text) {
  if (json_nests_deeper(text)) return json(json::value_t::discarded);
  return json::parse(text, nullptr, /*allow_exceptions=*/false);
}

/// The dimension at which a symbol stands, where it stands once.
std::optional<std::int64_t> only_dimension(const std::vector<Dimension>& shape, const std::string& symbol) {
  std::optional<std::int64_t> found;
  for (std::size_t d = 0; d < shape.size(); ++d) {
    if (shape[d].is_static() || shape[d].symbol != symbol) continue;
    if (found) return std::nullopt;
    found = static_cast<std::int64_t>(d);
  }
  return found;
}

/// Symbols that stand once in the shape of every input.
std::vector<std::string> symbols_of_all(const std::vector<InputSpec>& inputs) {
  std::set<std::string> symbols;
  for (const InputSpec& input : inputs)
    for (const Dimension& dimension : input.shape)
      if (!dimension.is_static()) symbols.insert(dimension.symbol);
  std::vector<std::string> common;
  for (const std::string& symbol : symbols)
    if (std::ranges::all_of(inputs, [&](const InputSpec& i) { return only_dimension(i.shape, symbol).has_value(); }))
      common.push_back(symbol);
  return common;
}

/// Appends the paths of the leaves below a node of the tree.
/// @return false for a node of a kind that is not known
bool add_paths(const json& node, const std::string& prefix, int level, std::vector<std::string>& paths) {
  if (level > kMostLevels || !node.is_object() || !node.contains("children_spec")) return false;
  const json& children = node["children_spec"];
  if (!children.is_array()) return false;
  if (node.value("type", json()).is_null()) {  // a leaf
    paths.push_back(prefix);
    return true;
  }
  json keys;  // of a dictionary or a data class; positions for all others
  if (const json context = node.value("context", json()); context.is_string()) {
    keys = parsed(context.get<std::string>());
  } else if (context.is_array()) {
    keys = context;
  }
  // ["key", …], or ["a data class's fields", …, "those that are None"], or [type, ["key", …]].
  if (keys.is_array() && !keys.empty() && keys[0].is_array()) keys = json(keys[0]);
  if (keys.is_array() && keys.size() == 2 && keys[1].is_array()) keys = json(keys[1]);
  const bool named = keys.is_array() && keys.size() == children.size() &&
                     std::ranges::all_of(keys, [](const json& key) { return key.is_string(); });
  for (std::size_t i = 0; i < children.size(); ++i) {
    const std::string key = named ? keys[i].get<std::string>() : std::to_string(i);
    if (!add_paths(children[i], prefix.empty() ? key : prefix + "." + key, level + 1, paths)) return false;
  }
  return true;
}

}  // namespace

void find_batch_dims(std::vector<InputSpec>& inputs, std::vector<OutputSpec>& outputs) {
  if (inputs.empty() || inputs[0].shape.empty()) return;
  const Dimension& first = inputs[0].shape[0];
  std::optional<std::string> symbol;
  if (!first.is_static() && std::ranges::all_of(inputs, [&](const InputSpec& input) {
        return !input.shape.empty() && !input.shape[0].is_static() && input.shape[0].symbol == first.symbol;
      })) {
    symbol = first.symbol;
  } else if (const std::vector<std::string> common = symbols_of_all(inputs); common.size() == 1) {
    symbol = common[0];
    for (InputSpec& input : inputs) input.batch_dim = only_dimension(input.shape, *symbol).value();
  }
  if (!symbol) return;
  for (OutputSpec& output : outputs) output.batch_dim = only_dimension(output.shape, *symbol).value_or(0);
}

std::vector<std::string> output_paths(const json& module) {
  try {
    const json& calls = module.at("module_call_graph");
    const json& spec = calls.at(0).at("signature").at("out_spec");
    const json tree = spec.is_string() ? parsed(spec.get<std::string>()) : spec;
    std::vector<std::string> paths;
    if (tree.is_array() && tree.size() == 2 && add_paths(tree[1], "", 0, paths)) return paths;
  } catch (const json::exception&) {  // names are a convenience: without them there are those of the graph
  }
  return {};
}

void Program::set_batch_dim(const std::string& name, std::int64_t dim) {
  bool found = false;
  const auto set = [&](auto& specs) {
    for (auto& spec : specs) {
      if (spec.name != name) continue;
      if (dim < 0 || dim >= static_cast<std::int64_t>(spec.shape.size()))
        throw UsageError("--batch-dim " + name + "=" + std::to_string(dim) + ": it has " +
                         std::to_string(spec.shape.size()) + " dimensions, numbered from 0");
      spec.batch_dim = dim;
      found = true;
    }
  };
  set(impl_->inputs);
  set(impl_->outputs);
  if (found) return;
  std::vector<std::string> names;
  for (const InputSpec& input : impl_->inputs) names.push_back(input.name);
  for (const OutputSpec& output : impl_->outputs) names.push_back(output.name);
  throw UsageError("--batch-dim: the model has no input or output " + quote(name) + did_you_mean(name, names) +
                   "; there are " + format_names(names) + ", and 'target'");
}

}  // namespace hesspect
