#include "driver.h"

#include <ATen/core/Tensor.h>
#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "dealer.h"
#include "goals.h"
#include "hesspect/comm/agree.h"
#include "hesspect/comm/heartbeat.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/hdf5_trial.h"
#include "hesspect/core/log.h"
#include "hesspect/core/text.h"
#include "hesspect/io/atomic_file.h"
#include "hesspect/io/result_file.h"
#include "hesspect/spectrum/density.h"
#include "planning.h"
#include "report.h"
#include "run_start.h"
#include "summary.h"
#include "worker.h"

namespace hesspect {
namespace {

using nlohmann::json;

/// How long a rank that failed waits for its group to fail in the same way.
constexpr double kMeetAtMost_s = 5;

/// @throws UsageError if the output is the same file as one of these
void require_no_input(const std::string& output, const std::vector<std::filesystem::path>& inputs) {
  for (const auto& input : inputs) {
    std::error_code error;  // where one of them does not exist
    if (std::filesystem::equivalent(output, input, error) && !error)
      throw UsageError("the output " + quote(output) + " is the input " + quote(input.string()));
  }
}

/// Ends the job from the heartbeat's thread: the main thread may wait for the lost rank for ever, and MPI_Abort too,
/// where the lost rank's host has gone with it.
void end_for_lost(int rank, const std::string& host, double silent_s, const std::string& checkpoint) {
  log_error("rank " + std::to_string(rank) + " on " + host + " has not been heard of for " +
            std::to_string(static_cast<int>(silent_s)) + " s and counts as lost; what was finished is in " +
            quote(checkpoint) + ", for --resume");
  std::thread([] { MPI_Abort(MPI_COMM_WORLD, static_cast<int>(ExitCode::kCommFailed)); }).detach();
  std::this_thread::sleep_for(std::chrono::seconds(5));
  _exit(static_cast<int>(ExitCode::kCommFailed));
}

/// How a run stands at its start, as every rank has to know it.
struct SharedStart {
  std::optional<int> finished;
  bool resumed = false;
  std::string run_id;
  std::optional<KeptLayout> layout;
};

SharedStart share(const RunStart& start, Communicator& world) {
  const json mine{{"finished", start.finished.value_or(-1)},
                  {"resumed", start.resumed},
                  {"run_id", start.state.run_id},
                  {"layout", start.state.plan}};
  const json j = json::parse(world.broadcast_bytes(mine.dump()));
  SharedStart shared{std::nullopt, j.at("resumed"), j.at("run_id"), std::nullopt};
  if (const int code = j.at("finished"); code >= 0) shared.finished = code;
  if (shared.resumed) shared.layout = kept_layout_from(j.at("layout"));
  return shared;
}

/// One run, on every rank.
class Run {
 public:
  Run(const Invocation& invocation, const std::vector<std::string>& argv, const StopSignal& signal, Communicator& world)
      : run_(invocation),
        config_(invocation.config),
        command_(to_string(invocation.command)),
        argv_(argv),
        signal_(signal),
        world_(world),
        folder_(checkpoint_folder(config_)) {}

  /// @return the exit code
  int go() {
    agree(world_, [&] {
      if (!first()) return;
      std::vector<std::filesystem::path> inputs{config_.model.model, config_.data.data};
      inputs.insert(inputs.end(), config_.model.weights.begin(), config_.model.weights.end());
      for (const std::string& output : outputs()) require_no_input(output, inputs);
      for (const std::string& file : {config_.eigs.eigenvectors, config_.trace.diagonal})
        if (!file.empty()) check_output(file, config_.output.force || config_.checkpoint.resume);
      if (std::filesystem::path(checkpoint_folder(config_)).lexically_normal() ==
          std::filesystem::path(config_.output.output).lexically_normal())
        throw UsageError("--checkpoint and --output name the same: " + quote(config_.output.output));
      start_ = begin_run(run_, folder_);
    });
    const SharedStart shared = share(start_, world_);
    if (shared.finished) {
      log_info("the result is there already: " + quote(config_.output.output));
      return *shared.finished;
    }
    try {
      return watched(shared);
    } catch (...) {
      leave_no_trace();
      throw;
    }
  }

 private:
  int watched(const SharedStart& shared) {
    const Heartbeat heartbeat(world_, config_.layout.lost_after_s,
                              [this](int rank, const std::string& host, double silent_s) {
                                end_for_lost(rank, host, silent_s, folder_.path().string());
                              });
    prepare(shared);
    return work(shared.run_id);
  }

  bool first() const { return world_.rank() == 0; }

  std::vector<std::string> outputs() const {
    std::vector<std::string> all{config_.output.output, config_.eigs.eigenvectors, config_.trace.diagonal};
    std::erase(all, "");
    return all;
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
  void prepare(const SharedStart& shared) {
    const std::optional<KeptLayout>& kept = shared.layout;
    const bool same_world = kept && kept->world == world_.size();
    const int threads = same_world && config_.compute.threads == 0 ? kept->threads : 0;
    problem_ = read_problem(config_, threads, Weights::kRequired, world_);
    agree(world_, [&] {
      if (!first()) return;
      for (const std::string& output : outputs()) require_no_input(output, problem_.weight_files);
      hashing_ = std::make_unique<SourceHashing>(config_.model.model, problem_.weight_files, config_.data.data);
      if (shared.resumed) require_same_sources(start_.state, *hashing_, folder_.path().string());
    });
    const std::string device = problem_.device.is_cuda() ? "cuda" : "cpu";
    if (same_world && kept->device == device && !asks_for_another(kept->plan)) {
      layout_ = *kept;
    } else {
      RunConfig config = config_;
      if (same_world && config.layout.groups == 0) config.layout.groups = kept->plan.groups;
      layout_.plan = plan_run(config, command_, problem_, kept ? &kept->plan : nullptr, world_).plan;
    }
    layout_.world = world_.size();
    layout_.threads = problem_.threads;
    layout_.device = device;
    if (kept) tell_differences(*kept);
    group_ = make_group(problem_, layout_.plan, world_);
    goals_ = goals_of(config_, command_, layout_.plan, layer_offsets(problem_), group_.op->shard().n);
    agree(world_, [&] {
      if (first() && !start_.resumed) folder_.clear();  // of an older run, now that this one can begin
    });
    begun_ = true;
    log_info(describe(problem_, layout_, group_));
  }

  /// Layout options that the user has given this time, which an earlier start's plan need not follow.
  bool asks_for_another(const Plan& kept) const {
    const LayoutConfig& asked = config_.layout;
    return (asked.groups > 0 && asked.groups != kept.groups) || asked.memory > 0 || asked.graph_memory >= 0 ||
           (asked.lock_step > 0 && asked.lock_step != kept.lock_step) ||
           (asked.basis_memory && asked.basis_memory != kept.basis_memory);
  }

  /// What makes a resumed run go on otherwise than the run that was stopped would have.
  void tell_differences(const KeptLayout& kept) const {
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

  std::unique_ptr<Dealer> make_dealer() {
    RunState state = start_.state;
    state.plan = to_text(layout_);
    if (!goals_.diagonal.empty()) {
      // The diagonal's sums went with the earlier start: its probes are taken again.
      const auto own = [](const auto& sample) {
        return sample.probe >= static_cast<std::int64_t>(kTraceProbes) + kSymmetryProbes;
      };
      std::erase_if(state.samples, own);
      std::erase_if(state.deflated, own);
    }
    if (start_.resumed)
      log_info("resumed from " + quote(folder_.path().string()) + ": " +
               format_count(static_cast<std::int64_t>(state.finished.size())) + " Lanczos runs and " +
               format_count(static_cast<std::int64_t>(state.samples.size())) + " samples of the trace are finished");
    return std::make_unique<Dealer>(std::move(state), goals_, group_.op->shard().n, folder_, *hashing_, timer_,
                                    layout_.plan.groups, checkpoints_s());
  }

  /// Between checkpoints, in seconds; 0: only when stopped.
  double checkpoints_s() const { return 60 * config_.checkpoint.checkpoint_minutes; }

  int work(const std::string& run_id) {
    std::unique_ptr<Dealer> dealer;
    agree(world_, [&] {
      if (first()) dealer = make_dealer();
    });
    {
      Desk desk(world_, [&](int rank, const std::string& question) { return dealer->answer(rank, question); });
      work_in_group(desk, run_id);
      world_.barrier();  // nobody asks any more
    }
    agree(world_, [&] {
      if (first()) end_work(*dealer);
    });
    if (world_.of_rank0(first() && dealer->stopped())) {
      log_info("stopped; the checkpoint is in " + quote(folder_.path().string()) + ", and --resume goes on from it");
      return static_cast<int>(ExitCode::kResubmit);
    }
    const Measured measured = measure(group_, world_);
    return write(dealer.get(), measured);
  }

  /// The last state, and what went wrong. @throws what the failed group did; InputError where a stopped run can't be
  /// kept
  void end_work(Dealer& dealer) {
    dealer.finish_progress();
    try {
      dealer.write_last();
    } catch (const InputError& error) {
      if (dealer.stopped() && !dealer.failure())
        throw InputError(std::string(error.what()) + "; the checkpoint before is as it was");
      log_warning(std::string("no checkpoint: ") + error.what());
    }
    if (dealer.failure()) throw Error(static_cast<ExitCode>(dealer.failure()->exit_code), dealer.failure()->message);
  }

  /// An error that the whole group shares stops the other groups at their next product, with a checkpoint. An error of
  /// one rank alone goes up, and ends the job.
  void work_in_group(Desk& desk, const std::string& run_id) {
    RunCheckpoint checkpoint(folder_, run_id, *group_.comm);
    const Worker::Clock clock{checkpoints_s(), 3600 * config_.checkpoint.max_hours, timer_};
    Worker worker(goals_, group_, desk, checkpoint, signal_, clock, layout_.plan.lock_step,
                  {vector_parts(problem_), run_id});
    FailureMeeting meeting(group_.number);
    try {
      if (group_.number == 0 && start_unchecked()) worker.check_symmetry();
      worker.run();
    } catch (...) {
      Failure failure = current_failure();
      if (!meeting.all_failed(failure.exit_code, kMeetAtMost_s)) throw;
      if (group_.leads()) Line(desk, group_.number).failed(failure);
    }
  }

  /// Group 0's ranks: the symmetry was not checked by an earlier start. Collective over group 0.
  bool start_unchecked() {
    std::int64_t samples = 0;
    for (const TraceSample& sample : start_.state.samples) {
      const std::int64_t number = sample.probe - static_cast<std::int64_t>(kTraceProbes);
      samples += number >= 0 && number < kSymmetryProbes;
    }
    return !group_.comm->of_rank0(start_.state.curvature_scale > 0 && samples == kSymmetryProbes);
  }

  /// @param dealer  rank 0's
  int write(const Dealer* dealer, const Measured& measured) {
    int code = 0;
    agree(world_, [&] {
      if (!first()) return;
      const RunState state = dealer->state();
      RunResult r = make_result({run_, argv_, problem_, layout_, goals_, dealer->schedule(), start_time_,
                                 timer_.elapsed_s(), state.product_s - start_.state.product_s},
                                state, measured);
      for (const auto& line : summary(r)) log_info(line);  // before a write that may fail
      try {
        write_result(config_.output.output, r);
      } catch (const InputError& error) {
        throw InputError(std::string(error.what()) + "; what was computed is in " + quote(folder_.path().string()) +
                         ", and --resume writes it again");
      }
      remove_or_warn(folder_);  // the run is done all the same
      log_info("  result        " + quote(config_.output.output));
      code = exit_code_of(r);
    });
    return world_.of_rank0(code);
  }

  const Invocation& run_;
  const RunConfig& config_;
  const std::string command_;
  const std::vector<std::string>& argv_;
  const StopSignal& signal_;
  Communicator& world_;
  CheckpointFolder folder_;
  const Timer timer_;
  const std::string start_time_ = utc_time();
  RunStart start_;  // rank 0
  Problem problem_;
  KeptLayout layout_;
  std::unique_ptr<SourceHashing> hashing_;  // rank 0
  Group group_;
  Goals goals_;
  bool begun_ = false;
};

}  // namespace

int run_spectrum(const Invocation& run, const std::vector<std::string>& argv, const StopSignal& signal,
                 Communicator& world) {
  return Run(run, argv, signal, world).go();
}

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
    options.n = result.diagnostics.parameters;
    result.density = density(result.quadrature, options);
    result.process.argv = argv;
    RunConfig config = from_ini(result.process.config, "the configuration in " + quote(output.from));
    config.quadrature.sigma = options.sigma;
    result.process.config = to_ini(config);
    result.process.end_time = utc_time();
    write_result(output.output, result);
    log_info("density of " + std::to_string(result.quadrature.size()) + " probes with sigma " +
             number(result.density->sigma) + " in " + quote(output.output));
  });
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace hesspect
