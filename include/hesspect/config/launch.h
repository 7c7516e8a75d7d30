// `hesspect run --ranks 4 [options] COMMAND …`: how many ranks are started, where, and by what. This reads the command
// line; room `front` starts them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hesspect {

enum class LauncherChoice { kAuto, kMpirun, kSrun };
std::string to_string(LauncherChoice launcher);

struct LaunchConfig {
  std::int64_t ranks = 0;  // 0: not given
  std::string hosts;       // "node1:4,node2:4"
  std::string hostfile;
  LauncherChoice launcher = LauncherChoice::kAuto;
  std::vector<std::string> launcher_options;  // each may hold several, separated by blanks
  bool print_command = false;
  bool help = false;
};

struct Launch {
  LaunchConfig config;
  std::vector<std::string> command;  // the command and what follows it; empty with --help alone
};

/// @param args  what follows `run`
/// @throws UsageError: an unknown option, a value that can't be read, no command, or one that is not for several ranks
Launch parse_launch(const std::vector<std::string>& args);

/// The processes on the named hosts together, where each says how many it takes; else 0.
std::int64_t slots_of(const std::string& hosts);

}  // namespace hesspect
