#include "run_ranks.h"

#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <thread>

#include "files_ahead.h"
#include "hesspect/config/launch.h"
#include "hesspect/config/options.h"
#include "hesspect/config/service_options.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"
#include "hesspect/core/text.h"
#include "hesspect/core/timer.h"
#include "launcher.h"
#include "supervise.h"

namespace hesspect {
namespace {

constexpr int kBySignal = 128;  // a launcher's exit code where a signal has ended a rank, less the signal

std::string own_path() {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) throw InputError("cannot tell where hesspect itself is: " + error.message());
  return path;
}

/// Becomes the command on one process, in this one's place. @throws InputError where that can't be
[[noreturn]] void go_over_to(const std::vector<std::string>& words) {
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  execv(argv.front(), argv.data());
  throw InputError("cannot start " + words.front() + ": " + std::strerror(errno));
}

/// As a shell would read it back.
std::string in_quotes(const std::string& word) {
  const char* const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=.,:/@%";
  if (!word.empty() && word.find_first_not_of(plain) == std::string::npos) return word;
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

void print_command(const LauncherCommand& command) {
  std::string text;
  for (const auto& [name, value] : command.variables) text += name + "=" + in_quotes(value) + " ";
  for (const std::string& word : command.words) text += (&word == &command.words.front() ? "" : " ") + in_quotes(word);
  std::printf("%s\n", text.c_str());
  std::fflush(stdout);
}

/// What can be told before ranks start. @return whether it only prints something
bool check_run_ahead(const Launch& launch) {
  const Invocation run = parse_command_line(launch.command, hesspect_environment());
  if (run.help || run.version || run.print_config) return true;
  ranks_of(launch.config);
  if (starts_here(launch.config)) check_files_ahead(run);
  return false;
}

bool check_service_ahead(const std::vector<std::string>& command) {
  return parse_serve({command.begin() + 1, command.end()}, hesspect_environment()).help;
}

/// A service that a death has ended is started again: its ranks were killed, or one was lost. What it ended with by
/// itself counts.
bool is_death(int exit_code) {
  return exit_code > kBySignal || exit_code == static_cast<int>(ExitCode::kCommFailed) ||
         exit_code == static_cast<int>(ExitCode::kOutOfMemory) || exit_code == static_cast<int>(ExitCode::kInternal);
}

/// Starts it again as often as it dies, but gives up where it dies again and again as soon as it is there. A job that
/// kills it twice is taken for bad by the third start, so that it gets on.
int supervise_service(const LauncherCommand& command) {
  constexpr int kMostAtOnce = 5;
  constexpr double kAtOnce_s = 20;
  for (int at_once = 0;;) {
    const Timer timer;
    const LauncherEnd end = supervise(command);
    if (end.is_by_user || !is_death(end.exit_code)) return end.exit_code;
    at_once = timer.elapsed_s() < kAtOnce_s ? at_once + 1 : 0;
    if (at_once >= kMostAtOnce) {
      log_error("the service has died " + std::to_string(at_once) + " times within " + format_duration(kAtOnce_s) +
                " of its start: it is not started again");
      return end.exit_code;
    }
    log_warning("the service has died (exit code " + std::to_string(end.exit_code) + "), and is started again");
    std::this_thread::sleep_for(std::chrono::seconds(1));
  }
}

}  // namespace

int run_ranks(const std::vector<std::string>& args) {
  const Launch launch = parse_launch(args);
  if (launch.config.help) {
    const std::string text = launch_help();
    std::fwrite(text.data(), 1, text.size(), stdout);
    return static_cast<int>(ExitCode::kDone);
  }
  std::vector<std::string> program = {own_path()};
  program.insert(program.end(), launch.command.begin(), launch.command.end());
  const bool is_service = launch.command.front() == "serve";
  if (is_service ? check_service_ahead(launch.command) : check_run_ahead(launch)) go_over_to(program);
  const std::int64_t ranks = ranks_of(launch.config);
  const bool is_one_here = ranks == 1 && starts_here(launch.config) && launch.config.launcher_options.empty() &&
                           launch.config.launcher == LauncherChoice::kAuto;
  const LauncherCommand command = is_one_here ? LauncherCommand{program, {}, SIGTERM, /*has_terminal=*/true}
                                              : launcher_command(launch.config, ranks, program);
  if (launch.config.print_command) {
    print_command(command);
    return static_cast<int>(ExitCode::kDone);
  }
  return is_service ? supervise_service(command) : supervise(command).exit_code;
}

}  // namespace hesspect
