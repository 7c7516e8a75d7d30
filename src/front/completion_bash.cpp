// The script keeps to bash 4 alone: no package of completions is needed.
#include "completion.h"
#include "hesspect/config/commands.h"

namespace hesspect {
namespace {

constexpr const char* kBody = R"BASH(
# The command on the line before the cursor, in `command`; behind `run`, the command that it starts, and `run` until
# there is one. In `kind` the word that follows it.
_hesspect_find() {
  local i word
  command='' kind=''
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    case $word in
      =) ((i++)) ;;
      -*)
        [ "${COMP_WORDS[i + 1]}" = = ] && continue
        _hesspect_value "$word"
        [ "$value" = none ] || ((i++))
        ;;
      *)
        if [ -z "$command" ] || [ "$command" = run ]; then command=$word; elif [ -z "$kind" ]; then kind=$word; fi
        ;;
    esac
  done
}

_hesspect() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command kind value words
  COMPREPLY=()
  if [ "$cur" = = ]; then
    cur=''
  elif [ "$prev" = = ]; then
    prev=${COMP_WORDS[COMP_CWORD - 2]}
  fi
  _hesspect_find
  value=none
  [[ $prev == -* ]] && _hesspect_value "$prev"
  case $value in
    none) ;;
    words*)
      mapfile -t COMPREPLY < <(compgen -W "${value#words}" -- "$cur")
      return
      ;;
    files* | folders)
      compopt -o filenames 2>/dev/null
      if [ "$value" = folders ]; then
        mapfile -t COMPREPLY < <(compgen -d -- "$cur")
      else
        mapfile -t COMPREPLY < <(compgen -W "${value#files}" -- "$cur"; compgen -f -- "$cur")
      fi
      return
      ;;
    *) return ;;
  esac
  _hesspect_words
  if [[ $cur == -* ]]; then
    _hesspect_options
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
  elif [ "$words" = files ]; then
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$cur")
  else
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
  fi
}
complete -F _hesspect hesspect
)BASH";

std::string option_cases() {
  std::string text = "_hesspect_options() {\n  case $command in\n";
  for (const CompletedCommand& command : completed_commands())
    text += "    " + command.name + ") words='" + joined(dashed_names(command)) + "' ;;\n";
  for (const CompletedCommand& command : completed_python())
    if (command.kind.empty()) text += "    " + command.name + ") words='" + joined(dashed_names(command)) + "' ;;\n";
  for (const CommandEntry& entry : command_entries()) {
    if (entry.kinds.empty() || entry.home != CommandHome::kPython) continue;
    text += "    " + std::string(entry.name) + ")\n      case $kind in\n";
    for (const CompletedCommand& command : completed_python())
      if (command.name == entry.name)
        text += "        " + command.kind + ") words='" + joined(dashed_names(command)) + "' ;;\n";
    text += "        *) words='--help' ;;\n      esac\n      ;;\n";
  }
  return text + "    '') words='--help --version' ;;\n    *) words='--help' ;;\n  esac\n}\n";
}

std::string completed_value(const OptionText& option) {
  const std::string words = joined(option.words());
  if (option.is_flag()) return "none";
  if (option.takes_folder_alone()) return "folders";
  if (option.takes_file()) return words.empty() ? "files" : "'files " + words + "'";
  return words.empty() ? "other" : "'words " + words + "'";
}

std::string value_cases() {
  std::string text =
      "\n# What the option takes, in `value`: none (a flag), words W …, files (or words as well), folders, or other. "
      "The\n"
      "# commands in Python have options of their own, some of the same names.\n"
      "_hesspect_value() {\n  case \"$command $kind $1\" in\n";
  for (const CompletedCommand& command : completed_python())
    for (const OptionText& option : command.options) {
      const std::string where = "    " + command.name + (command.kind.empty() ? "\\ *" : "\\ " + command.kind) + "\\ ";
      text += where + "--" + option.name + (option.letter.empty() ? "" : " |" + where.substr(3) + "-" + option.letter) +
              ") value=" + completed_value(option) + "; return ;;\n";
    }
  text += "  esac\n  case $1 in\n    -n) value=other ;;\n    -o) value=files ;;\n";
  for (const CompletedOption& each : completed_options())
    text += "    --" + each.option.name + ") value=" + completed_value(each.option) + " ;;\n";
  return text + "    *) value=none ;;\n  esac\n}\n";
}

std::string word_cases() {
  std::string commands, of_ranks, text;
  for (const CommandEntry& entry : command_entries()) {
    const std::string name(entry.name);
    commands += (commands.empty() ? "" : " ") + name;
    if (is_for_ranks(entry.home)) of_ranks += (of_ranks.empty() ? "" : " ") + name;
    if (entry.kinds.empty()) continue;
    std::string kinds;
    for (const std::string_view kind : entry.kinds) kinds += (kinds.empty() ? "" : " ") + std::string(kind);
    text += "    " + name + ") if [ -z \"$kind\" ]; then words='" + kinds + "'; else words=files; fi ;;\n";
  }
  return "\n# The words that may stand here, in `words`: commands, kinds, or `files`.\n_hesspect_words() {\n  "
         "case $command in\n    '') words='" +
         commands + " help' ;;\n    help) words='" + commands + "' ;;\n    run) words='" + of_ranks + "' ;;\n" + text +
         "    " +
         joined(
             [&] {
               std::vector<std::string> silent;
               for (const CommandEntry& entry : command_entries())
                 if (is_for_ranks(entry.home)) silent.emplace_back(entry.name);
               silent.emplace_back("man");
               return silent;
             }(),
             " | ") +
         ") words='' ;;\n    *) words=files ;;\n  esac\n}\n";
}

}  // namespace

std::string bash_completion() {
  return "# bash's completion for hesspect, made by `hesspect completion bash`.\n" + option_cases() + value_cases() +
         word_cases() + kBody;
}

}  // namespace hesspect
