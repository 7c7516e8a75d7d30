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
#include "resident.h"
#include "run_life.h"
#include "sharded.h"
#include "vectors_from.h"

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
  Run(const Invocation& invocation, const std::vector<std::string>& argv, RunLife& life, ResidentProblem* resident,
      const std::string& start_vectors, const std::function<void(const RunResult&)>& taken, Communicator& world)
      : run_(invocation),
        config_(invocation.config),
        argv_(argv),
        life_(life),
        resident_(resident),
        start_vectors_(start_vectors),
        taken_(taken),
        world_(world),
        timeline_(config_.output.trace_json.empty() || !life.first() ? nullptr : std::make_unique<Timeline>()) {}

  /// @return the exit code
  int go() {
    const Heartbeat heartbeat(world_, config_.layout.lost_after_s,
                              [this](int rank, const std::string& host, double silent_s) {
                                end_for_lost(rank, host, silent_s, life_.folder_name());
                              });
    prepare();
    const int code = compute();
    if (resident_ != nullptr) {
      group_.op.reset();  // it borrows the problem
      resident_->give_back(std::move(problem_));
    }
    return code;
  }

 private:
  /// Reads, checks, plans, divides the ranks.
  void prepare() {
    read_and_plan_where_it_fits();
    group_ = make_group(problem_, layout_.plan, world_);
    if (group_.op->is_sharded()) check_rows_of_shards(config_, problem_, *group_.op, world_);
    layout_.row_groups = group_.op->row_groups().count();
    heed_precision();
    life_.begin();
    log_info(describe(problem_, layout_, group_));
    if (goals_.blocks)
      log_info(describe_blocks(layout_.plan, std::ssize(goals_.blocks->parts), !goals_.blocks->features.empty()));
  }

  /// With all parameters on every rank; where that does not fit, and the choice is free, in another way. Collective.
  void read_and_plan_where_it_fits() {
    const RunStart& start = life_.start();
    std::vector<ParameterMemory> ways = ways_beside_replicated(run_, world_.size());
    const ParameterMemory kept = start.state.layout.plan.parameters;
    const auto go_on_as = [&](ParameterMemory way) {
      if (std::ranges::find(ways, way) == ways.end()) return;
      config_.layout.parameters = way;
      ways.clear();
    };
    if (start.resumed) go_on_as(kept);
    // What an earlier run in this process has found, of the same problem and options.
    if (const Plan* known = known_plan()) go_on_as(known->parameters);
    for (std::string finding;;) {
      try {
        read_and_plan();
        if (!finding.empty())
          log_info("parameters are " + in_words(config_.layout.parameters) + " (--parameters auto): " + finding);
        return;
      } catch (const MemoryError& error) {  // the same on all ranks
        if (ways.empty()) throw;
        finding += (finding.empty() ? "with all of them on every rank " : "; ") + std::string(error.what());
      }
      problem_ = {};
      config_.layout.parameters = ways.front();
      ways.erase(ways.begin());
    }
  }

  static std::string in_words(ParameterMemory way) {
    return way == ParameterMemory::kHost ? "in host memory" : to_string(way);
  }

  void read_and_plan() {
    const RunStart& start = life_.start();
    problem_ = resident_ != nullptr ? resident_->take(config_, life_.threads(), &phases_, world_)
                                    : read_problem(config_, life_.threads(), Weights::kRequired, &phases_, world_);
    life_.take_sources(problem_);
    if (!config_.model.initial_weights.empty()) initial_ = distance_from(config_, problem_, world_);
    goals_ = goals_with_blocks(run_.command, config_, problem_, world_);
    problem_.options.row_groups = start.resumed ? start.state.layout.row_groups : config_.accuracy.data_error;
    const Plan* const known = known_plan();
    if (known != nullptr) problem_.options.check_double_backward = false;  // was tried when it was made
    layout_ = life_.planned(for_the_plan(), goals_, problem_,
                            "finished probes are kept and the others go on from their Lanczos vectors", known);
    if (resident_ != nullptr && !start.resumed && known == nullptr) resident_->keep_plan(plan_key_, layout_.plan);
  }

  /// That an earlier run in this process has made, of the problem that is resident now and the same options.
  const Plan* known_plan() {
    if (resident_ == nullptr || life_.start().resumed) return nullptr;
    if (plan_key_.empty()) plan_key_ = plan_key_of(run_);
    return resident_->plan_of(plan_key_);
  }

  /// The options that the plan goes by. In a run that others follow in this process each message is waited for, so that
  /// none is under way when a rank fails: nothing is fetched ahead.
  RunConfig for_the_plan() const {
    RunConfig config = config_;
    if (resident_ == nullptr || !is_sharded(config_) || problem_.device.is_cuda()) return config;
    if (config.layout.fetch_ahead == true)
      log_info("--fetch-ahead on does nothing in the runs of a series or a service, which wait for each message");
    config.layout.fetch_ahead = false;
    return config;
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

  /// The ledger's state at the start. Rank 0's.
  LedgerState first_state() const {
    LedgerState state = life_.start().state;
    state.layout = layout_;
    if (goals_.writes_diagonal()) give_up_own_samples(state);  // the diagonal's sums went with the earlier start
    if (life_.start().resumed)
      log_info("resumed from " + quote(life_.folder_name()) + ": " +
               format_count(static_cast<std::int64_t>(state.finished.size())) + " Lanczos runs and " +
               format_count(static_cast<std::int64_t>(state.samples.size())) + " samples of the trace are finished");
    return state;
  }

  /// This rank's shards of the vectors that the search for eigenvalues begins with, of group 0. Collective.
  std::vector<at::Tensor> start_vectors() {
    std::vector<at::Tensor> shards;
    if (start_vectors_.empty()) return shards;
    std::unique_ptr<EigenvectorFile> file;
    agree(world_, [&] {
      if (group_.number == 0) file = std::make_unique<EigenvectorFile>(start_vectors_, problem_.program->layout());
    });
    const std::int64_t count = world_.of_rank0(file ? file->count() : 0);
    for (std::int64_t i = 0; i < count; ++i) {
      EigenvectorFile::Local local;
      agree(world_, [&] {
        if (file) local = file->local_at(i, group_.op->shard());
      });
      const std::vector<double> squares = world_.sum({local.held, local.whole});
      agree(world_, [&] {
        if (file && !EigenvectorFile::Local::is_of_no_use(squares[0], squares[1]))
          shards.push_back(local.entries.div_(std::sqrt(squares[0])).to(group_.op->options()));
      });
    }
    return shards;
  }

  int compute() {
    const WorkClock clock{60 * config_.checkpoint.checkpoint_minutes, 3600 * config_.checkpoint.max_hours,
                          life_.timer()};
    const ParameterParts parameters = parameter_parts(*problem_.program);
    WorkDone done;
    {
      const PhaseTimer timer(&phases_, Phase::kKrylov, "work");
      done = work({goals_, layout_.plan, group_, life_.folder(), parameters, life_.signal(), clock, life_.hashing(),
                   life_.start().state.run_id, &phases_, start_vectors()},
                  life_.first() ? first_state() : LedgerState{}, world_);
    }
    tell_ops();
    if (done.stopped) return life_.stopped();
    RunFacts facts = run_facts(run_, argv_, problem_, layout_, group_, life_.start_time(), world_);
    int code = 0;
    agree(world_, [&] {
      if (life_.first()) code = write(std::move(facts), done);
    });
    return world_.of_rank0(code);
  }

  /// Rank 0. @return the exit code
  int write(RunFacts facts, const WorkDone& done) {
    const Ledger& ledger = *done.ledger;
    const double product_s = ledger.state(0).product_s - life_.start().state.product_s;
    facts.diagnostics.phases = phases_.seconds();
    facts.initial = std::move(initial_);
    const RunResult result = assemble(std::move(facts), goals_, ledger, life_.timer().elapsed_s(), product_s);
    for (const auto& line : findings(result)) log_info(line);  // before a write that may fail
    {
      const PhaseTimer timer(&phases_, Phase::kFiles, "result");
      const auto save = [&] { write_state(life_.folder(), ledger.state(life_.timer().elapsed_s())); };
      life_.write(result, done.is_saved ? nullptr : std::function<void()>(save));
    }
    if (taken_) taken_(result);
    write_timeline();
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
  RunConfig config_;  // the invocation's, with what is chosen here
  const std::vector<std::string>& argv_;
  RunLife& life_;
  ResidentProblem* const resident_;  // nullptr: none
  std::string plan_key_;
  const std::string& start_vectors_;
  const std::function<void(const RunResult&)>& taken_;
  Communicator& world_;
  const std::unique_ptr<Timeline> timeline_;  // where one is asked for
  Phases phases_{timeline_.get()};
  Problem problem_;
  Goals goals_;
  RunLayout layout_;
  std::optional<InitialDistance> initial_;  // rank 0's
  Group group_;
};

}  // namespace

int run_spectrum(const Invocation& run, const std::vector<std::string>& argv, const StopSignal& signal,
                 Communicator& world, ResidentProblem* resident, const std::string& start_vectors,
                 const std::function<void(const RunResult&)>& taken) {
  const RunConfig& config = run.config;
  RunLife life(run, signal, world);
  return life.live({config.eigs.eigenvectors, config.trace.diagonal, config.output.trace_json},
                   [&] { return Run(run, argv, life, resident, start_vectors, taken, world).go(); });
}

}  // namespace hesspect
