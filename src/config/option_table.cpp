#include "option_table.h"

#include <algorithm>
#include <boost/program_options/value_semantic.hpp>
#include <cctype>
#include <charconv>
#include <cmath>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"

namespace hesspect {
namespace {

using Values = std::vector<std::string>;

std::string listed(const Values& names) {
  std::string text;
  for (std::size_t i = 0; i < names.size(); ++i)
    text += (i == 0 ? "" : i + 1 == names.size() ? " or " : ", ") + names[i];
  return text;
}

template <class Number>
bool read_number(const std::string& text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

std::string number_text(double value) {
  char buffer[40];
  const auto result = std::to_chars(buffer, buffer + sizeof buffer, value);
  return std::string(buffer, result.ptr);
}

bool read_bytes(const std::string& text, std::int64_t& bytes) {
  const std::size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  double number = 0;
  if (!read_number(text.substr(0, digits), number)) return false;
  const std::string unit = text.substr(digits);
  double factor = 1;
  if (!unit.empty() && unit != "B") {
    const std::size_t power = std::string("KMGT").find(static_cast<char>(std::toupper(unit[0])));
    const std::string rest = unit.substr(1);
    if (power == std::string::npos || (!rest.empty() && rest != "B" && rest != "iB")) return false;
    factor = std::pow(rest == "B" ? 1000.0 : 1024.0, static_cast<double>(power + 1));
  }
  if (!(number * factor < 9e18)) return false;
  bytes = static_cast<std::int64_t>(number * factor);
  return true;
}

std::string integer_bounds(std::int64_t min, std::int64_t max) {
  if (max == INT64_MAX) return min == INT64_MIN ? "" : ", at least " + std::to_string(min);
  return " from " + std::to_string(min) + " to " + std::to_string(max);
}

std::string trimmed(const std::string& text) {
  const auto first = text.find_first_not_of(" \t");
  return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

Values split_at_commas(const std::string& text) {
  Values items;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    items.push_back(trimmed(text.substr(begin, end - begin)));
    begin = end + 1;
  }
  return items;
}

NumbersOrArray read_numbers_or_array(const std::string& text) {
  NumbersOrArray value;
  std::size_t unread = 0;
  bool usable = true;
  for (const std::string& item : split_at_commas(text)) {
    double number = 0;
    if (!read_number(item, number)) {
      ++unread;
      continue;
    }
    usable = usable && std::isfinite(number) && number >= 0;
    value.numbers.push_back(number);
  }
  if (value.numbers.empty()) value.array = trimmed(text);
  if (!value.given() || !usable || (unread > 0 && !value.numbers.empty()))
    throw UsageError("expected numbers that are not negative, separated by commas, or the name of an array");
  return value;
}

std::pair<double, double> read_span(const std::string& text) {
  const auto colon = text.find(':');
  double low = 0, high = 0;
  bool read = read_number(text.substr(colon == std::string::npos ? 0 : colon + 1), high);
  if (colon == std::string::npos)
    low = -high;
  else
    read = read_number(text.substr(0, colon), low) && read;
  if (!read || !std::isfinite(low) || !std::isfinite(high))
    throw UsageError("expected W or LOW:HIGH, as 0.5 or -0.5:1.5");
  if (!(low < high)) throw UsageError("the span is empty: its low end is not below its high end");
  return {low, high};
}

}  // namespace

void OptionGroup::text(std::string name, std::string& field, std::string value_name, std::string help) {
  options.push_back({std::move(name), std::move(value_name), std::move(help), false,
                     [&field](const Values& v) {
                       if (v.back().empty()) throw UsageError("a value is missing");
                       field = v.back();
                     },
                     [&field] { return field.empty() ? Values{} : Values{field}; }});
}

void OptionGroup::texts(std::string name, Values& field, std::string value_name, std::string help) {
  options.push_back({std::move(name), std::move(value_name), std::move(help), true,
                     [&field](const Values& values) {
                       for (const auto& value : values)
                         if (value.empty()) throw UsageError("a value is missing");
                       field = values;
                     },
                     [&field] { return field; }});
}

void OptionGroup::choice(std::string name, std::string& field, Values choices, std::string help) {
  name_of_several(
      std::move(name), choices, [&field, choices](std::size_t i) { field = choices[i]; }, [&field] { return field; },
      std::move(help));
}

void OptionGroup::name_of_several(std::string name, const Values& choices, std::function<void(std::size_t)> set,
                                  std::function<std::string()> get, std::string help) {
  std::string value_name;
  for (const auto& c : choices) value_name += (value_name.empty() ? "" : "|") + c;
  options.push_back({std::move(name), value_name, std::move(help), false,
                     [set = std::move(set), choices](const Values& v) {
                       const auto found = std::find(choices.begin(), choices.end(), v.back());
                       if (found == choices.end())
                         throw UsageError("expected " + listed(choices) + did_you_mean(v.back(), choices));
                       set(static_cast<std::size_t>(found - choices.begin()));
                     },
                     [get = std::move(get)] {
                       const std::string text = get();
                       return text.empty() ? Values{} : Values{text};
                     }});
}

void OptionGroup::integer(std::string name, std::int64_t& field, std::int64_t min, std::int64_t max, std::string help) {
  options.push_back({std::move(name), "N", std::move(help), false,
                     [&field, min, max](const Values& v) {
                       std::int64_t number = 0;
                       if (!read_number(v.back(), number) || number < min || number > max)
                         throw UsageError("expected an integer" + integer_bounds(min, max));
                       field = number;
                     },
                     [&field] { return Values{std::to_string(field)}; }});
}

void OptionGroup::bytes(std::string name, std::int64_t& field, std::string help, std::string word) {
  options.push_back({std::move(name), word.empty() ? "SIZE" : word + "|SIZE", std::move(help), false,
                     [&field, word](const Values& v) {
                       if (!word.empty() && v.back() == word) {
                         field = -1;
                       } else if (!read_bytes(v.back(), field)) {
                         throw UsageError("expected " + (word.empty() ? "" : word + " or ") +
                                          "a number of bytes such as 500M, 80G or 1.5TiB");
                       }
                     },
                     [&field, word] { return Values{field < 0 ? word : std::to_string(field)}; }});
}

void OptionGroup::seed(std::string name, std::uint64_t& field, std::string help) {
  options.push_back({std::move(name), "N", std::move(help), false,
                     [&field](const Values& v) {
                       std::uint64_t number = 0;
                       if (!read_number(v.back(), number)) throw UsageError("expected an integer from 0 to 2^64 - 1");
                       field = number;
                     },
                     [&field] { return Values{std::to_string(field)}; }});
}

void OptionGroup::real(std::string name, double& field, double above, double below, bool closed, std::string help) {
  std::string bounds = std::string(closed ? ", at least " : " above ") + number_text(above);
  if (std::isfinite(below)) bounds += " and below " + number_text(below);
  options.push_back({std::move(name), "X", std::move(help), false,
                     [&field, above, below, closed, bounds](const Values& v) {
                       double number = 0;
                       if (!read_number(v.back(), number) || !std::isfinite(number) || number >= below ||
                           (closed ? number < above : number <= above))
                         throw UsageError("expected a number" + bounds);
                       field = number;
                     },
                     [&field] { return Values{number_text(field)}; }});
}

void OptionGroup::flag(std::string name, bool& field, std::string help) {
  options.push_back({std::move(name), "", std::move(help), false,
                     [&field](const Values& v) {
                       if (v.back() == "true" || v.back() == "1" || v.back() == "yes" || v.back() == "on") {
                         field = true;
                       } else if (v.back() == "false" || v.back() == "0" || v.back() == "no" || v.back() == "off") {
                         field = false;
                       } else {
                         throw UsageError("expected true or false");
                       }
                     },
                     [&field] { return Values{field ? "true" : "false"}; }});
}

void OptionGroup::distribution(std::string name, ProbeDistribution& field, std::string help) {
  options.push_back({std::move(name), "rademacher|gaussian|spherical", std::move(help), false,
                     [&field](const Values& v) { field = probe_distribution_from(v.back()); },
                     [&field] { return Values{std::string(to_string(field))}; }});
}

void OptionGroup::count_or(std::string name, std::int64_t& field, std::string word, std::string help) {
  options.push_back({std::move(name), word + "|N", std::move(help), false,
                     [&field, word](const Values& v) {
                       std::int64_t number = 0;
                       if (v.back() != word && (!read_number(v.back(), number) || number < 1))
                         throw UsageError("expected " + word + " or an integer of at least 1");
                       field = v.back() == word ? -1 : number;
                     },
                     [&field, word] { return Values{field < 0 ? word : std::to_string(field)}; }});
}

void OptionGroup::numbers_or_array(std::string name, NumbersOrArray& field, std::string help) {
  options.push_back({std::move(name), "X,X,…|DATASET", std::move(help), false,
                     [&field](const Values& v) { field = read_numbers_or_array(v.back()); },
                     [&field] {
                       std::string text = field.array;
                       for (const double number : field.numbers)
                         text += (text.empty() ? "" : ",") + number_text(number);
                       return text.empty() ? Values{} : Values{text};
                     }});
}

void OptionGroup::pairs(std::string name, std::vector<std::pair<std::string, std::string>>& field,
                        std::string value_name, std::string help) {
  options.push_back({std::move(name), "NAME=" + value_name, std::move(help), true,
                     [&field, value_name](const Values& values) {
                       std::vector<std::pair<std::string, std::string>> pairs;
                       for (const auto& value : values) {
                         for (const std::string& item : split_at_commas(value)) {
                           const auto equals = item.find('=');
                           const std::string key = trimmed(item.substr(0, equals));
                           const std::string array =
                               equals == std::string::npos ? "" : trimmed(item.substr(equals + 1));
                           if (key.empty() || array.empty())
                             throw UsageError("expected NAME=" + value_name + ", got '" + item + "'");
                           for (const auto& [other, other_array] : pairs)
                             if (other == key) throw UsageError("'" + key + "' is given twice");
                           pairs.emplace_back(key, array);
                         }
                       }
                       field = std::move(pairs);
                     },
                     [&field] {
                       Values values;
                       for (const auto& [key, array] : field) values.push_back(key + "=" + array);
                       return values;
                     }});
}

void OptionGroup::numbers(std::string name, std::vector<double>& field, std::string help) {
  options.push_back({std::move(name), "X,X,…|none", std::move(help), false,
                     [&field](const Values& v) {
                       std::vector<double> numbers;
                       for (const std::string& item : v.back() == "none" ? Values{} : split_at_commas(v.back())) {
                         double number = 0;
                         if (!read_number(item, number) || !std::isfinite(number) || number <= 0)
                           throw UsageError("expected numbers above 0, separated by commas, or none");
                         numbers.push_back(number);
                       }
                       field = std::move(numbers);
                     },
                     [&field] {
                       std::string text;
                       for (const double number : field) text += (text.empty() ? "" : ",") + number_text(number);
                       return Values{text.empty() ? "none" : text};
                     }});
}

void OptionGroup::spans(std::string name, std::vector<std::pair<double, double>>& field, std::string help) {
  options.push_back({std::move(name), "W|LOW:HIGH", std::move(help), true,
                     [&field](const Values& values) {
                       field.clear();
                       for (const std::string& value : values) field.push_back(read_span(value));
                     },
                     [&field] {
                       Values values;
                       for (const auto& [low, high] : field)
                         values.push_back(number_text(low) + ":" + number_text(high));
                       return values;
                     }});
}

const Option* OptionTable::find(const std::string& name) const {
  for (const auto& group : groups)
    for (const auto& option : group.options)
      if (option.name == name) return &option;
  return nullptr;
}

std::vector<std::string> OptionTable::names() const {
  std::vector<std::string> all;
  for (const auto& group : groups)
    for (const auto& option : group.options) all.push_back(option.name);
  return all;
}

boost::program_options::options_description boost_options(const OptionGroup& group) {
  namespace po = boost::program_options;
  po::options_description description(group.title);
  for (const auto& option : group.options) {
    auto* value = po::value<Values>()->value_name(option.value_name);
    if (option.value_name.empty()) value->implicit_value(Values{"true"}, "");
    const std::string name = option.name == "help" ? "help,h" : option.name;
    description.add_options()(name.c_str(), value);
  }
  return description;
}

}  // namespace hesspect
