#include "hesspect/curvature/parts.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <regex>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/model/parameter_layout.h"
#include "part_selection.h"

namespace hesspect {
namespace {

constexpr std::size_t kLeastInCommon = 3;  // letters of a near name
constexpr std::size_t kNearNames = 5;

std::vector<std::string> names_of(const ParameterEntry& entry) {
  std::vector<std::string> names{entry.name};
  names.insert(names.end(), entry.aliases.begin(), entry.aliases.end());
  return names;
}

std::regex compiled(const std::string& option, const std::string& pattern) {
  try {
    return std::regex(pattern, std::regex::ECMAScript);
  } catch (const std::regex_error&) {
    throw UsageError("--" + option + " " + quote(pattern) + " is no regular expression (ECMAScript's)");
  }
}

/// The length of the longest text that both have.
std::size_t in_common(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1, 0);
  std::size_t longest = 0;
  for (const char c : a)
    for (std::size_t j = b.size(); j > 0; --j) {
      row[j] = c == b[j - 1] ? row[j - 1] + 1 : 0;
      longest = std::max(longest, row[j]);
    }
  return longest;
}

/// " (near it: …)": the names that share most with the pattern's letters; where none does, the first ones.
std::string near_names(const ParameterLayout& layout, const std::string& pattern) {
  const auto is_name = [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '.'; };
  std::string letters;
  for (const char c : pattern)
    if (is_name(static_cast<unsigned char>(c))) letters += c;
  std::vector<std::pair<std::size_t, std::string>> ranked;
  for (const ParameterEntry& entry : layout.entries())
    for (const std::string& name : names_of(entry)) ranked.emplace_back(in_common(letters, name), name);
  std::stable_sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  const bool near = !ranked.empty() && ranked.front().first >= kLeastInCommon;
  std::vector<std::string> names;
  for (const auto& [common, name] : ranked)
    if (!near || common == ranked.front().first) names.push_back(quote(name));
  return std::string(near ? "; near it: " : "; its parameters are ") + format_names(names, kNearNames);
}

std::string module_of(const std::string& name) {
  const std::size_t dot = name.rfind('.');
  return dot == std::string::npos ? name : name.substr(0, dot);
}

std::string stage_of(const std::string& module) {
  for (std::size_t begin = 0; begin < module.size();) {
    const std::size_t end = std::min(module.find('.', begin), module.size());
    if (end > begin && std::isdigit(static_cast<unsigned char>(module[end - 1])) != 0) return module.substr(0, end);
    begin = end + 1;
  }
  return module;
}

std::string group_of(const std::string& name, ParameterGrouping grouping) {
  if (grouping == ParameterGrouping::kTensor) return name;
  const std::string module = module_of(name);
  // A parameter of the model itself belongs to no module.
  if (grouping == ParameterGrouping::kLayer || module == name) return module;
  return stage_of(module);
}

/// The entries of one tensor that are selected.
/// @throws InputError for an index that it does not have
void add_ranges(const std::string& block, const ParameterEntry& entry, const Selection& selection,
                std::vector<IndexRange>& ranges) {
  if (selection.indices.empty()) {
    ranges.push_back({entry.offset, entry.offset + entry.numel});
    return;
  }
  const std::size_t d = selection.dimension;
  const std::int64_t size = d < entry.shape.size() ? entry.shape[d] : 0;
  for (const IndexRange& index : selection.indices)
    if (index.end > size)
      throw InputError("--block " + block + ": parameter " + quote(entry.name) + " of shape " +
                       format_shape(entry.shape) + " has no " + kDimensionNames[d] + " " +
                       std::to_string(std::max(index.begin, size)) +
                       (size > 0 ? ": they are numbered 0 to " + std::to_string(size - 1) : ""));
  std::int64_t outer = 1, inner = 1;
  for (std::size_t i = 0; i < entry.shape.size(); ++i) (i < d ? outer : inner) *= i == d ? 1 : entry.shape[i];
  for (std::int64_t o = 0; o < outer; ++o)
    for (const IndexRange& index : selection.indices)
      ranges.push_back(
          {entry.offset + (o * size + index.begin) * inner, entry.offset + (o * size + index.end) * inner});
}

}  // namespace

Part assembled(const ParameterLayout& layout, std::string name, std::vector<IndexRange> ranges) {
  Part part{std::move(name), {}, {}};
  std::ranges::sort(ranges, {}, &IndexRange::begin);
  for (const IndexRange& range : ranges) {
    if (range.size() == 0) continue;
    if (!part.ranges.empty() && part.ranges.back().end >= range.begin)
      part.ranges.back().end = std::max(part.ranges.back().end, range.end);
    else
      part.ranges.push_back(range);
  }
  const std::vector<bool> chosen = tensors_in(layout, part.ranges);
  for (std::size_t i = 0; i < chosen.size(); ++i)
    if (chosen[i]) part.tensors.push_back(layout.entries()[i].name);
  return part;
}

Selection selection_from(const std::string& option, const std::string& text) {
  Selection selection{text, 0, {}};
  for (std::size_t d = 0; d < std::size(kDimensionNames); ++d) {
    const std::string mark = std::string("@") + kDimensionNames[d] + "=";
    const std::size_t at = text.rfind(mark);
    if (at == std::string::npos) continue;
    selection.pattern = text.substr(0, at);
    selection.dimension = d;
    static const std::regex kItem("(\\d{1,15})(?:-(\\d{1,15}))?");
    for (std::size_t begin = at + mark.size(); begin <= text.size();) {
      const std::size_t end = std::min(text.find(',', begin), text.size());
      const std::string item = text.substr(begin, end - begin);
      std::smatch found;
      if (!std::regex_match(item, found, kItem))
        throw UsageError(option + ": expected " + mark + "3,10-19 after the expression, got " + quote(item));
      const std::int64_t first = std::stoll(found[1]), last = found[2].matched ? std::stoll(found[2]) : first;
      if (last < first) throw UsageError(option + ": " + mark + item + " ends before it begins");
      selection.indices.push_back({first, last + 1});
      begin = end + 1;
    }
  }
  return selection;
}

std::int64_t Part::size() const {
  std::int64_t size = 0;
  for (const IndexRange& range : ranges) size += range.size();
  return size;
}

std::vector<bool> tensors_in(const ParameterLayout& layout, const std::vector<IndexRange>& ranges) {
  std::vector<bool> chosen;
  std::size_t next = 0;
  for (const ParameterEntry& entry : layout.entries()) {
    while (next < ranges.size() && ranges[next].end <= entry.offset) ++next;
    chosen.push_back(entry.numel > 0 && next < ranges.size() && ranges[next].begin < entry.offset + entry.numel);
  }
  return chosen;
}

std::vector<bool> matching(const ParameterLayout& layout, const std::string& option,
                           const std::vector<std::string>& patterns) {
  std::vector<bool> chosen(layout.entries().size(), false);
  for (const std::string& pattern : patterns) {
    const std::regex regex = compiled(option, pattern);
    bool any = false;
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      const std::vector<std::string> names = names_of(layout.entries()[i]);
      if (!std::ranges::any_of(names, [&](const std::string& name) { return std::regex_search(name, regex); }))
        continue;
      chosen[i] = any = true;
    }
    if (!any)
      throw InputError("--" + option + " " + quote(pattern) + " matches none of the model's " +
                       format_count(static_cast<std::int64_t>(chosen.size())) + " parameters" +
                       near_names(layout, pattern));
  }
  return chosen;
}

Part part_of(const ParameterLayout& layout, std::string name, const std::vector<bool>& chosen) {
  std::vector<IndexRange> ranges;
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const ParameterEntry& entry = layout.entries()[i];
    if (chosen[i]) ranges.push_back({entry.offset, entry.offset + entry.numel});
  }
  return assembled(layout, std::move(name), std::move(ranges));
}

std::vector<Part> named_parts(const ParameterLayout& layout,
                              const std::vector<std::pair<std::string, std::string>>& patterns) {
  std::vector<std::string> names;
  std::map<std::string, std::vector<IndexRange>> by_name;
  for (const auto& [name, pattern] : patterns) {
    if (!by_name.contains(name)) names.push_back(name);
    const Selection selection = selection_from("--block " + name, pattern);
    const std::vector<bool> chosen = matching(layout, "block " + name, {selection.pattern});
    for (std::size_t i = 0; i < chosen.size(); ++i)
      if (chosen[i]) add_ranges(name, layout.entries()[i], selection, by_name[name]);
  }
  std::vector<Part> parts;
  for (const std::string& name : names) parts.push_back(assembled(layout, name, std::move(by_name[name])));
  return parts;
}

std::vector<Part> grouped_parts(const ParameterLayout& layout, ParameterGrouping grouping) {
  std::vector<std::string> names;
  std::map<std::string, std::vector<bool>> by_name;
  for (std::size_t i = 0; i < layout.entries().size(); ++i) {
    const std::string name = group_of(layout.entries()[i].name, grouping);
    const auto [at, fresh] = by_name.try_emplace(name, layout.entries().size(), false);
    if (fresh) names.push_back(name);
    at->second[i] = true;
  }
  std::vector<Part> parts;
  for (const std::string& name : names)
    if (Part part = part_of(layout, name, by_name[name]); part.size() > 0) parts.push_back(std::move(part));
  return parts;
}

std::int64_t count_outside(const ParameterLayout& layout, const std::vector<Part>& parts, std::string& overlap) {
  std::vector<IndexRange> all;
  for (const Part& part : parts) all.insert(all.end(), part.ranges.begin(), part.ranges.end());
  std::ranges::sort(all, {}, &IndexRange::begin);
  overlap.clear();
  std::int64_t end = 0, inside = 0;
  for (const IndexRange& range : all) {
    if (range.begin < end && overlap.empty())
      for (const ParameterEntry& entry : layout.entries())
        if (entry.offset <= range.begin && range.begin < entry.offset + entry.numel) overlap = entry.name;
    inside += std::max<std::int64_t>(0, range.end - std::max(range.begin, end));
    end = std::max(end, range.end);
  }
  return layout.size() - inside;
}

}  // namespace hesspect
