// Which commands there are: those of this program and those of the Python package, which users meet as one.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hesspect {

/// Where a command is carried out.
enum class CommandHome {
  kRanks,    // by this program, on one process or several
  kService,  // the same, of `serve`, whose options are none of a run's
  kOne,      // by this program, on one process
  kFront,    // by this program before MPI starts
  kPython,   // by the Python package
};

/// Whether `hesspect run` can start it.
inline bool is_for_ranks(CommandHome home) { return home == CommandHome::kRanks || home == CommandHome::kService; }

/// One line of `hesspect --help`.
struct CommandEntry {
  std::string_view name, about;
  CommandHome home = CommandHome::kOne;
  std::string_view heading;                  // of the block in the help text that it stands in
  std::vector<std::string_view> kinds = {};  // words that may follow: `completion bash`, `export hf`
};

/// In the order of the help text; those under one heading stand together.
std::span<const CommandEntry> command_entries();

/// None where there is no such command.
const CommandEntry* find_command(std::string_view name);

std::vector<std::string> command_names();

}  // namespace hesspect
