#include "program.h"

#include <cstdio>

#include "build_info.h"
#include "driver.h"
#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"
#include "inspect.h"

namespace hesspect {
namespace {

constexpr int kDone = static_cast<int>(ExitCode::kDone);

int print(const Communicator& host, const std::string& text) {
  if (host.rank() != 0) return kDone;
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  if (!written) throw InputError("cannot write to the standard output");
  return kDone;
}

}  // namespace

int run_program(const std::vector<std::string>& argv, const Environment& environment,
                std::unique_ptr<Communicator> host) {
  const Invocation run = agreed(*host, [&] {
    return parse_command_line(std::vector<std::string>(argv.begin() + (argv.empty() ? 0 : 1), argv.end()), environment);
  });
  const OutputConfig& output = run.config.output;
  if (host->rank() == 0)
    set_log_level(output.quiet ? LogLevel::kQuiet : output.verbose ? LogLevel::kDebug : LogLevel::kInfo);
  if (run.help) return print(*host, help_text(run.command));
  if (run.version) return print(*host, version_text());
  if (run.print_config) return print(*host, to_ini(run.config));
  if (run.command == Command::kInspect) {
    std::string text;
    agree(*host, [&] {
      if (host->rank() == 0) text = inspect(run.file);
    });
    return print(*host, text);
  }
  if (run.command == Command::kDensity && !output.from.empty()) return smooth_again(run, *host);
  return run_spectrum(run, argv, std::move(host));
}

}  // namespace hesspect
