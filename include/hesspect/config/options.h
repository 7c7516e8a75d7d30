// From command line, environment and ini file to a RunConfig, and back to ini text.
//
// The same names serve all three: `--micro-batch 64`, `HESSPECT_MICRO_BATCH=64`, `micro-batch = 64`. The command line
// wins over the environment, which wins over the ini file, which wins over the preset, which wins over the defaults.
// What is not a known name is an error.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "hesspect/config/run_config.h"

namespace hesspect {

/// What the user asked for.
struct Invocation {
  Command command = Command::kNone;
  RunConfig config;
  std::string file;                // inspect
  std::vector<std::string> files;  // report, compare
  bool help = false;
  bool version = false;
  bool print_config = false;
};

using Environment = std::map<std::string, std::string>;

/// The process's environment variables whose names start with HESSPECT_.
Environment hesspect_environment();

/// @param args  without the program's name
/// @throws UsageError: unknown command or option (with the near name), a value that cannot be read or is out of range,
///         an option that is missing; the line names where the value came from (option, variable, or ini file and line)
Invocation parse_command_line(const std::vector<std::string>& args, const Environment& environment);

/// Sets the fields that config.preset decides; those before it are lost. Never throws.
void apply_preset(RunConfig& config);

/// Gives options that nobody gave the values that follow from others: --magnitude takes the place of --top and
/// --bottom, --method power asks for magnitudes, and without re-orthogonalisation there is neither a true residual nor
/// a deflated trace. Never throws.
/// @param given  names of the options that stand on the command line, in the environment or in the ini file
void resolve_defaults(RunConfig& config, const std::set<std::string>& given);

/// @throws UsageError where options contradict each other, or one is missing that the command needs
void check_whole(const Invocation& run);

/// Every option of the config as ini text, which reads back to the same config. Unset texts are left out.
std::string to_ini(const RunConfig& config);

/// The same without what the result does not depend on: files by name (they are told apart by content), threads,
/// layout, checkpoints, output.
std::string to_ini_of_result(const RunConfig& config);

/// Reads ini text over the defaults. @param name  for messages
RunConfig from_ini(const std::string& text, const std::string& name);

/// The help text of a command; of the program for Command::kNone.
std::string help_text(Command command);
/// That of `hesspect run`.
std::string launch_help();
/// How a command is called: a line, or several.
std::string usage_text(Command command);

/// The command of a name. @throws UsageError: there is none
Command command_from(const std::string& name);

}  // namespace hesspect
