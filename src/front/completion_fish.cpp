#include "completion.h"
#include "hesspect/config/commands.h"

namespace hesspect {
namespace {

std::string fish_text(const std::string& text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + "'";
}

std::string option_line(const OptionText& option, const std::string& condition) {
  std::string text = "complete -c hesspect -n '" + condition + "' -l " + option.name;
  if (option.name == "help") text += " -s h";
  if (option.name == "ranks") text += " -s n";
  if (!option.letter.empty() && option.letter != "h") text += " -s " + option.letter;
  if (!option.is_flag()) {
    const std::vector<std::string> words = option.words();
    if (option.takes_folder_alone())
      text += " -x -a '(__fish_complete_directories)'";
    else if (option.takes_file())
      text += " -r -F";
    else
      text += " -x";
    if (!words.empty()) text += " -a " + fish_text(joined(words));
  }
  return text + " -d " + fish_text(short_help(option)) + "\n";
}

}  // namespace

std::string fish_completion() {
  std::string text =
      "# fish's completion for hesspect, made by `hesspect completion fish`.\n"
      "complete -c hesspect -f\n"
      "complete -c hesspect -n __fish_use_subcommand -s h -l help -d 'list the commands'\n"
      "complete -c hesspect -n __fish_use_subcommand -l version -d 'print versions'\n";
  std::string of_ranks, with_files;
  for (const CommandEntry& entry : command_entries()) {
    const std::string name(entry.name), about = fish_text(std::string(entry.about));
    text += "complete -c hesspect -n __fish_use_subcommand -a " + name + " -d " + about + "\n";
    if (is_for_ranks(entry.home)) of_ranks += " " + name;
    const bool has_files = entry.home == CommandHome::kOne || entry.home == CommandHome::kPython;
    if (has_files && entry.kinds.empty()) with_files += " " + name;
  }
  for (const CommandEntry& entry : command_entries()) {
    const std::string name(entry.name);
    if (is_for_ranks(entry.home))
      text += "complete -c hesspect -n '__fish_seen_subcommand_from run; and not __fish_seen_subcommand_from" +
              of_ranks + "' -a " + name + " -d " + fish_text(std::string(entry.about)) + "\n";
    std::string kinds;
    for (const std::string_view kind : entry.kinds) kinds += (kinds.empty() ? "" : " ") + std::string(kind);
    if (kinds.empty()) continue;
    const std::string seen = "complete -c hesspect -n '__fish_seen_subcommand_from " + name;
    text += seen + "; and not __fish_seen_subcommand_from " + kinds + "' -a '" + kinds + "'\n";
    if (entry.home == CommandHome::kPython) text += seen + "; and __fish_seen_subcommand_from " + kinds + "' -F\n";
  }
  text += "complete -c hesspect -n '__fish_seen_subcommand_from" + with_files + "' -F\n";
  for (const CompletedOption& each : completed_options())
    text += option_line(each.option, "__fish_seen_subcommand_from " + joined(each.commands));
  for (const CompletedCommand& command : completed_python()) {
    std::string condition = "__fish_seen_subcommand_from " + command.name;
    if (!command.kind.empty()) condition += "; and __fish_seen_subcommand_from " + command.kind;
    for (const OptionText& option : command.options) text += option_line(option, condition);
  }
  return text;
}

}  // namespace hesspect
