#include "launcher.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <sstream>

#include "hesspect/config/options.h"
#include "hesspect/core/errors.h"

namespace hesspect {
namespace {

using Words = std::vector<std::string>;

std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool is_on_path(const std::string& program) {
  std::istringstream folders(variable("PATH"));
  for (std::string folder; std::getline(folders, folder, ':');)
    if (access((std::filesystem::path(folder.empty() ? "." : folder) / program).c_str(), X_OK) == 0) return true;
  return false;
}

/// What a command says on both streams. @param command  for the shell
std::string output_of(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen((command + " 2>&1 </dev/null").c_str(), "r"), pclose);
  std::string text;
  std::array<char, 4096> bytes{};
  if (pipe != nullptr)
    while (const std::size_t count = std::fread(bytes.data(), 1, bytes.size(), pipe.get()))
      text.append(bytes.data(), count);
  return text;
}

bool has_word(const std::string& text, const std::string& word) {
  std::istringstream words(text);
  for (std::string each; words >> each;)
    if (each == word) return true;
  return false;
}

bool is_in_allocation() { return !variable("SLURM_JOB_ID").empty(); }

bool slurm_has_pmix() { return is_on_path("srun") && has_word(output_of("srun --mpi=list"), "pmix"); }

LauncherChoice chosen(const LaunchConfig& config) {
  if (config.launcher != LauncherChoice::kAuto) return config.launcher;
  return is_in_allocation() && config.hostfile.empty() && slurm_has_pmix() ? LauncherChoice::kSrun
                                                                           : LauncherChoice::kMpirun;
}

void append(Words& words, const Words& more) { words.insert(words.end(), more.begin(), more.end()); }

Words launcher_options(const LaunchConfig& config) {
  Words words;
  for (const std::string& text : config.launcher_options) {
    std::istringstream in(text);
    for (std::string word; in >> word;) words.push_back(word);
  }
  return words;
}

/// What rank 0 reads, where it is started by another host's shell.
Words exported_variables() {
  Words words;
  const auto hand_on = [&](const std::string& name) { append(words, {"-x", name}); };
  for (const auto& [name, value] : hesspect_environment()) hand_on(name);
  if (!variable("OMP_NUM_THREADS").empty()) hand_on("OMP_NUM_THREADS");
  return words;
}

LauncherCommand open_mpi(const LaunchConfig& config, std::int64_t ranks) {
  LauncherCommand command{{"mpirun", "--oversubscribe", "--bind-to", "none"}, {}, SIGINT};
  if (geteuid() == 0) command.words.emplace_back("--allow-run-as-root");
  append(command.words, {"-n", std::to_string(ranks)});
  if (!config.hosts.empty()) append(command.words, {"--host", config.hosts});
  if (!config.hostfile.empty()) append(command.words, {"--hostfile", config.hostfile});
  if (!config.hosts.empty() || !config.hostfile.empty()) append(command.words, exported_variables());
  // Containers often forbid cross-memory attach: every large message would warn. A host that is gone is noticed after
  // 5 + 3 * 3 seconds of silence, not after eight minutes. Ranks that have ended with an error need no second to end.
  for (const auto& [name, value] : {std::pair("btl_vader_single_copy_mechanism", "none"),
                                    {"oob_tcp_keepalive_time", "5"},
                                    {"oob_tcp_keepalive_intvl", "3"},
                                    {"oob_tcp_keepalive_probes", "3"},
                                    {"odls_base_sigkill_timeout", "0"}}) {
    const std::string full = std::string("OMPI_MCA_") + name;
    if (std::getenv(full.c_str()) == nullptr) command.variables[full] = value;
  }
  return command;
}

/// MPICH's mpirun, and those made from it.
LauncherCommand hydra(const LaunchConfig& config, std::int64_t ranks) {
  LauncherCommand command{{"mpirun", "-n", std::to_string(ranks)}, {}, SIGINT};
  if (!config.hosts.empty()) append(command.words, {"-hosts", config.hosts});
  if (!config.hostfile.empty()) append(command.words, {"-f", config.hostfile});
  return command;
}

LauncherCommand mpirun(const LaunchConfig& config, std::int64_t ranks) {
  if (!is_on_path("mpirun"))
    throw UsageError(
        "'run' needs mpirun, which is not on the PATH: install an MPI (Debian's openmpi-bin), or load its "
        "module");
  const std::string version = output_of("mpirun --version");
  const bool is_open_mpi =
      version.find("Open MPI") != std::string::npos || version.find("OpenRTE") != std::string::npos;
  return is_open_mpi ? open_mpi(config, ranks) : hydra(config, ranks);
}

LauncherCommand srun(const LaunchConfig& config, std::int64_t ranks) {
  if (!is_on_path("srun")) throw UsageError("--launcher srun: there is no srun on the PATH");
  if (!config.hostfile.empty()) throw UsageError("--hostfile is mpirun's: give srun --hosts");
  // All ranks end with one exit code, but not at one moment: the first may not kill the others. Sixty seconds after it
  // they are killed all the same. The second SIGTERM of a rank ends it.
  LauncherCommand command{{"srun", "--mpi=pmix", "--kill-on-bad-exit=0", "--wait=60"}, {}, SIGTERM};
  if (const std::string cpus = variable("SLURM_CPUS_PER_TASK"); !cpus.empty())
    command.words.push_back("--cpus-per-task=" + cpus);
  append(command.words, {"-n", std::to_string(ranks)});
  if (!config.hosts.empty()) {
    std::string names;  // srun counts tasks of its own
    std::istringstream hosts(config.hosts);
    for (std::string host; std::getline(hosts, host, ',');)
      names += (names.empty() ? "" : ",") + host.substr(0, host.find(':'));
    append(command.words, {"--nodelist", names});
  }
  return command;
}

}  // namespace

std::int64_t ranks_of(const LaunchConfig& config) {
  const std::int64_t slots = config.hosts.empty() ? 0 : slots_of(config.hosts);
  if (config.ranks > 0) return config.ranks;
  if (slots > 0) return slots;
  if (const std::string tasks = variable("SLURM_NTASKS"); is_in_allocation() && !tasks.empty())
    return std::max(1, std::atoi(tasks.c_str()));
  throw UsageError("'run' needs --ranks N, the number of processes");
}

LauncherCommand launcher_command(const LaunchConfig& config, std::int64_t ranks, const Words& program) {
  LauncherCommand command = chosen(config) == LauncherChoice::kSrun ? srun(config, ranks) : mpirun(config, ranks);
  append(command.words, launcher_options(config));
  append(command.words, program);
  return command;
}

bool starts_here(const LaunchConfig& config) {
  const bool is_elsewhere = !config.hosts.empty() || !config.hostfile.empty();
  return !is_elsewhere && (!is_in_allocation() || !variable("SLURMD_NODENAME").empty());
}

}  // namespace hesspect
