#include "program.h"

#include <cstdio>

#include "build_info.h"
#include "hesspect/comm/agree.h"
#include "hesspect/config/service_options.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"
#include "hesspect/core/text.h"
#include "hesspect/io/fields.h"
#include "inputs.h"
#include "inspect.h"
#include "landscape.h"
#include "planning.h"
#include "reporting.h"
#include "series.h"
#include "serve.h"
#include "sharded.h"
#include "sharpness.h"
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

/// What a process is started with.
struct Start {
  std::vector<std::string> argv, names, values;  // the latter two: of variables
};

void fields(auto& v, Is<Start> auto& start) { v("argv", start.argv, "names", start.names, "values", start.values); }

/// Launchers do not always hand on variables, and an ini file may differ between nodes. Collective.
void require_same(const Invocation& run, Communicator& host) {
  const auto all = host.all_gather_bytes(to_string(run.command) + '\n' + run.file + '\n' +
                                         format_names(run.files, run.files.size() + 1) + '\n' + to_ini(run.config));
  for (std::size_t r = 1; r < all.size(); ++r)
    if (all[r] != all[0]) throw UsageError("rank " + std::to_string(r) + " reads another configuration than rank 0");
}

}  // namespace

int run_program(const std::vector<std::string>& own_argv, const Environment& own_environment, const StopSignal& signal,
                Communicator& host) {
  Start own{own_argv, {}, {}};
  for (const auto& [name, value] : own_environment) {
    own.names.push_back(name);
    own.values.push_back(value);
  }
  const auto start = FieldReader::from<Start>(host.broadcast_bytes(FieldWriter::text(own)), "start");
  const std::vector<std::string>& argv = start.argv;
  Environment environment;
  for (std::size_t i = 0; i < start.names.size(); ++i) environment[start.names[i]] = start.values[i];
  if (argv.size() > 1 && argv[1] == "serve") return serve({argv.begin() + 2, argv.end()}, environment, signal, host);
  if (argv.size() == 3 && argv[1] == "help" && argv[2] == "serve") return print(host, service_help("serve"));
  const Invocation run = agreed(host, [&] {
    return parse_command_line(std::vector<std::string>(argv.begin() + (argv.empty() ? 0 : 1), argv.end()), environment);
  });
  require_same(run, host);
  const OutputConfig& output = run.config.output;
  if (host.rank() == 0)
    set_log_level(output.quiet ? LogLevel::kQuiet : output.verbose ? LogLevel::kDebug : LogLevel::kInfo);
  const bool smoothing = run.command == Command::kDensity && !output.from.empty();
  if (run.help || run.version || run.print_config || smoothing || run.command == Command::kInspect ||
      run.command == Command::kPlan || run.command == Command::kSharpness || reads_results(run.command))
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
  if (reads_results(run.command)) return print(host, report_command(run, host));
  if (run.command == Command::kPlan) {
    bool fits = true;
    std::string text;
    const Command work = run.config.plan.work;
    if (work == Command::kInputs || work == Command::kLandscape) require_shardable(run);
    for (const std::string& line : work == Command::kInputs      ? plan_inputs(run.config, host, fits)
                                   : work == Command::kLandscape ? plan_landscape(run.config, host, fits)
                                                                 : plan_command(run.config, host, fits))
      text += line + '\n';
    print(host, text);
    return static_cast<int>(fits ? ExitCode::kDone : ExitCode::kOutOfMemory);
  }
  if (smoothing) return smooth_again(run, argv, host);
  require_shardable(run);
  if (run.command == Command::kInputs) return run_inputs(run, argv, signal, host);
  if (run.command == Command::kLandscape) return run_landscape(run, argv, signal, host);
  if (run.command == Command::kSharpness) return run_sharpness(run, argv, host);
  if (run.command == Command::kSeries) return run_series(run, argv, signal, host);
  return run_spectrum(run, argv, signal, host);
}

}  // namespace hesspect
