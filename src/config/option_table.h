// The table of options: each has one name, the field it sets, and its bounds; Boost.Program_options reads the command
// line by it, environment and ini file use the same rows.
#pragma once

#include <boost/program_options/options_description.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "hesspect/config/run_config.h"
#include "hesspect/core/element_type.h"
#include "hesspect/core/random_probe.h"

namespace hesspect {

/// The text that stands for a value of an enum; "auto" for none.
template <class Enum>
std::string choice_text(Enum value) {
  return to_string(value);
}
template <class Enum>
std::string choice_text(const std::optional<Enum>& value) {
  return value ? choice_text(*value) : "auto";
}

/// One row. Values travel as text; `set` reads them and throws a UsageError that says only what is wrong with the
/// value.
struct Option {
  std::string name;
  std::string value_name;  // empty: a flag
  std::string help;
  bool repeatable = false;
  std::function<void(const std::vector<std::string>&)> set;
  std::function<std::vector<std::string>()> get;  // none where the option is unset
};

/// The options of one topic, as one block of the help text.
struct OptionGroup {
  std::string title;
  std::vector<Option> options;

  void text(std::string name, std::string& field, std::string value_name, std::string help);
  /// Texts, one for each time that the option is given.
  void texts(std::string name, std::vector<std::string>& field, std::string value_name, std::string help);
  void choice(std::string name, std::string& field, std::vector<std::string> choices, std::string help);
  /// One of the values of an enum, or of an optional one.
  template <class Value>
  void choice(std::string name, Value& field, const std::vector<Value>& values, std::string help) {
    std::vector<std::string> choices;
    choices.reserve(values.size());
    for (const Value& value : values) choices.push_back(choice_text(value));
    name_of_several(
        std::move(name), choices, [&field, values](std::size_t i) { field = values[i]; },
        [&field] { return choice_text(field); }, std::move(help));
  }
  /// An integer in [min, max].
  void integer(std::string name, std::int64_t& field, std::int64_t min, std::int64_t max, std::string help);
  /// An integer of at least 1, or the word, which stands for -1.
  void count_or(std::string name, std::int64_t& field, std::string word, std::string help);
  /// A number of bytes with an optional unit (K, M, G, T or KiB…: powers of 1024; KB…: of 1000). A word, where given,
  /// stands for -1.
  void bytes(std::string name, std::int64_t& field, std::string help, std::string word = "");
  void seed(std::string name, std::uint64_t& field, std::string help);
  /// A finite number in (above, below), or [above, below) where `closed`.
  void real(std::string name, double& field, double above, double below, bool closed, std::string help);
  void flag(std::string name, bool& field, std::string help);
  void distribution(std::string name, ProbeDistribution& field, std::string help);
  /// Numbers that are not negative, separated by commas, or a name.
  void numbers_or_array(std::string name, NumbersOrArray& field, std::string help);
  /// NAME=VALUE pairs, repeated or separated by commas. @param value_name  as the help text has it
  void pairs(std::string name, std::vector<std::pair<std::string, std::string>>& field, std::string value_name,
             std::string help);
  /// Finite numbers above 0, separated by commas; "none" for none.
  void numbers(std::string name, std::vector<double>& field, std::string help);
  /// Intervals "LOW:HIGH", or "W" for [−W, W], one at a time.
  void spans(std::string name, std::vector<std::pair<double, double>>& field, std::string help);

 private:
  /// @param set  takes the number of the name that was given
  void name_of_several(std::string name, const std::vector<std::string>& choices, std::function<void(std::size_t)> set,
                       std::function<std::string()> get, std::string help);
};

struct OptionTable {
  std::vector<OptionGroup> groups;

  const Option* find(const std::string& name) const;
  std::vector<std::string> names() const;
};

/// As Boost.Program_options' table; every value is taken as text.
boost::program_options::options_description boost_options(const OptionGroup& group);

}  // namespace hesspect
