#include "hesspect/curvature/parts.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <regex>

#include "feature_pieces.h"
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

/// What of a [ascending, apart] is in none of b's [likewise].
std::vector<IndexRange> without(const std::vector<IndexRange>& a, const std::vector<IndexRange>& b) {
  std::vector<IndexRange> rest;
  std::size_t next = 0;
  for (IndexRange range : a) {
    while (next < b.size() && b[next].end <= range.begin) ++next;
    for (std::size_t i = next; i < b.size() && b[i].begin < range.end; ++i) {
      if (b[i].begin > range.begin) rest.push_back({range.begin, b[i].begin});
      range.begin = std::max(range.begin, b[i].end);
    }
    if (range.begin < range.end) rest.push_back(range);
  }
  return rest;
}

/// The model's numbers of entries of the flat vector.
std::vector<IndexRange> in_model(const ParameterLayout& layout, const std::vector<IndexRange>& ranges) {
  const std::shared_ptr<const EntryNumbers> numbers = layout.numbers();
  if (numbers == nullptr) return ranges;
  std::vector<IndexRange> model;
  for (const IndexRange& range : ranges)
    numbers->for_each(range.begin, range.size(), [&](std::int64_t, std::int64_t number, std::int64_t count) {
      if (!model.empty() && model.back().end == number)
        model.back().end += count;
      else
        model.push_back({number, number + count});
    });
  return model;
}

std::int64_t total(const std::vector<IndexRange>& ranges) {
  std::int64_t size = 0;
  for (const IndexRange& range : ranges) size += range.size();
  return size;
}

/// Entries in any of the parts. @param begin  of a range that is in two of them, the first one; -1: none is
std::int64_t count_inside(std::vector<IndexRange> ranges, std::int64_t& twice) {
  std::ranges::sort(ranges, {}, &IndexRange::begin);
  std::int64_t end = 0, inside = 0;
  twice = -1;
  for (const IndexRange& range : ranges) {
    if (range.begin < end && twice < 0) twice = range.begin;
    inside += std::max<std::int64_t>(0, range.end - std::max(range.begin, end));
    end = std::max(end, range.end);
  }
  return inside;
}

}  // namespace

Part assembled(const ParameterLayout& layout, std::string name, std::vector<IndexRange> ranges) {
  Part part{std::move(name), merged(std::move(ranges)), {}};
  const std::vector<bool> chosen = tensors_in(layout, part.ranges);
  for (std::size_t i = 0; i < chosen.size(); ++i)
    if (chosen[i]) part.tensors.push_back(layout.entries()[i].name);
  auto numbers = std::make_shared<EntryNumbers>();
  for (const IndexRange& range : in_model(layout, part.ranges)) numbers->add(range.begin, range.size());
  part.numbers = std::move(numbers);
  return part;
}

Part assembled(const ParameterLayout& layout, std::string name, std::vector<IndexRange> ranges,
               std::vector<IndexRange> model) {
  Part part = assembled(layout, std::move(name), std::move(ranges));
  if (layout.numbers() == nullptr) return part;
  part.left_out = without(merged(std::move(model)), in_model(layout, part.ranges));
  std::vector<std::string> tensors;
  for (const ParameterEntry& entry : layout.entries()) {
    const IndexRange own{entry.model_offset, entry.model_offset + entry.model_numel};
    const bool has_entries = std::ranges::find(part.tensors, entry.name) != part.tensors.end();
    if (has_entries || total(without({own}, part.left_out)) < own.size()) tensors.push_back(entry.name);
  }
  part.tensors = std::move(tensors);
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

std::int64_t Part::size() const { return total(ranges); }
std::int64_t Part::zeros() const { return total(left_out); }

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
  std::vector<IndexRange> ranges, model;
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const ParameterEntry& entry = layout.entries()[i];
    if (!chosen[i]) continue;
    ranges.push_back({entry.offset, entry.offset + entry.numel});
    model.push_back({entry.model_offset, entry.model_offset + entry.model_numel});
  }
  return assembled(layout, std::move(name), std::move(ranges), std::move(model));
}

std::vector<Part> named_parts(const ParameterLayout& layout,
                              const std::vector<std::pair<std::string, std::string>>& patterns) {
  std::vector<Part> parts;
  for (const Feature& named : named_pieces(layout, "block", patterns))
    parts.push_back(assembled(layout, named.name, ranges_in_use(layout, named, {}), model_ranges(layout, named)));
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
    if (Part part = part_of(layout, name, by_name[name]); part.size() + part.zeros() > 0)
      parts.push_back(std::move(part));
  return parts;
}

std::int64_t count_outside(const ParameterLayout& layout, const std::vector<Part>& parts, std::string& overlap) {
  std::vector<IndexRange> held, left_out;
  for (const Part& part : parts) {
    const std::vector<IndexRange> model = in_model(layout, part.ranges);
    held.insert(held.end(), model.begin(), model.end());
    left_out.insert(left_out.end(), part.left_out.begin(), part.left_out.end());
  }
  std::int64_t held_twice = -1, left_out_twice = -1;
  const std::int64_t inside =
      count_inside(std::move(held), held_twice) + count_inside(std::move(left_out), left_out_twice);
  overlap.clear();
  for (const std::int64_t twice : {held_twice, left_out_twice})
    for (const ParameterEntry& entry : layout.entries())
      if (overlap.empty() && entry.model_offset <= twice && twice < entry.model_offset + entry.model_numel)
        overlap = entry.name;
  return layout.model_size() - inside;
}

}  // namespace hesspect
