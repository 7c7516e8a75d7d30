#include "hesspect/config/launch.h"

#include <charconv>
#include <sstream>

#include "command_words.h"
#include "hesspect/config/commands.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "option_groups.h"

namespace hesspect {
namespace {

/// @throws UsageError where several ranks can't carry it out
void require_command_of_ranks(const std::string& name) {
  const CommandEntry* const entry = find_command(name);
  if (entry == nullptr)
    throw UsageError("unknown command '" + name + "'" + did_you_mean(name, command_names()) +
                     "; 'hesspect --help' lists them");
  if (!is_for_ranks(entry->home))
    throw UsageError("'" + name + "' is no work for several ranks: hesspect " + name + " ..., without 'run'");
}

}  // namespace

std::string to_string(LauncherChoice launcher) {
  switch (launcher) {
    case LauncherChoice::kAuto: return "auto";
    case LauncherChoice::kMpirun: return "mpirun";
    case LauncherChoice::kSrun: return "srun";
  }
  return "unknown";
}

OptionGroup launch_options(LaunchConfig& c) {
  OptionGroup group{"Ranks", {}};
  group.integer("ranks", c.ranks, 0, 1'000'000,
                "processes; 0: as many as Slurm's allocation has tasks, or --hosts has slots");
  group.text("hosts", c.hosts, "HOST[:N],…",
             "where they run, and how many on each at most; default: on this host, or where Slurm says");
  group.text("hostfile", c.hostfile, "FILE", "the same as a file of the launcher's (mpirun)");
  group.choice("launcher", c.launcher, {LauncherChoice::kAuto, LauncherChoice::kMpirun, LauncherChoice::kSrun},
               "what starts them; auto: srun inside an allocation of a Slurm that has PMIx, else mpirun");
  group.texts("launcher-options", c.launcher_options, "TEXT",
              "more options of the launcher's, separated by blanks, as \"--mca btl_tcp_if_include eth0\" (repeatable)");
  group.flag("print-command", c.print_command, "print the launcher's command line, and stop");
  group.flag("help", c.help, "print this help, and stop");
  return group;
}

Launch parse_launch(const std::vector<std::string>& args) {
  Launch launch;
  const OptionTable table{{launch_options(launch.config)}};
  const CommandWords reader{.command = "run",
                            .until_first_word = true,
                            .aliases = {{"-n", "--ranks"}, {"-np", "--ranks"}},
                            .hint = "; the command's own options stand behind the command"};
  launch.command = read_words(reader, table, args);
  if (launch.config.help) return launch;
  if (launch.command.empty())
    throw UsageError("'run' needs a command: hesspect run --ranks 4 analyze --model M.pt2 ...");
  require_command_of_ranks(launch.command.front());
  if (!launch.config.hosts.empty() && !launch.config.hostfile.empty())
    throw UsageError("--hosts and --hostfile say twice where the ranks run: give one of them");
  return launch;
}

std::int64_t slots_of(const std::string& hosts) {
  std::int64_t all = 0;
  std::istringstream text(hosts);
  for (std::string host; std::getline(text, host, ',');) {
    const auto colon = host.find(':');
    if (colon == std::string::npos) return 0;
    std::int64_t slots = 0;
    const char* const end = host.data() + host.size();
    const auto [read, error] = std::from_chars(host.data() + colon + 1, end, slots);
    if (error != std::errc() || read != end || slots < 1)
      throw UsageError("--hosts " + hosts + ": expected HOST or HOST:N, separated by commas");
    all += slots;
  }
  return all;
}

}  // namespace hesspect
