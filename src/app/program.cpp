#include "program.h"

#include <cstdio>

#include "build_info.h"
#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"
#include "inspect.h"
#include "planning.h"
#include "smooth.h"
#include "spectrum.h"

namespace hesspect {
namespace {

constexpr int kDone = static_cast<int>(ExitCode::kDone);

int print(const Communicator& host, const std::string& text) {
  if (host.rank() != 0) return kDone;
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  if (!written) throw InputError("cannot write to the standard output");
  return kDone;
}

/// The command line and the variables as one text: neither can hold a NUL.
std::string packed(const std::vector<std::string>& argv, const Environment& environment) {
  std::string text;
  text += std::to_string(argv.size()) + '\0';
  for (const auto& arg : argv) text += arg + '\0';
  for (const auto& [name, value] : environment) text += name + '=' + value + '\0';
  return text;
}

void unpack(const std::string& text, std::vector<std::string>& argv, Environment& environment) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0, end = 0; (end = text.find('\0', begin)) != std::string::npos; begin = end + 1)
    parts.push_back(text.substr(begin, end - begin));
  const auto first_variable = parts.begin() + 1 + std::stol(parts.at(0));
  argv.assign(parts.begin() + 1, first_variable);
  environment.clear();
  for (auto part = first_variable; part != parts.end(); ++part)
    environment[part->substr(0, part->find('='))] = part->substr(part->find('=') + 1);
}

/// Launchers do not always hand on variables, and an ini file may differ between nodes. Collective.
void require_same(const Invocation& run, Communicator& host) {
  const auto all = host.all_gather_bytes(to_string(run.command) + '\n' + run.file + '\n' + to_ini(run.config));
  for (std::size_t r = 1; r < all.size(); ++r)
    if (all[r] != all[0]) throw UsageError("rank " + std::to_string(r) + " reads another configuration than rank 0");
}

}  // namespace

int run_program(const std::vector<std::string>& own_argv, const Environment& own_environment, const StopSignal& signal,
                Communicator& host) {
  std::vector<std::string> argv;
  Environment environment;
  unpack(host.broadcast_bytes(packed(own_argv, own_environment)), argv, environment);
  const Invocation run = agreed(host, [&] {
    return parse_command_line(std::vector<std::string>(argv.begin() + (argv.empty() ? 0 : 1), argv.end()), environment);
  });
  require_same(run, host);
  const OutputConfig& output = run.config.output;
  if (host.rank() == 0)
    set_log_level(output.quiet ? LogLevel::kQuiet : output.verbose ? LogLevel::kDebug : LogLevel::kInfo);
  const bool smoothing = run.command == Command::kDensity && !output.from.empty();
  if (run.help || run.version || run.print_config || smoothing || run.command == Command::kInspect ||
      run.command == Command::kPlan)
    signal.release();
  if (run.help) return print(host, help_text(run.command));
  if (run.version) return print(host, version_text());
  if (run.print_config) return print(host, to_ini(run.config));
  if (run.command == Command::kInspect) {
    std::string text;
    agree(host, [&] {
      if (host.rank() == 0) text = inspect(run.file);
    });
    return print(host, text);
  }
  if (run.command == Command::kPlan) {
    bool fits = true;
    std::string text;
    for (const std::string& line : plan_command(run.config, host, fits)) text += line + '\n';
    print(host, text);
    return static_cast<int>(fits ? ExitCode::kDone : ExitCode::kOutOfMemory);
  }
  if (smoothing) return smooth_again(run, argv, host);
  return run_spectrum(run, argv, signal, host);
}

}  // namespace hesspect
