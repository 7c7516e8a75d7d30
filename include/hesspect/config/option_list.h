// The table of options as people see it: for the help text, shells' completion and the manual page.
#pragma once

#include <string>
#include <vector>

#include "hesspect/config/run_config.h"

namespace hesspect {

struct OptionText {
  std::string name;        // "micro-batch"
  std::string value_name;  // "N", "FILE|FOLDER", "auto|off"; empty: a flag
  std::string help;
  std::vector<std::string> present;  // the default; none: unset
  bool repeatable = false;
  std::string letter = {};  // a short name, as "o"

  bool is_flag() const { return value_name.empty(); }
  /// The words among its values: "auto" and "off" of auto|off, "auto" of auto|FILE.
  std::vector<std::string> words() const;
  /// Whether a file or folder can be its value.
  bool takes_file() const;
  bool takes_folder_alone() const;
  /// Its help with what it is by default: "of the probes [0]".
  std::string full_help() const;
};

struct OptionTopic {
  std::string title;
  std::vector<OptionText> options;
};

/// The options of a command's help text, by topic. None for Command::kNone.
std::vector<OptionTopic> options_of(Command command);

/// Those of `hesspect run` itself, which stand before the command.
OptionTopic launch_topic();

/// A command that Python carries out, one of its kinds where it has them, as `data text`.
struct PythonCommand {
  std::string name, kind;
  std::vector<OptionText> options;
};

/// As launch/option_tables has found them in the parsers of the package.
const std::vector<PythonCommand>& python_commands();

/// As the help text shows a topic.
std::string help_block(const OptionTopic& topic);

}  // namespace hesspect
