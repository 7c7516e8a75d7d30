#include "inputs.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
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
#include "hesspect/plan/input_plan.h"
#include "hesspect/report/assemble.h"
#include "hesspect/report/input_summary.h"
#include "hesspect/report/text.h"
#include "hesspect/run/sources.h"
#include "planning.h"
#include "run_life.h"

namespace hesspect {
namespace {

/// Ranks meet, and rank 0 takes their rows, when each has worked for so long, or has nothing left.
constexpr double kRound_s = 0.5;
constexpr double kTellRowsEvery_s = 30;

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

/// Every rank's rows on every rank. Collective.
std::vector<InputRow> all_rows(const std::vector<InputRow>& mine, Communicator& world) {
  static_assert(std::is_trivially_copyable_v<InputRow>);
  std::vector<InputRow> all;
  const auto* bytes = reinterpret_cast<const char*>(mine.data());
  for (const std::string& part : world.all_gather_bytes({bytes, mine.size() * sizeof(InputRow)})) {
    std::vector<InputRow> rows(part.size() / sizeof(InputRow));
    if (!part.empty()) std::memcpy(rows.data(), part.data(), part.size());
    all.insert(all.end(), rows.begin(), rows.end());
  }
  return all;
}

/// Which of this rank's rows, from 0, are not among those that are known.
std::vector<RowRange> rows_left(const RowRange& own, const std::vector<InputRow>& known) {
  std::set<std::int64_t> done;
  for (const InputRow& row : known)
    if (row.row >= own.begin && row.row < own.end) done.insert(row.row - own.begin);
  std::vector<RowRange> left;
  std::int64_t begin = 0;
  for (const std::int64_t row : done) {
    if (row > begin) left.push_back({begin, row});
    begin = row + 1;
  }
  if (begin < own.size()) left.push_back({begin, own.size()});
  return left;
}

/// What is planned from. Collective.
struct InputPlanning {
  PlanProblem problem;
  PlanMachine machine;
  InputCost cost;
  InputPlan plan;
};

/// Measures a micro-batch on every rank that has rows; rank 0's counts. Collective.
/// @param analysis  nullptr: nothing is measured
InputPlanning planned(const RunConfig& config, const Problem& problem, InputAnalysis* analysis, Communicator& world) {
  InputPlanning p;
  p.problem = plan_problem(problem);
  p.machine = plan_machine(config, problem, world);
  if (config.plan.world > 0) p.machine.world = static_cast<int>(config.plan.world);
  const std::int64_t before = p.problem.process_bytes;
  agree(world, [&] {
    if (analysis == nullptr) return;
    p.cost = analysis->measure([&](const InputCost& cost) { return make_input_plan(p.problem, cost, p.machine).fits; });
  });
  p.cost = world.of_rank0(p.cost);
  const std::int64_t data_bytes = p.problem.rows_of_rank(world.size()) * p.problem.row_bytes;
  p.problem.process_bytes = std::max(before, process_bytes(p.problem, analysis != nullptr ? data_bytes : 0, world));
  p.plan = make_input_plan(p.problem, p.cost, p.machine);
  return p;
}

/// One run, on every rank.
class InputsRun {
 public:
  InputsRun(const Invocation& run, const std::vector<std::string>& argv, RunLife& life, Communicator& world)
      : run_(run), config_(run.config), argv_(argv), life_(life), world_(world) {}

  /// @return the exit code
  int go() {
    prepare();
    return work() ? finish() : life_.stopped();
  }

 private:
  void prepare() {
    problem_ = read_problem(config_, life_.threads(), Weights::kRequired, &phases_, world_);
    agree(world_, [&] { require_rows_alone(problem_); });
    life_.take_sources(problem_);
    const RunStart& start = life_.start();
    progress_ = inputs_progress_from(world_.broadcast_bytes(
        to_text(life_.first() && start.resumed ? start.state.inputs.value_or(InputsProgress{}) : InputsProgress{})));
    InputOptions options = options_of(config_, problem_);
    // On as many ranks each goes on with its own size, for the same numbers; else the smallest fits everywhere.
    std::vector<std::int64_t> sizes = progress_.micro_batches;
    if (std::ssize(sizes) == world_.size()) sizes = {sizes[static_cast<std::size_t>(world_.rank())]};
    std::erase(sizes, 0);  // of ranks without rows
    if (!sizes.empty() && options.micro_batch == 0) options.micro_batch = std::ranges::min(sizes);
    analysis_ = agreed(world_, [&] {
      const DataShard shard = load_shard(*problem_.file, problem_.spec, world_.size(), world_.rank());
      return std::make_unique<InputAnalysis>(*problem_.program, shard, options, rows_left(shard.rows, progress_.rows));
    });
    make_plan();
    life_.begin();
    tell_start();
  }

  /// A run that goes on keeps its plan: a micro-batch of another size would round otherwise.
  void make_plan() {
    layout_.world = world_.size();
    layout_.threads = problem_.threads;
    layout_.device = problem_.device.is_cuda() ? "cuda" : "cpu";
    if (life_.start().resumed) {
      layout_.plan = life_.start().state.layout.plan;
      layout_.plan.data_ranks = world_.size();
      life_.tell_differences(layout_, "finished rows are kept");
      return;
    }
    const InputPlanning p = planned(config_, problem_, analysis_.get(), world_);
    if (!p.plan.fits)
      throw MemoryError(p.plan.bytes.total(), p.machine.memory_bytes,
                        "the run takes " + format_bytes(p.plan.bytes.total()) + " a rank, with micro-batches of " +
                            format_count(p.cost.micro_batch) + " rows, and " + format_bytes(p.machine.memory_bytes) +
                            " may be taken: give --micro-batch a smaller number, fewer --input-steps, or more memory");
    layout_.plan.micro_batch = p.cost.micro_batch;
    layout_.plan.micro_batches = p.plan.micro_batches;
    layout_.plan.data_ranks = world_.size();
    layout_.plan.bytes = p.plan.bytes;
    layout_.plan.fits = true;
    layout_.plan.products = p.plan.micro_batches * p.cost.products;
    layout_.plan.product_s = p.cost.product_s;
    layout_.plan.run_s = p.plan.run_s;
  }

  void tell_start() const {
    if (life_.start().resumed)
      log_info("resumed from " + quote(life_.folder_name()) + ": " + format_count(std::ssize(progress_.rows)) + " of " +
               format_count(problem_.rows) + " rows are finished");
    const Plan& plan = layout_.plan;
    log_info(format_count(problem_.rows) + " rows of " + format_count(analysis_->dimensions()) +
             " numbers, in micro-batches of " + format_count(analysis_->micro_batch()) + "; at most " +
             format_count(plan.products) + " products a rank, " + format_duration(plan.run_s) + ", " +
             format_bytes(plan.bytes.total()) + "; " + format_count(world_.size()) +
             (world_.size() == 1 ? " rank" : " ranks") + " of " + format_count(problem_.threads) +
             (problem_.threads == 1 ? " thread" : " threads") + " on " + layout_.device);
  }

  /// @return false where it stopped before the end, with a checkpoint. Collective.
  bool work() {
    save_if_due(/*at_once=*/true, /*must=*/false);  // that there is a run to go on with
    while (true) {
      std::vector<InputRow> found;
      bool stop = false, left = false;
      agree(world_, [&] {
        const Timer round;
        do {
          stop = life_.is_to_stop();
          if (stop || analysis_->done()) break;
          stop = !analysis_->advance(found, [this] { return life_.is_to_stop(); });
        } while (!stop && round.elapsed_s() < kRound_s);
        left = !analysis_->done();
      });
      take(found);
      left = world_.any(left);
      stop = world_.any(stop) && left;
      save_if_due(stop, stop);
      if (!left) return true;
      if (stop) return false;
      tell_progress();
    }
  }

  /// Collective.
  void take(const std::vector<InputRow>& found) {
    const std::vector<InputRow> all = all_rows(found, world_);
    progress_.rows.insert(progress_.rows.end(), all.begin(), all.end());
    progress_.most_products = world_.max(std::max(progress_.most_products, analysis_->most_products()));
    progress_.micro_batches.clear();
    for (const std::string& size : world_.all_gather_bytes(std::to_string(analysis_->micro_batch())))
      progress_.micro_batches.push_back(std::stoll(size));
  }

  void tell_progress() {
    if (told_.elapsed_s() < kTellRowsEvery_s) return;
    told_.reset();
    log_info("inputs: " + format_count(std::ssize(progress_.rows)) + " of " + format_count(problem_.rows) + " rows");
  }

  /// Collective.
  void save_if_due(bool at_once, bool must) {
    life_.save_if_due(at_once, must, layout_, [this](LedgerState& state) { state.inputs = progress_; });
  }

  /// @return the exit code. Collective.
  int finish() {
    RunResult result;
    result.inputs.emplace();
    result.inputs->variables = analysis_->variables();
    result.inputs->direction = to_string(config_.inputs.move);
    result.inputs->dimensions = world_.max(analysis_->dimensions());
    result.inputs->most_products = progress_.most_products;
    result.inputs->rows = progress_.rows;
    std::ranges::sort(result.inputs->rows, {}, &InputRow::row);
    set_diagnostics(result.diagnostics);
    life_.hashing().gather(world_);
    int code = 0;
    agree(world_, [&] {
      if (life_.first()) code = write(result);
    });
    return world_.of_rank0(code);
  }

  /// Collective.
  void set_diagnostics(Diagnostics& d) {
    for (double* unmeasured : {&d.symmetry_error, &d.orthogonality_loss, &d.cost_in_gradients, &d.loss,
                               &d.gradient_norm, &d.loss_terms, &d.product_s, &d.communication_s})
      *unmeasured = Diagnostics::kNotMeasured;
    d.elapsed_s = life_.start().state.elapsed_s + life_.timer().elapsed_s();
    d.starts = life_.start().state.starts;
    d.parameters = problem_.program->layout().model_size();
    d.parameters_in_use = problem_.program->layout().size();
    d.rows = problem_.rows;
    d.row_check = problem_.row_check;
    d.widened_weights = problem_.overlay.widened;
    d.data_ranks = world_.size();
    d.micro_batch = analysis_->micro_batch();
    d.forecast_memory_bytes = layout_.plan.bytes.total();
    if (layout_.plan.run_s > 0) d.forecast_s = layout_.plan.run_s;
    d.peak_memory_bytes = world_.max(peak_memory_bytes());
  }

  /// Rank 0. @return the exit code
  int write(RunResult& result) {
    result.warnings = problem_.warnings;
    summarise(*result.inputs, static_cast<std::size_t>(config_.inputs.fragile), config_.accuracy.confidence);
    for (const std::string& warning : input_warnings(*result.inputs)) {
      result.warnings.push_back(warning);
      log_warning(warning);
    }
    result.process = process_info(run_, argv_, problem_, layout_);
    result.process.run_id = life_.start().state.run_id;
    result.process.start_time = life_.start_time();
    result.process.end_time = utc_time();
    set_sources(result.process, life_.hashing().sources());
    for (const std::string& line : findings(result)) log_info(line);
    life_.write(result);
    return exit_code_of(result);
  }

  const Invocation& run_;
  const RunConfig& config_;
  const std::vector<std::string>& argv_;
  RunLife& life_;
  Communicator& world_;
  Phases phases_{nullptr};
  Problem problem_;
  RunLayout layout_;
  InputsProgress progress_;
  std::unique_ptr<InputAnalysis> analysis_;
  Timer told_;
};

}  // namespace

int run_inputs(const Invocation& run, const std::vector<std::string>& argv, const StopSignal& signal,
               Communicator& world) {
  RunLife life(run, signal, world);
  return life.live({}, [&] { return InputsRun(run, argv, life, world).go(); });
}

std::vector<std::string> plan_inputs(const RunConfig& config, Communicator& world, bool& fits) {
  Problem problem = read_problem(config, 0, Weights::kStandIns, nullptr, world);
  std::unique_ptr<InputAnalysis> analysis = agreed(world, [&]() -> std::unique_ptr<InputAnalysis> {
    require_rows_alone(problem);
    if (!config.plan.measure) return nullptr;
    const DataShard shard = load_shard(*problem.file, problem.spec, world.size(), world.rank());
    return std::make_unique<InputAnalysis>(*problem.program, shard, options_of(config, problem),
                                           std::vector<RowRange>{});
  });
  const InputPlanning p = planned(config, problem, analysis.get(), world);
  fits = p.plan.fits;
  return describe(p.plan, p.problem, p.cost);
}

}  // namespace hesspect
