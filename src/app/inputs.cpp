#include "inputs.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "facts.h"
#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"
#include "hesspect/core/memory.h"
#include "hesspect/core/text.h"
#include "hesspect/core/timer.h"
#include "hesspect/curvature/input_curvature.h"
#include "hesspect/io/result_file.h"
#include "hesspect/report/input_summary.h"
#include "hesspect/report/text.h"
#include "hesspect/run/sources.h"
#include "run_start.h"

namespace hesspect {
namespace {

/// @throws InputError where rows don't stand alone: a row's loss would depend on others' inputs
void require_rows_alone(const Problem& problem) {
  if (problem.options.units.rows > 1)
    throw InputError("rows belong together in units of " + format_count(problem.options.units.rows) +
                     ": 'inputs' needs rows whose losses depend on their own inputs alone");
}

InputOptions options_of(const RunConfig& config, const Problem& problem) {
  InputOptions options;
  options.loss = problem.options.loss;
  options.output_index = problem.options.output_index;
  options.variables = config.inputs.vary;
  options.micro_batch = config.data.micro_batch;
  options.rtol = config.inputs.rtol_inputs;
  options.most_products = config.inputs.input_steps;
  options.direction = config.inputs.move;
  options.step = config.inputs.move_by;
  options.seed = config.quadrature.seed;
  return options;
}

/// Every rank's rows on every rank, in order. Collective.
std::vector<InputRow> all_rows(const std::vector<InputRow>& mine, Communicator& world) {
  static_assert(std::is_trivially_copyable_v<InputRow>);
  std::vector<InputRow> all;
  const auto* bytes = reinterpret_cast<const char*>(mine.data());
  for (const std::string& part : world.all_gather_bytes({bytes, mine.size() * sizeof(InputRow)})) {
    std::vector<InputRow> rows(part.size() / sizeof(InputRow));
    std::memcpy(rows.data(), part.data(), part.size());
    all.insert(all.end(), rows.begin(), rows.end());
  }
  std::ranges::sort(all, {}, &InputRow::row);
  return all;
}

Diagnostics diagnostics_of(const Problem& problem, double elapsed_s, Communicator& world) {
  Diagnostics d;
  for (double* unmeasured : {&d.symmetry_error, &d.orthogonality_loss, &d.cost_in_gradients, &d.loss, &d.gradient_norm,
                             &d.loss_terms, &d.product_s, &d.communication_s})
    *unmeasured = Diagnostics::kNotMeasured;
  d.elapsed_s = elapsed_s;
  d.parameters = problem.program->layout().model_size();
  d.parameters_in_use = problem.program->layout().size();
  d.rows = problem.rows;
  d.row_check = problem.row_check;
  d.widened_weights = problem.overlay.widened;
  d.data_ranks = world.size();
  d.peak_memory_bytes = world.max(peak_memory_bytes());
  return d;
}

}  // namespace

int run_inputs(const Invocation& run, const std::vector<std::string>& argv, Communicator& world) {
  const RunConfig& config = run.config;
  const Timer timer;
  Phases phases(nullptr);
  const std::string start_time = utc_time();
  agree(world, [&] {
    if (world.rank() == 0) check_new_outputs(config, {config.output.output});
  });
  Problem problem = read_problem(config, 0, Weights::kRequired, &phases, world);
  InputSharpness sharpness = agreed(world, [&] {
    require_rows_alone(problem);
    const DataShard shard = load_shard(*problem.file, problem.spec, world.size(), world.rank());
    return input_sharpness(*problem.program, shard, options_of(config, problem));
  });
  sharpness.rows = all_rows(sharpness.rows, world);
  sharpness.most_products = world.max(sharpness.most_products);
  sharpness.dimensions = world.max(sharpness.dimensions);
  RunResult result;
  result.diagnostics = diagnostics_of(problem, timer.elapsed_s(), world);
  int code = static_cast<int>(ExitCode::kDone);
  agree(world, [&] {
    if (world.rank() != 0) return;
    result.warnings = problem.warnings;
    summarise(sharpness, static_cast<std::size_t>(config.inputs.fragile), config.accuracy.confidence);
    result.inputs = std::move(sharpness);
    for (const std::string& warning : input_warnings(*result.inputs)) {
      result.warnings.push_back(warning);
      log_warning(warning);
    }
    RunLayout layout;
    layout.world = world.size();
    layout.threads = problem.threads;
    layout.device = problem.device.is_cuda() ? "cuda" : "cpu";
    result.process = process_info(run, argv, problem, layout);
    result.process.start_time = start_time;
    result.process.end_time = utc_time();
    const SourceHashing hashing(config.model.model, problem.weight_files, config.data.data);
    set_sources(result.process, hashing.sources().get());
    for (const std::string& line : findings(result)) log_info(line);
    write_result(config.output.output, result);
    log_info("  result          " + quote(config.output.output));
    const bool all = std::ranges::all_of(
        result.inputs->rows, [](const InputRow& row) { return row.converged || std::isnan(row.gradient_norm); });
    if (!all) code = static_cast<int>(ExitCode::kNotConverged);
  });
  return world.of_rank0(code);
}

}  // namespace hesspect
