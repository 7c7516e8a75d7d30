#include "run_life.h"

#include <algorithm>
#include <filesystem>
#include <optional>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"
#include "hesspect/core/text.h"
#include "planning.h"
#include "process.h"
#include "sharded.h"

namespace hesspect {
namespace {

/// Writing takes no more than one part in so many of the time.
constexpr double kWritingShare = 20;

}  // namespace

RunLife::RunLife(const Invocation& run, const StopSignal& signal, Communicator& world)
    : run_(run),
      config_(run.config),
      signal_(signal),
      world_(world),
      folder_(checkpoint_folder(run.config)),
      start_time_(utc_time()) {}

int RunLife::live(const std::vector<std::string>& beside, const std::function<int()>& work) {
  outputs_ = {config_.output.output};
  for (const std::string& file : beside)
    if (!file.empty()) outputs_.push_back(file);
  agree(world_, [&] {
    if (!first()) return;
    check_outputs(config_, outputs_);
    start_ = begin_run(run_, folder_);
  });
  start_ = shared(start_, world_);
  if (start_.finished) {
    log_info("the result is there already: " + quote(config_.output.output));
    return *start_.finished;
  }
  try {
    return work();
  } catch (const RunStopped&) {
    return stopped();
  } catch (...) {
    leave_no_trace();
    throw;
  }
}

void RunLife::leave_no_trace() {
  if (!first() || begun_ || !start_.fresh) return;
  try {
    folder_.remove();
  } catch (const InputError&) {  // the error that ended the run is the one to tell of
  }
}

int RunLife::threads() const {
  const RunLayout& kept = start_.state.layout;
  return start_.resumed && kept.world == world_.size() && config_.compute.threads == 0 ? kept.threads : 0;
}

void RunLife::take_sources(const Problem& problem) {
  if (hashing_) return;  // of an earlier look at the same files
  agree(world_, [&] {
    if (!first()) return;
    for (const std::string& output : outputs_) require_no_input(output, problem.weight_files);
  });
  hashing_ = std::make_unique<SourceHashing>(config_.model.model, problem.weight_files, config_.data.data, world_);
  if (!start_.resumed) return;
  if (world_.any(first() && knows_digests(start_.state))) hashing_->gather(world_);
  agree(world_, [&] {
    if (first()) require_same_sources(start_.state, *hashing_, folder_name());
  });
}

/// Layout options that the user has given this time, which an earlier start's plan need not follow.
bool RunLife::asks_for_another(const Plan& kept) const {
  const LayoutConfig& asked = config_.layout;
  return (asked.groups > 0 && asked.groups != kept.groups) || asked.memory > 0 || asked.graph_memory >= 0 ||
         (asked.lock_step > 0 && asked.lock_step != kept.lock_step) ||
         (asked.parameters != ParameterMemory::kAuto && asked.parameters != kept.parameters) ||
         (asked.basis_memory && *asked.basis_memory != kept.basis_memory);
}

RunLayout RunLife::planned(const RunConfig& given, const Goals& goals, Problem& problem, const std::string& kept_what,
                           const Plan* resident) {
  const std::optional<RunLayout> kept = start_.resumed ? std::optional(start_.state.layout) : std::nullopt;
  const bool same_world = kept && kept->world == world_.size();
  RunLayout layout;
  const std::string device = problem.device.is_cuda() ? "cuda" : "cpu";
  if (same_world && kept->device == device && !asks_for_another(kept->plan)) {
    layout = *kept;
  } else if (!kept && resident != nullptr) {
    layout.plan = *resident;
  } else {
    RunConfig config = given;
    if (same_world && config.layout.groups == 0) config.layout.groups = kept->plan.groups;
    layout.plan = plan_run(config, goals, problem, kept ? &kept->plan : nullptr, world_);
  }
  layout.world = world_.size();
  layout.threads = problem.threads;
  layout.device = device;
  if (kept) tell_differences(layout, kept_what);
  return layout;
}

void RunLife::tell_differences(const RunLayout& now, const std::string& kept_what) const {
  const RunLayout& kept = start_.state.layout;
  std::string text;
  const auto tell = [&](const std::string& what, const auto& then, const auto& is) {
    if (then != is) text += (text.empty() ? "" : ", ") + what;
  };
  tell(std::to_string(now.plan.data_ranks) + " ranks a group instead of " + std::to_string(kept.plan.data_ranks),
       kept.plan.data_ranks, now.plan.data_ranks);
  tell(std::to_string(now.threads) + " threads instead of " + std::to_string(kept.threads), kept.threads, now.threads);
  tell(now.device + " instead of " + kept.device, kept.device, now.device);
  if (!text.empty())
    log_warning("resumed on " + text + ": " + kept_what + ", but rounding differs from the run that was stopped");
}

void RunLife::begin() {
  agree(world_, [&] {
    if (first() && !start_.resumed) folder_.clear();  // of an older run, now that this one can begin
  });
  begun_ = true;
}

bool RunLife::is_to_stop() const {
  const double most_s = 3600 * config_.checkpoint.max_hours;
  return signal_.received() || (most_s > 0 && timer_.elapsed_s() > most_s);
}

void RunLife::save_if_due(bool at_once, bool must, const RunLayout& layout,
                          const std::function<void(LedgerState&)>& add) {
  hashing_->gather_if_done(world_);
  agree(world_, [&] {
    if (!first() || (!at_once && since_written_.elapsed_s() < write_every_s_)) return;
    const Timer timer;
    try_to_write(must, [&] {
      LedgerState state = start_.state;
      state.layout = layout;
      state.elapsed_s += timer_.elapsed_s();
      const Sources& files = hashing_->sources();
      state.model = files.model;
      state.weights = files.weights;
      state.data = files.data;
      add(state);
      write_state(folder_, state);
    });
    write_every_s_ = std::max(1.0, kWritingShare * timer.elapsed_s());
    since_written_.reset();
  });
}

void RunLife::try_to_write(bool must, const std::function<void()>& write) {
  try {
    write();
    warned_ = false;
  } catch (const InputError& error) {
    if (must) throw InputError(std::string(error.what()) + "; the checkpoint before is as it was");
    if (!warned_) log_warning(std::string("no checkpoint: ") + error.what());
    warned_ = true;
  }
}

std::string RunLife::folder_name() const { return folder_.path().string(); }

int RunLife::stopped() const {
  log_info("stopped; the checkpoint is in " + quote(folder_name()) + ", and --resume goes on from it");
  return static_cast<int>(ExitCode::kResubmit);
}

void RunLife::write(const RunResult& result, const std::function<void()>& save) {
  try {
    write_result(config_.output.output, result);
  } catch (const InputError& error) {
    if (save) try {
        save();
      } catch (const InputError&) {  // on the same full disk, as a rule
        throw error;
      }
    throw InputError(std::string(error.what()) + "; what was computed is in " + quote(folder_name()) +
                     ", and --resume writes it again");
  }
  remove_or_warn(folder_);  // the run is done all the same
  log_info("  result          " + quote(config_.output.output));
}

}  // namespace hesspect
