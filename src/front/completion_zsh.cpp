#include "completion.h"
#include "hesspect/config/commands.h"

namespace hesspect {
namespace {

/// For a place in single quotes. @param marked  characters that mean something there
std::string zsh_text(const std::string& text, const std::string& marked) {
  std::string out;
  for (const char c : text) {
    if (marked.find(c) != std::string::npos) out += '\\';
    out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  }
  return out;
}

/// One argument of _arguments: '*--weights=[a state dict]:FILE|FOLDER:_files'.
std::string specification(const OptionText& option) {
  std::string text = std::string("'") + (option.repeatable ? "*" : "") + "--" + option.name +
                     (option.is_flag() ? "" : "=") + "[" + zsh_text(short_help(option), "[]\\") + "]";
  if (option.is_flag()) return text + "'";
  const std::vector<std::string> words = option.words();
  std::string action = " ";
  if (option.takes_folder_alone())
    action = "_files -/";
  else if (option.takes_file())
    action = "_files";
  else if (!words.empty())
    action = "(" + joined(words) + ")";
  return text + ":" + zsh_text(option.value_name, ":\\") + ":" + action + "'";
}

/// What _arguments is told of a command: its options, and that files may follow.
std::string specifications(const CompletedCommand& command) {
  std::string text = "_arguments -s -S";
  for (const OptionText& option : command.options) {
    text += " \\\n            " + specification(option);
    if (!option.letter.empty() && option.letter != "h")
      text += " \\\n            '-" + option.letter + specification(option).substr(specification(option).find('['));
  }
  return text + (command.takes_files ? " \\\n            '*:file:_files'" : "");
}

/// _hesspect_data and its like: behind the kind, its options.
std::string functions_of_kinds() {
  std::string text, name;
  const std::string end = "    *) _files ;;\n  esac\n}\n\n";
  for (const CompletedCommand& command : completed_python()) {
    if (command.kind.empty()) continue;
    if (command.name != name)
      text += (name.empty() ? "" : end) + "_hesspect_" + command.name + "() {\n  case $words[1] in\n";
    name = command.name;
    text += "    " + command.kind + ")\n          " + specifications(command) + "\n          ;;\n";
  }
  return text + (name.empty() ? "" : end);
}

std::string cases() {
  std::string text;
  for (const CompletedCommand& command : completed_commands()) {
    if (command.options.empty()) continue;
    text += "        " + command.name + ")\n          " + specifications(command);
    if (command.name == "run")
      text +=
          " \\\n            '-n[processes]:N: ' \\\n            '1:command:_hesspect_of_ranks' \\\n            '*:: "
          ":_hesspect_started'";
    text += "\n          ;;\n";
  }
  for (const CompletedCommand& command : completed_python())
    if (command.kind.empty())
      text += "        " + command.name + ")\n          " + specifications(command) + "\n          ;;\n";
  for (const CommandEntry& entry : command_entries()) {
    if (entry.kinds.empty()) continue;
    std::string kinds;
    for (const std::string_view kind : entry.kinds) kinds += (kinds.empty() ? "" : " ") + std::string(kind);
    text += "        " + std::string(entry.name) + ")\n          _arguments '1:kind:(" + kinds +
            ")' '*:: :" + (entry.home == CommandHome::kPython ? "_hesspect_" + std::string(entry.name) : "_files") +
            "'\n          ;;\n";
  }
  return text;
}

std::string described(CommandHome only, bool all) {
  std::string text;
  for (const CommandEntry& entry : command_entries())
    if (all || entry.home == only)
      text += "    '" + std::string(entry.name) + ":" + zsh_text(std::string(entry.about), "\\") + "'\n";
  return text;
}

}  // namespace

std::string zsh_completion() {
  return "#compdef hesspect\n# zsh's completion for hesspect, made by `hesspect completion zsh`.\n\n"
         "_hesspect_commands() {\n  local -a commands=(\n" +
         described(CommandHome::kOne, true) +
         "  )\n  _describe -t commands command commands\n}\n\n_hesspect_of_ranks() {\n  local -a commands=(\n" +
         described(CommandHome::kRanks, false) + described(CommandHome::kService, false) +
         "  )\n  _describe -t commands command commands\n}\n\n"
         "# Behind `run`: the command that it starts has its own options.\n"
         "_hesspect_started() { _hesspect_of_command }\n\n" +
         functions_of_kinds() + "_hesspect_of_command() {\n  local curcontext=$curcontext\n      case $words[1] in\n" +
         cases() +
         "        *) _files ;;\n      esac\n}\n\n"
         "_hesspect() {\n  local curcontext=$curcontext state line\n"
         "  _arguments -C '(- *)'{-h,--help}'[list the commands]' '(- *)--version[print versions]' \\\n"
         "    '1:command:_hesspect_commands' '*:: :_hesspect_of_command'\n}\n\n"
         "if [ \"$funcstack[1]\" = _hesspect ]; then _hesspect \"$@\"; else compdef _hesspect hesspect; fi\n";
}

}  // namespace hesspect
