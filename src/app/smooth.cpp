#include "smooth.h"

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/hdf5_trial.h"
#include "hesspect/core/log.h"
#include "hesspect/core/text.h"
#include "hesspect/io/atomic_file.h"
#include "hesspect/io/result_file.h"
#include "hesspect/spectrum/density.h"
#include "process.h"

namespace hesspect {

int smooth_again(const Invocation& run, const std::vector<std::string>& argv, Communicator& host) {
  const OutputConfig& output = run.config.output;
  agree(host, [&] {
    if (host.rank() != 0) return;
    check_output(output.output, output.force);
    try_hdf5_file(output.from);
    RunResult result = read_result(output.from);
    if (result.quadrature.empty()) throw InputError(quote(output.from) + " holds no probes to smooth");
    if (result.process.command == to_string(Command::kTrace))
      throw InputError(quote(output.from) + " is a result of trace: one product a probe gives no density");
    DensityOptions options;
    options.sigma = run.config.quadrature.sigma;
    options.n = result.diagnostics.parameters_in_use;
    options.zeros = result.diagnostics.parameters - result.diagnostics.parameters_in_use;
    result.density = density(result.quadrature, options);
    result.process.argv = argv;
    RunConfig config = from_ini(result.process.config, "the configuration in " + quote(output.from));
    config.quadrature.sigma = options.sigma;
    result.process.config = to_ini(config);
    result.process.end_time = utc_time();
    write_result(output.output, result);
    log_info("density of " + std::to_string(result.quadrature.size()) + " probes with sigma " +
             format_number(result.density->sigma) + " in " + quote(output.output));
  });
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace hesspect
