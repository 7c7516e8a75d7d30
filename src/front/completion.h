// Scripts by which shells complete what hesspect takes, made from the table of options.
#pragma once

#include <string>
#include <vector>

#include "hesspect/config/option_list.h"

namespace hesspect {

std::string bash_completion();
std::string zsh_completion();
std::string fish_completion();

/// A command with its options, or one of its kinds, as `data text`; `run` with its own.
struct CompletedCommand {
  std::string name;
  std::string kind;  // empty where it has none
  std::vector<OptionText> options;
  bool takes_files = false;  // as words: `inspect FILE`
};

/// Those of this program, in the help text's order.
std::vector<CompletedCommand> completed_commands();

/// Those in Python, kind by kind.
std::vector<CompletedCommand> completed_python();

/// The names of a command's options, "--" before each.
std::vector<std::string> dashed_names(const CompletedCommand& command);

/// Each option of this program once, with the commands that have it.
struct CompletedOption {
  OptionText option;
  std::vector<std::string> commands;
};
std::vector<CompletedOption> completed_options();

std::string joined(const std::vector<std::string>& words, const std::string& between = " ");

/// The first part of an option's help, for a line of a menu.
std::string short_help(const OptionText& option);

}  // namespace hesspect
