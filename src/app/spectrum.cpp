#include "spectrum.h"

#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <span>
#include <thread>

#include "facts.h"
#include "hesspect/comm/agree.h"
#include "hesspect/comm/end_job.h"
#include "hesspect/comm/heartbeat.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"
#include "hesspect/core/phases.h"
#include "hesspect/core/text.h"
#include "hesspect/io/atomic_file.h"
#include "hesspect/io/result_file.h"
#include "hesspect/report/assemble.h"
#include "hesspect/report/text.h"
#include "hesspect/run/work.h"
#include "hesspect/tangent/tangent_program.h"
#include "initial_weights.h"
#include "planning.h"
#include "process.h"
#include "run_start.h"
#include "sharded.h"

namespace hesspect {
namespace {

/// Ends the job from the heartbeat's thread: the main thread may wait for the lost rank for ever, and MPI_Abort too,
/// where the lost rank's host has gone with it.
void end_for_lost(int rank, const std::string& host, double silent_s, const std::string& checkpoint) {
  log_error("rank " + std::to_string(rank) + " on " + host + " has not been heard of for " +
            std::to_string(static_cast<int>(silent_s)) + " s and counts as lost; what was finished is in " +
            quote(checkpoint) + ", for --resume");
  std::thread([] { abort_job(static_cast<int>(ExitCode::kCommFailed)); }).detach();
  std::this_thread::sleep_for(std::chrono::seconds(5));
  _exit(static_cast<int>(ExitCode::kCommFailed));
}

/// A product's time over that in full precision, from which on there is no gain that a clock may have missed.
constexpr double kSlower = 1.1;

/// @throws UsageError where eigenvalues or the trace can't be found to the accuracy asked for
std::vector<std::string> precision_warnings(const RunConfig& config, const Goals& goals,
                                            const PrecisionEffect& effect) {
  const std::string name = "--precision " + to_string(config.compute.precision);
  const auto figure = [](double x) {
    char text[32];
    std::snprintf(text, sizeof text, "%.1e", x);
    return std::string(text);
  };
  std::vector<std::string> warnings;
  if (effect.error == 0)
    return {name + " changes nothing: this model's products of matrices are all too small for such units, or of a " +
            "kind that they don't take"};
  if (effect.time > kSlower)
    warnings.push_back(name + " takes " + format_number(effect.time) +
                       " times as long as fp32 here, and gains nothing");
  const auto heed = [&](const std::string& option, double asked, double error, double safe, const std::string& what) {
    const std::string finding =
        option + " " + format_number(asked) + " with " + name + ", whose " + what + " by " + figure(error);
    const std::string advice = "give " + option + " " + figure(2 * safe) + " or more, or --precision fp32";
    if (asked < error) throw UsageError(finding + ": that can't be reached; " + advice);
    if (asked < safe) warnings.push_back(finding + ": it may not be reached; " + advice);
  };
  if (goals.eigen)
    heed("--rtol-eigs", goals.eigen->rtol, effect.leading_error, goals.eigen_error,
         "products with leading eigenvectors differ from full precision's");
  if (goals.trace && goals.trace->rule.rtol > 0)
    heed("--rtol-trace", goals.trace->rule.rtol, effect.rayleigh_error, goals.rounding,
         "Rayleigh quotients differ from full precision's");
  return warnings;
}

/// Ops that are told of with --verbose.
constexpr std::size_t kMostOps = 15;

/// What is about to run, in one line.
std::string describe(const Problem& p, const RunLayout& layout, const Group& group) {
  const Plan& plan = layout.plan;
  const auto counted = [](std::int64_t count, const std::string& what) {
    return format_count(count) + " " + what + (count == 1 ? "" : "s");
  };
  std::string ranks =
      counted(layout.world, "rank") + " of " + counted(layout.threads, "thread") + " on " + layout.device;
  if (plan.groups > 1) ranks = counted(plan.groups, "group") + " of " + std::to_string(plan.data_ranks) + ", " + ranks;
  if (plan.lock_step > 1) ranks += ", " + std::to_string(plan.lock_step) + " probes at a time";
  const std::int64_t unit_rows = p.options.units.rows;
  const ParameterLayout& parameters = p.program->layout();
  const bool is_whole = parameters.size() == parameters.model_size();
  const std::string of_model =
      p.selected.empty() ? "" : " of the model's " + format_count(p.model_parameters) + " (--params, --exclude)";
  return format_count(parameters.model_size()) + of_model + " parameters" +
         (is_whole ? "" : ", " + format_count(parameters.size()) + " of them in use") + ", " + format_count(p.rows) +
         " rows " + (unit_rows > 1 ? "in units of " + format_count(unit_rows) + ", " : "") + "in micro-batches of " +
         std::to_string(group.op->stats().micro_batch) +
         (p.options.loss.reduction == Reduction::kSum ? ", summed" : ",") + " loss " + format_number(group.op->loss()) +
         "; " + ranks;
}

/// One run, on every rank.
class Run {
 public:
  Run(const Invocation& invocation, const std::vector<std::string>& argv, const StopSignal& signal, Communicator& world)
      : run_(invocation),
        config_(invocation.config),
        argv_(argv),
        signal_(signal),
        world_(world),
        folder_(checkpoint_folder(config_)),
        timeline_(config_.output.trace_json.empty() || world.rank() != 0 ? nullptr : std::make_unique<Timeline>()) {}

  /// @return the exit code
  int go() {
    agree(world_, [&] {
      if (!first()) return;
      check_outputs();
      start_ = begin_run(run_, folder_);
    });
    start_ = shared(start_, world_);
    if (start_.finished) {
      log_info("the result is there already: " + quote(config_.output.output));
      return *start_.finished;
    }
    try {
      const Heartbeat heartbeat(world_, config_.layout.lost_after_s,
                                [this](int rank, const std::string& host, double silent_s) {
                                  end_for_lost(rank, host, silent_s, folder_.path().string());
                                });
      prepare();
      return compute();
    } catch (...) {
      leave_no_trace();
      throw;
    }
  }

 private:
  bool first() const { return world_.rank() == 0; }

  std::vector<std::string> outputs() const {
    std::vector<std::string> all{config_.output.output, config_.eigs.eigenvectors, config_.trace.diagonal,
                                 config_.output.trace_json};
    std::erase(all, "");
    return all;
  }

  void check_outputs() const {
    std::vector<std::filesystem::path> inputs{config_.model.model, config_.data.data};
    inputs.insert(inputs.end(), config_.model.weights.begin(), config_.model.weights.end());
    if (!config_.model.initial_weights.empty()) inputs.emplace_back(config_.model.initial_weights);
    if (!config_.features.from.empty() && config_.features.from != "auto") inputs.push_back(config_.features.from);
    for (const std::string& output : outputs()) require_no_input(output, inputs);
    for (const std::string& file : {config_.eigs.eigenvectors, config_.trace.diagonal, config_.output.trace_json})
      if (!file.empty()) check_output(file, config_.output.force || config_.checkpoint.resume);
    if (folder_.path().lexically_normal() == std::filesystem::path(config_.output.output).lexically_normal())
      throw UsageError("--checkpoint and --output name the same: " + quote(config_.output.output));
  }

  /// A run that never began leaves no trace of itself.
  void leave_no_trace() {
    if (!first() || begun_ || !start_.fresh) return;
    try {
      folder_.remove();
    } catch (const InputError&) {  // the error that ended the run is the one to tell of
    }
  }

  /// Reads, checks, plans, divides the ranks.
  void prepare() {
    const std::optional<RunLayout> kept = start_.resumed ? std::optional(start_.state.layout) : std::nullopt;
    const bool same_world = kept && kept->world == world_.size();
    const int threads = same_world && config_.compute.threads == 0 ? kept->threads : 0;
    problem_ = read_problem(config_, threads, Weights::kRequired, &phases_, world_);
    agree(world_, [&] {
      if (!first()) return;
      for (const std::string& output : outputs()) require_no_input(output, problem_.weight_files);
      hashing_ = std::make_unique<SourceHashing>(config_.model.model, problem_.weight_files, config_.data.data);
      if (start_.resumed) require_same_sources(start_.state, *hashing_, folder_.path().string());
    });
    if (!config_.model.initial_weights.empty())
      agree(world_, [&] {
        if (first()) initial_ = distance_from(config_, problem_);
      });
    goals_ = goals_with_blocks(run_.command, config_, problem_, world_);
    problem_.options.row_groups = kept ? kept->row_groups : config_.accuracy.data_error;
    const std::string device = problem_.device.is_cuda() ? "cuda" : "cpu";
    if (same_world && kept->device == device && !asks_for_another(kept->plan)) {
      layout_ = *kept;
    } else {
      RunConfig config = config_;
      if (same_world && config.layout.groups == 0) config.layout.groups = kept->plan.groups;
      layout_.plan = plan_run(config, goals_, problem_, kept ? &kept->plan : nullptr, world_);
    }
    layout_.world = world_.size();
    layout_.threads = problem_.threads;
    layout_.device = device;
    if (kept) tell_differences(*kept);
    group_ = make_group(problem_, layout_.plan, world_);
    if (group_.op->is_sharded()) check_rows_of_shards(config_, problem_, *group_.op, world_);
    layout_.row_groups = group_.op->row_groups().count();
    heed_precision();
    agree(world_, [&] {
      if (first() && !start_.resumed) folder_.clear();  // of an older run, now that this one can begin
    });
    begun_ = true;
    log_info(describe(problem_, layout_, group_));
    if (goals_.blocks)
      log_info(describe_blocks(layout_.plan, std::ssize(goals_.blocks->parts), !goals_.blocks->features.empty()));
  }

  /// What the products' precision changes, in the goals; and what it rules out. Collective.
  void heed_precision() {
    if (config_.compute.precision == MatrixPrecision::kFp32) return;
    const PrecisionEffect effect = world_.of_rank0(group_.op->precision_effect());
    set_precision(goals_, effect);
    agree(world_, [&] {
      for (const std::string& warning : precision_warnings(config_, goals_, effect)) {
        problem_.warnings.push_back(warning);
        log_warning(warning);
      }
    });
  }

  /// Layout options that the user has given this time, which an earlier start's plan need not follow.
  bool asks_for_another(const Plan& kept) const {
    const LayoutConfig& asked = config_.layout;
    return (asked.groups > 0 && asked.groups != kept.groups) || asked.memory > 0 || asked.graph_memory >= 0 ||
           (asked.lock_step > 0 && asked.lock_step != kept.lock_step) ||
           (asked.basis_memory && *asked.basis_memory != kept.basis_memory);
  }

  /// What makes a resumed run go on otherwise than the run that was stopped would have.
  void tell_differences(const RunLayout& kept) const {
    std::string text;
    const auto tell = [&](const std::string& what, const auto& then, const auto& now) {
      if (then != now) text += (text.empty() ? "" : ", ") + what;
    };
    tell(std::to_string(layout_.plan.data_ranks) + " ranks a group instead of " + std::to_string(kept.plan.data_ranks),
         kept.plan.data_ranks, layout_.plan.data_ranks);
    tell(std::to_string(layout_.threads) + " threads instead of " + std::to_string(kept.threads), kept.threads,
         layout_.threads);
    tell(layout_.device + " instead of " + kept.device, kept.device, layout_.device);
    if (!text.empty())
      log_warning("resumed on " + text +
                  ": finished probes are kept and the others go on from their Lanczos vectors, but " +
                  "rounding differs from the run that was stopped");
  }

  /// The ledger's state at the start. Rank 0's.
  LedgerState first_state() const {
    LedgerState state = start_.state;
    state.layout = layout_;
    if (goals_.writes_diagonal()) give_up_own_samples(state);  // the diagonal's sums went with the earlier start
    if (start_.resumed)
      log_info("resumed from " + quote(folder_.path().string()) + ": " +
               format_count(static_cast<std::int64_t>(state.finished.size())) + " Lanczos runs and " +
               format_count(static_cast<std::int64_t>(state.samples.size())) + " samples of the trace are finished");
    return state;
  }

  int compute() {
    const WorkClock clock{60 * config_.checkpoint.checkpoint_minutes, 3600 * config_.checkpoint.max_hours, timer_};
    const ParameterParts parameters = parameter_parts(*problem_.program);
    WorkDone done;
    {
      const PhaseTimer timer(&phases_, Phase::kKrylov, "work");
      done = work({goals_, layout_.plan, group_, folder_, parameters, signal_, clock, start_.state.run_id, &phases_},
                  first() ? first_state() : LedgerState{}, hashing_.get(), world_);
    }
    tell_ops();
    if (done.stopped) {
      log_info("stopped; the checkpoint is in " + quote(folder_.path().string()) + ", and --resume goes on from it");
      return static_cast<int>(ExitCode::kResubmit);
    }
    RunFacts facts = run_facts(run_, argv_, problem_, layout_, group_, start_time_, world_);
    int code = 0;
    agree(world_, [&] {
      if (first()) code = write(std::move(facts), *done.ledger);
    });
    return world_.of_rank0(code);
  }

  /// Rank 0. @return the exit code
  int write(RunFacts facts, const Ledger& ledger) {
    const double product_s = ledger.state(0).product_s - start_.state.product_s;
    facts.diagnostics.phases = phases_.seconds();
    facts.initial = std::move(initial_);
    const RunResult result = assemble(std::move(facts), goals_, ledger, timer_.elapsed_s(), product_s);
    for (const auto& line : findings(result)) log_info(line);  // before a write that may fail
    try {
      const PhaseTimer timer(&phases_, Phase::kFiles, "result");
      write_result(config_.output.output, result);
    } catch (const InputError& error) {
      throw InputError(std::string(error.what()) + "; what was computed is in " + quote(folder_.path().string()) +
                       ", and --resume writes it again");
    }
    remove_or_warn(folder_);  // the run is done all the same
    write_timeline();
    log_info("  result          " + quote(config_.output.output));
    return exit_code_of(result);
  }

  /// Where the sweeps' time went, the longest ops first.
  void tell_ops() const {
    const std::vector<OpSeconds> ops = group_.op->op_seconds();
    double all_s = 0;
    for (const OpSeconds& op : ops) all_s += op.total_s();
    for (std::size_t i = 0; i < std::min(ops.size(), kMostOps) && ops[i].total_s() > 0.005 * all_s; ++i) {
      const OpSeconds& op = ops[i];
      log_debug(op.op + (op.own ? "" : " (left to autograd)") + ": " + format_duration(op.total_s()) + ", " +
                format_number(std::round(100 * op.total_s() / all_s)) + " %; values " + format_duration(op.value_s) +
                ", tangents " + format_duration(op.tangent_s) + ", adjoints " + format_duration(op.adjoint_s) +
                ", their tangents " + format_duration(op.adjoint_tangent_s));
    }
  }

  /// The result is there all the same where it cannot be written.
  void write_timeline() const {
    if (config_.output.trace_json.empty()) return;
    const std::string text = timeline_->as_json();
    try {
      write_file_atomically(config_.output.trace_json, std::as_bytes(std::span(text)));
      log_info("  timeline        " + quote(config_.output.trace_json));
    } catch (const InputError& error) {
      log_warning(error.what());
    }
  }

  const Invocation& run_;
  const RunConfig& config_;
  const std::vector<std::string>& argv_;
  const StopSignal& signal_;
  Communicator& world_;
  CheckpointFolder folder_;
  const Timer timer_;
  const std::unique_ptr<Timeline> timeline_;  // where one is asked for
  Phases phases_{timeline_.get()};
  const std::string start_time_ = utc_time();
  RunStart start_;  // its state is rank 0's, but for run_id and layout
  Problem problem_;
  Goals goals_;
  RunLayout layout_;
  std::optional<InitialDistance> initial_;  // rank 0's
  std::unique_ptr<SourceHashing> hashing_;  // rank 0's
  Group group_;
  bool begun_ = false;
};

}  // namespace

int run_spectrum(const Invocation& run, const std::vector<std::string>& argv, const StopSignal& signal,
                 Communicator& world) {
  return Run(run, argv, signal, world).go();
}

}  // namespace hesspect
