#include "sharded.h"

#include <string>

#include "hesspect/comm/agree.h"
#include "hesspect/comm/make_communicator.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"
#include "hesspect/core/text.h"
#include "hesspect/core/timer.h"
#include "hesspect/curvature/row_check.h"

namespace hesspect {

bool is_sharded(const RunConfig& config) {
  return config.layout.parameters == ParameterMemory::kSharded || config.layout.parameters == ParameterMemory::kHost;
}

std::string sharing_advice(const RunConfig& config, int ranks) {
  if (is_sharded(config)) return "; more ranks to a group hold less each";
  if (ranks == 1) return "; --parameters sharded on several ranks shares the parameters and all vectors among them";
  return "; --parameters sharded shares the parameters and all vectors among the ranks (hesspect plan --parameters "
         "sharded says what that takes)";
}

void require_shardable(const Invocation& run) {
  const RunConfig& config = run.config;
  const ParameterMemory way = config.layout.parameters;
  if (way == ParameterMemory::kAuto || way == ParameterMemory::kReplicated) return;
  const std::string name = "--parameters " + to_string(way);
  if (way == ParameterMemory::kHost && config.compute.device == DeviceChoice::kCpu)
    throw UsageError(name + ": keeps them beside a GPU; on CPUs it is --parameters sharded");
  const bool is_spectrum = run.command == Command::kAnalyze || run.command == Command::kDensity ||
                           run.command == Command::kEigs || run.command == Command::kTrace ||
                           run.command == Command::kSeries;
  const auto refuse = [&](bool asked, const std::string& what) {
    if (asked) throw UsageError(name + ": " + what + " with all parameters on every rank alone; leave one of them out");
  };
  if (!is_spectrum) throw UsageError(name + ": for analyze, density, eigs, trace and series alone");
  refuse(config.layout.product != ProductMode::kAuto && config.layout.product != ProductMode::kSegments,
         "--product " + to_string(config.layout.product) + " goes");
}

std::vector<ParameterMemory> ways_beside_replicated(const Invocation& run, int ranks) {
  if (run.config.layout.parameters != ParameterMemory::kAuto) return {};
  Invocation sharded = run;
  sharded.config.layout.parameters = ParameterMemory::kSharded;
  try {
    require_shardable(sharded);
  } catch (const UsageError&) {
    return {};
  }
  std::vector<ParameterMemory> ways;
  if (ranks > 1) ways.push_back(ParameterMemory::kSharded);
  if (run.config.compute.device != DeviceChoice::kCpu && cuda_device_count() > 0)
    ways.push_back(ParameterMemory::kHost);
  return ways;
}

void check_rows_of_shards(const RunConfig& config, Problem& problem, HessianOperator& op, Communicator& world) {
  if (problem.options.units.rows > 1) {
    problem.row_check = "not needed: units of " + format_count(problem.options.units.rows) +
                        " rows go through the program one at a time";
    return;
  }
  const Timer timer;
  const PhaseTimer phase(problem.options.phases, Phase::kStart, "whether rows stand alone");
  const RowCheck check = op.check_rows(*problem.file, problem.spec);
  agree(world, [&] {
    const std::string finding = "the loss is no sum over rows: " + check.finding;
    if (check.passed) {
      problem.row_check = check.applies ? "passed" : "not needed: there is one row, or the program takes one at a time";
    } else if (config.loss.assume_sum_over_rows) {
      problem.row_check = "assumed (--assume-sum-over-rows), but " + finding;
      problem.warnings.push_back(finding +
                                 "; it goes on as if it were (--assume-sum-over-rows): micro-batches and "
                                 "ranks then change the results");
      log_warning(problem.warnings.back());
    } else {
      throw InputError(finding + "; " + check.advice);
    }
  });
  log_debug("whether rows stand alone: " + problem.row_check + " (" + format_duration(timer.elapsed_s()) + ")");
}

}  // namespace hesspect
