#include "hesspect/front/front.h"

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "completion.h"
#include "hesspect/config/commands.h"
#include "hesspect/config/options.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"
#include "hesspect/core/text.h"
#include "hesspect/service/commands.h"
#include "man_page.h"
#include "run_ranks.h"

namespace hesspect {
namespace {

int print(const std::string& text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  if (!written) throw InputError("cannot write to the standard output");
  return static_cast<int>(ExitCode::kDone);
}

bool asks_for_help(const std::vector<std::string>& args) {
  return !args.empty() && (args.front() == "--help" || args.front() == "-h");
}

const std::string kCompletionHelp =
    "usage: hesspect completion bash|zsh|fish\n\n"
    "Prints a script by which the shell completes commands, options, values and files:\n\n"
    "  bash  source <(hesspect completion bash)           in ~/.bashrc; for all users: "
    "share/bash-completion/completions/hesspect\n"
    "  zsh   hesspect completion zsh > FOLDER/_hesspect   a folder of $fpath; share/zsh/site-functions\n"
    "  fish  hesspect completion fish | source            in config.fish; "
    "share/fish/vendor_completions.d/hesspect.fish\n";

const std::string kManHelp =
    "usage: hesspect man\n\n"
    "Prints the manual page, in roff: hesspect man | man -l -     or into share/man/man1/hesspect.1\n";

int complete(const std::vector<std::string>& args) {
  if (asks_for_help(args)) return print(kCompletionHelp);
  const auto& shells = find_command("completion")->kinds;
  if (args.size() != 1) throw UsageError("'completion' needs the name of a shell: hesspect completion bash|zsh|fish");
  if (args.front() == "bash") return print(bash_completion());
  if (args.front() == "zsh") return print(zsh_completion());
  if (args.front() == "fish") return print(fish_completion());
  throw UsageError("there is no completion for '" + args.front() + "'" +
                   did_you_mean(args.front(), {shells.begin(), shells.end()}) + ": bash, zsh or fish");
}

int write_man_page(const std::vector<std::string>& args) {
  if (asks_for_help(args)) return print(kManHelp);
  if (!args.empty()) throw UsageError("unexpected argument '" + args.front() + "': 'man' takes none");
  return print(man_page());
}

int in_queue(std::string_view command, const std::vector<std::string>& args) {
  const Environment environment = hesspect_environment();
  const QueueConfig config = parse_queue_command(command, args, environment);
  return config.help ? print(service_help(command)) : run_queue_command(command, config, environment);
}

}  // namespace

bool is_one_of_several_ranks() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"})
    if (const char* size = std::getenv(name); size != nullptr) return std::atoi(size) > 1;
  const char* const tasks = std::getenv("SLURM_STEP_NUM_TASKS");
  return std::getenv("PMIX_RANK") != nullptr && tasks != nullptr && std::atoi(tasks) > 1;
}

int run_front(int argc, char** argv) {
  std::vector<std::string> args(argv + 1, argv + argc);
  if (args.size() == 2 && args.front() == "help") args = {args.back(), "--help"};  // `help run`
  const CommandEntry* const entry = args.empty() ? nullptr : find_command(args.front());
  if (entry == nullptr || entry->home != CommandHome::kFront) return -1;
  args.erase(args.begin());
  try {
    if (is_one_of_several_ranks())
      throw UsageError("'hesspect " + std::string(entry->name) +
                       "' is no work for several ranks: run it without mpirun");
    if (entry->name == "run") return run_ranks(args);
    if (is_queue_command(entry->name)) return in_queue(entry->name, args);
    return entry->name == "man" ? write_man_page(args) : complete(args);
  } catch (const Error& error) {
    log_error(error.what());
    return static_cast<int>(error.exit_code());
  }
}

}  // namespace hesspect
