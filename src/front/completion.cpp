#include "completion.h"

#include <algorithm>
#include <string_view>

#include "hesspect/config/commands.h"
#include "hesspect/config/options.h"
#include "hesspect/config/service_options.h"

namespace hesspect {
namespace {

constexpr std::size_t kLongestHelp = 90;

std::vector<OptionText> options_of_command(const CommandEntry& entry) {
  if (entry.name == "run") return launch_topic().options;
  if (entry.home == CommandHome::kService || is_queue_command(entry.name)) return service_topic(entry.name).options;
  if (entry.home == CommandHome::kFront) return {};
  std::vector<OptionText> all;
  for (const OptionTopic& topic : options_of(command_from(std::string(entry.name))))
    all.insert(all.end(), topic.options.begin(), topic.options.end());
  return all;
}

}  // namespace

std::vector<CompletedCommand> completed_commands() {
  std::vector<CompletedCommand> all;
  for (const CommandEntry& entry : command_entries())
    if (entry.home != CommandHome::kPython)
      all.push_back({std::string(entry.name), "", options_of_command(entry), entry.home == CommandHome::kOne});
  return all;
}

std::vector<CompletedCommand> completed_python() {
  std::vector<CompletedCommand> all;
  for (const PythonCommand& command : python_commands())
    all.push_back({command.name, command.kind, command.options, true});
  return all;
}

std::vector<std::string> dashed_names(const CompletedCommand& command) {
  std::vector<std::string> names;
  for (const OptionText& option : command.options) names.push_back("--" + option.name);
  return names;
}

std::vector<CompletedOption> completed_options() {
  std::vector<CompletedOption> all;
  for (const CompletedCommand& command : completed_commands())
    for (const OptionText& option : command.options) {
      // `run` has a --help of its own, with the same words.
      auto same = std::ranges::find_if(all, [&](const CompletedOption& o) { return o.option.name == option.name; });
      if (same == all.end()) same = all.insert(all.end(), {option, {}});
      same->commands.push_back(command.name);
    }
  return all;
}

std::string joined(const std::vector<std::string>& words, const std::string& between) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : between) + word;
  return text;
}

std::string short_help(const OptionText& option) {
  std::string text = option.help.substr(0, option.help.find(" (default"));
  for (const std::string_view end : {"; ", " (", ": "})
    if (const auto at = text.find(end, 12); at != std::string::npos) text.resize(at);
  if (text.size() > kLongestHelp) text.resize(text.rfind(' ', kLongestHelp));
  return text;
}

}  // namespace hesspect
