#include "run_ranks.h"

#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "files_ahead.h"
#include "hesspect/config/launch.h"
#include "hesspect/config/options.h"
#include "hesspect/core/errors.h"
#include "launcher.h"
#include "supervise.h"

namespace hesspect {
namespace {

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
  const Invocation run = parse_command_line(launch.command, hesspect_environment());
  if (run.help || run.version || run.print_config) go_over_to(program);

  const std::int64_t ranks = ranks_of(launch.config);
  if (starts_here(launch.config)) check_files_ahead(run);
  const bool is_one_here = ranks == 1 && starts_here(launch.config) && launch.config.launcher_options.empty() &&
                           launch.config.launcher == LauncherChoice::kAuto;
  const LauncherCommand command = is_one_here ? LauncherCommand{program, {}, SIGTERM, /*has_terminal=*/true}
                                              : launcher_command(launch.config, ranks, program);
  if (launch.config.print_command) {
    print_command(command);
    return static_cast<int>(ExitCode::kDone);
  }
  return supervise(command);
}

}  // namespace hesspect
