#include "command_words.h"

#include <algorithm>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"

namespace hesspect {
namespace {

[[noreturn]] void throw_unknown(const CommandWords& reader, const std::string& name, const OptionTable& table) {
  const auto first = name.find_first_not_of('-');
  std::string near = did_you_mean(first == std::string::npos ? name : name.substr(first), table.names());
  if (const auto mark = near.find('\''); mark != std::string::npos) near.insert(mark + 1, "--");
  throw UsageError("'" + reader.command + "' has no option '" + name + "'" + (near.empty() ? reader.hint : near));
}

std::string origin(const std::string& name, const Option& option, const std::string& value) {
  return option.value_name.empty() ? name : name + " " + value;
}

}  // namespace

std::vector<std::string> read_words(const CommandWords& reader, const OptionTable& table,
                                    const std::vector<std::string>& args) {
  std::vector<std::string> words;
  std::map<const Option*, std::vector<std::string>> given;
  for (auto arg = args.begin(); arg != args.end(); ++arg) {
    if (*arg == "--") {
      words.insert(words.end(), arg + 1, args.end());
      break;
    }
    if (!arg->starts_with("-") || *arg == "-") {
      words.push_back(*arg);
      if (!reader.until_first_word) continue;
      words.insert(words.end(), arg + 1, args.end());
      break;
    }
    const auto equals = arg->starts_with("--") ? arg->find('=') : std::string::npos;
    std::string name = arg->substr(0, equals);
    if (const auto alias = reader.aliases.find(name); alias != reader.aliases.end()) name = alias->second;
    if (name == "-h") name = "--help";
    const Option* const option = name.starts_with("--") ? table.find(name.substr(2)) : nullptr;
    if (option == nullptr) throw_unknown(reader, name, table);
    std::string value = "true";
    if (equals != std::string::npos) {
      value = arg->substr(equals + 1);
    } else if (!option->value_name.empty()) {
      if (++arg == args.end()) throw UsageError(name + ": a value is missing");
      value = *arg;
    }
    std::vector<std::string>& values = given[option];
    if (!option->repeatable && !values.empty()) throw UsageError(name + " is given twice");
    values.push_back(value);
    try {
      option->set(values);
    } catch (const UsageError& error) {
      throw UsageError(origin(name, *option, value) + ": " + error.what());
    }
  }
  return words;
}

}  // namespace hesspect
