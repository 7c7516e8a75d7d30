// Rank 0 looks into the spool, takes a job, and tells the others; what happens to the spool happens on rank 0 alone. A
// run is carried out by run_contained, so that the ranks are together again whatever becomes of it.
#include "serve.h"

#include <ATen/Parallel.h>
#include <mpi.h>
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <thread>

#include "hesspect/comm/agree.h"
#include "hesspect/comm/containment.h"
#include "hesspect/comm/end_job.h"
#include "hesspect/comm/heartbeat.h"
#include "hesspect/config/job_options.h"
#include "hesspect/config/service_options.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"
#include "hesspect/core/log_file.h"
#include "hesspect/core/stop_request.h"
#include "hesspect/core/text.h"
#include "hesspect/core/timer.h"
#include "hesspect/io/fields.h"
#include "hesspect/io/result_file.h"
#include "hesspect/run/products_kept.h"
#include "hesspect/service/allowed_paths.h"
#include "hesspect/service/claims.h"
#include "hesspect/watch/shown.h"
#include "one_run.h"
#include "resident.h"
#include "run_metrics.h"
#include "sharded.h"
#include "spectrum.h"

namespace hesspect {
namespace {

namespace fs = std::filesystem;

constexpr int kAllDone = static_cast<int>(ExitCode::kDone);
constexpr int kNotConverged = static_cast<int>(ExitCode::kNotConverged);
constexpr int kStopped = static_cast<int>(ExitCode::kResubmit);

constexpr double kTakeOverEvery_s = 10;
constexpr double kShowEvery_s = 2;
constexpr std::size_t kShownEnded = 200;
constexpr double kFirstBackOff_s = 1, kLongestBackOff_s = 60;

/// What all ranks are to do next.
struct Order {
  bool ends = false;
  std::int64_t exit_code = 0;  // where it ends
  std::string id, command, config;
};

void fields(auto& v, Is<Order> auto& order) {
  v("ends", order.ends, "exit_code", order.exit_code, "id", order.id, "command", order.command, "config", order.config);
}

/// Ends the job from the heartbeat's thread, as a run's does (spectrum.cpp).
void end_service_for_lost(int rank, const std::string& host, double silent_s) {
  log_error("rank " + std::to_string(rank) + " on " + host + " has not been heard of for " +
            std::to_string(static_cast<int>(silent_s)) + " s and counts as lost; the next service takes its job over");
  std::thread([] { abort_job(static_cast<int>(ExitCode::kCommFailed)); }).detach();
  std::this_thread::sleep_for(std::chrono::seconds(5));
  _exit(static_cast<int>(ExitCode::kCommFailed));
}

/// Waits for files that come into a folder. On file systems that tell of none it just sleeps.
class Arrivals {
 public:
  explicit Arrivals(const fs::path& folder) : fd_(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
    if (fd_ >= 0) inotify_add_watch(fd_, folder.c_str(), IN_MOVED_TO | IN_CLOSE_WRITE);
  }
  ~Arrivals() {
    if (fd_ >= 0) ::close(fd_);
  }
  Arrivals(const Arrivals&) = delete;
  Arrivals& operator=(const Arrivals&) = delete;

  /// Returns early for a signal, too.
  void wait(double seconds) const {
    pollfd waited{fd_, POLLIN, 0};
    if (::poll(&waited, 1, static_cast<int>(1000 * seconds)) <= 0) return;
    char bytes[4096];
    while (::read(fd_, bytes, sizeof bytes) > 0) {
    }
  }

 private:
  int fd_;
};

JobView view_of(const JobInfo& job) {
  JobView view;
  view.id = job.id;
  view.name = job.name;
  view.state = job.state == JobState::kQueued    ? JobView::State::kQueued
               : job.state == JobState::kRunning ? JobView::State::kRunning
               : job.state == JobState::kDone    ? JobView::State::kDone
               : job.state == JobState::kFailed  ? JobView::State::kFailed
                                                 : JobView::State::kCancelled;
  view.priority = job.priority;
  view.submitted = job.submitted;
  view.started = job.started;
  view.ended = job.ended;
  view.exit_code = job.exit_code;
  view.line = job.line;
  view.result = job.output;
  view.products = job.products;
  if (job.products > 0 && job.seconds > 0) view.products_per_s = static_cast<double>(job.products) / job.seconds;
  view.lambda1 = job.lambda1;
  view.trace = job.trace;
  return view;
}

/// Of a job's result, for its record.
struct Findings {
  std::int64_t products = 0;
  double lambda1 = JobInfo::kUnknown, trace = JobInfo::kUnknown;
};

/// Says what hinders once, and waits longer each time, until it goes.
class Hindrance {
 public:
  /// @return whether it was not there before
  bool met(const std::string& what) {
    const bool is_new = wait_s_ == 0;
    if (is_new) log_warning(what + "; waiting until that is mended");
    wait_s_ = std::clamp(2 * wait_s_, kFirstBackOff_s, kLongestBackOff_s);
    return is_new;
  }
  void gone() {
    if (wait_s_ > 0) log_info("goes on");
    wait_s_ = 0;
  }
  double wait_s() const { return wait_s_; }

 private:
  double wait_s_ = 0;  // 0: there is none
};

/// The service on rank 0, but for the runs.
class SpoolKeeper {
 public:
  SpoolKeeper(const ServeConfig& config, const StopSignal& signal)
      : config_(config),
        signal_(signal),
        spool_(made(config.spool)),
        allowed_(config.allow, spool_),
        claims_(spool_, request_stop),
        shown_(config.watch, spool_.folder() / "index.html"),
        arrivals_(spool_.path(config.only.empty() ? "incoming" : "slurm")) {
    log_info("serving " + quote(spool_.folder().string()) + " as " + claims_.service());
  }

  /// Waits for a job that can be run. Jobs that can't are dealt with here.
  Order next() {
    for (;;) {
      if (signal_.received() || is_to_stop_) return end(kStopped, "stopped by a signal");
      if (config_.max_jobs > 0 && jobs_ >= config_.max_jobs) return end(kAllDone, "has run --max-jobs");
      std::optional<Claim> claim;
      try {
        if (!is_looked_for_gone_ || since_look_.elapsed_s() > kTakeOverEvery_s) {
          for (const std::string& line : claims_.take_over(config_.only)) log_info(line);
          is_looked_for_gone_ = true;
          since_look_.reset();
        }
        claim = claims_.next(config_.only);
        for (const std::string& remark : spool_.take_remarks()) log_warning(remark);
        hindrance_.gone();
      } catch (const InputError& error) {
        hindrance_.met(error.what());
        arrivals_.wait(hindrance_.wait_s());
        continue;
      }
      if (claim) {
        ++jobs_;
        if (std::optional<Order> order = order_for(*claim)) return *order;
        continue;
      }
      const bool only_one = !config_.only.empty();
      if ((config_.until_empty || only_one) && !claims_.is_any_left(config_.only))
        return end(only_one ? only_code_ : kAllDone, "no job is left");
      show(!is_idle_);
      if (!is_idle_) log_info("waits for jobs in " + quote(spool_.path("incoming").string()));
      is_idle_ = true;
      arrivals_.wait(config_.poll_s);
    }
  }

  /// Before the run: what is said from here on is the job's.
  void open_log() {
    found_.reset();
    log_ = std::make_unique<LogFile>(spool_.log_file(claim_->id));
  }

  /// The run has written its result.
  void take(const RunResult& result) {
    found_ = {result.diagnostics.products, largest_eigenvalue(result),
              result.trace ? result.trace->value : JobInfo::kUnknown};
    add_phase_seconds(shown_.metrics(), result);
  }

  /// Some rank has had a signal.
  void stop() { is_to_stop_ = true; }

  /// After the run: where the job goes.
  void take(const RunEnd& end, double seconds) {
    set_resident_bytes(shown_.metrics(), end.resident_bytes);
    if (!end.line.empty()) log_error(end.line);
    log_.reset();
    if (is_lack_of_room(end)) {
      const bool is_new = room_.met("job " + claim_->id + ": " + end.line);
      claim_back(is_new ? "put back, for there is no room on the disk" : "");
      wait_for_room();
      return;
    }
    room_.gone();
    if (end.exit_code == kStopped && !claims_.is_cancelled(*claim_)) {
      claim_back("stopped, and put back into the queue");
      return;
    }
    JobInfo info = info_of(*claim_);
    info.exit_code = end.exit_code;
    info.line = end.line;
    info.seconds = seconds;
    info.state = end.exit_code == kAllDone || end.exit_code == kNotConverged ? JobState::kDone
                 : end.exit_code == kStopped                                 ? JobState::kCancelled
                                                                             : JobState::kFailed;
    if (info.state == JobState::kCancelled) info.line = "cancelled while it ran";
    if (info.state == JobState::kDone) add_findings(info);
    finish(*claim_, info);
  }

 private:
  static Spool made(const std::string& folder) {
    Spool::make(folder);
    return Spool(folder);
  }

  Order end(int exit_code, const std::string& why) {
    show(true);
    log_info("the service ends: " + why);
    Order order;
    order.ends = true;
    order.exit_code = exit_code;
    return order;
  }

  JobInfo info_of(const Claim& claim) const {
    JobInfo info;
    info.id = claim.id;
    info.name = claim.head.name;
    info.command = to_string(claim.head.command);
    info.priority = claim.head.priority;
    info.submitted = claim.submitted;
    info.started = started_;
    info.ended = unix_seconds();
    info.starts = claim.count.starts;
    info.output = output_;
    return info;
  }

  /// None where the job ends here: it is bad, cancelled, or has killed too many services.
  std::optional<Order> order_for(Claim claim) {
    started_ = unix_seconds();
    output_.clear();
    is_idle_ = false;
    JobInfo info = info_of(claim);
    const std::string given_up = Claims::given_up(claim, was_begun(claim) ? kept_of(claim) : 0);
    if (claims_.is_cancelled(claim)) {
      info.state = JobState::kCancelled;
      info.line = "cancelled before it began";
    } else if (!given_up.empty()) {
      info.state = JobState::kFailed;
      info.exit_code = static_cast<int>(ExitCode::kInternal);
      info.line = given_up;
    } else {
      bool has_begun = false;
      persist([&] {  // before all else: whatever it kills the service with from here on counts
        claims_.begin(claim);
        has_begun = true;
      });
      if (!has_begun) return std::nullopt;
      try {
        return prepare(claim);
      } catch (const Error& error) {
        info.state = JobState::kFailed;
        info.exit_code = static_cast<int>(error.exit_code());
        info.line = error.what();
        info.starts = claim.count.starts;
        const LogFile log(spool_.log_file(claim.id));
        log_error(info.line);
      }
    }
    finish(claim, info);
    return std::nullopt;
  }

  bool was_begun(const Claim& claim) {
    has_log_ = fs::exists(spool_.log_file(claim.id));
    return claim.count.starts > 0 || has_log_;
  }

  /// Products that a job's next start need not take again; 0 where there is no checkpoint that can be read.
  std::int64_t kept_of(const Claim& claim) const try {
    const std::string named = parse_job(claim.text, claim.id + ".ini").run.config.checkpoint.checkpoint;
    return products_kept(CheckpointFolder(named.empty() ? spool_.checkpoint_folder(claim.id) : fs::path(named)));
  } catch (const Error&) {
    return 0;
  }

  Order prepare(const Claim& claim) {
    if (!claim.wrong.empty()) throw InputError(claim.wrong);
    JobOptions job = parse_job(claim.text, claim.id + ".ini");
    RunConfig& c = job.run.config;
    allowed_.confine(c);
    if (c.checkpoint.max_hours > 0)
      throw UsageError("--max-hours is for a run by itself: a job goes on until it is done, or the service is stopped");
    c.checkpoint.resume = c.checkpoint.resume || claim.count.starts > 1 || has_log_;
    if (c.output.output.empty()) {
      c.output.output = spool_.result_file(claim.id).string();
      // It is this job's, even where a power cut has taken all else that was known of its start.
      c.checkpoint.resume = c.checkpoint.resume || fs::exists(c.output.output);
    }
    if (c.checkpoint.checkpoint.empty()) c.checkpoint.checkpoint = spool_.checkpoint_folder(claim.id).string();
    c.layout.lost_after_s = 0;  // the service looks after its ranks
    check_whole(job.run);
    require_shardable(job.run);
    output_ = c.output.output;
    claim_ = claim;
    log_info("job " + claim.id + (claim.head.name.empty() ? "" : " (" + one_line(claim.head.name) + ")") + ": " +
             to_string(job.run.command) +
             (claim.count.starts > 1 ? ", start " + std::to_string(claim.count.starts) : ""));
    Order order;
    order.id = claim.id;
    order.command = to_string(job.run.command);
    order.config = to_ini(c);
    show(false);
    return order;
  }

  /// Tries until it can be done, or a signal comes: then the job is found by the next service.
  template <class Step>
  void persist(Step&& step) {
    for (;;) try {
        step();
        return hindrance_.gone();
      } catch (const InputError& error) {
        hindrance_.met(error.what());
        if (signal_.received()) return;
        arrivals_.wait(hindrance_.wait_s());
      }
  }

  void finish(const Claim& claim, const JobInfo& info) {
    persist([&] { claims_.finish(claim, info); });
    only_code_ = info.exit_code;
    std::string text = "job " + info.id + ": " + to_string(info.state);
    if (info.seconds > 0) text += " in " + format_duration(info.seconds);
    if (info.exit_code != 0) text += ", exit code " + std::to_string(info.exit_code);
    log_info(text + (info.line.empty() ? "" : ": " + info.line));
    show(false);
  }

  /// The page and the metrics; not more often than is of use, unless it must be.
  void show(bool must) {
    if (!must && has_shown_ && since_shown_.elapsed_s() < kShowEvery_s) return;
    has_shown_ = true;
    since_shown_.reset();
    SpoolView view{.spool = spool_.folder().string(), .now = unix_seconds(), .jobs = {}};
    for (const JobInfo& job : spool_.jobs(kShownEnded)) view.jobs.push_back(view_of(job));
    shown_.show(std::move(view));
  }

  void claim_back(const std::string& why) {
    persist([&] { claims_.put_back(*claim_); });
    if (!why.empty()) log_info("job " + claim_->id + ": " + why);
  }

  /// The run has failed because the spool's own disk is full: no fault of the job's.
  bool is_lack_of_room(const RunEnd& end) const {
    if (end.exit_code != static_cast<int>(ExitCode::kBadInput)) return false;
    const bool says_so = end.line.find(std::strerror(ENOSPC)) != std::string::npos ||
                         end.line.find(std::strerror(EDQUOT)) != std::string::npos;
    return says_so && (output_ == spool_.result_file(claim_->id).string() || !has_room());
  }

  /// Until there is some, or it is time for another try: what is free may still be too little.
  void wait_for_room() const {
    const bool had_room = has_room();
    const Timer timer;
    while (!signal_.received() && timer.elapsed_s() < room_.wait_s() && (had_room || !has_room()))
      ::poll(nullptr, 0, 500);
  }

  bool has_room() const {
    const fs::path probe = spool_.path("log") / ".room";
    std::FILE* const file = std::fopen(probe.c_str(), "we");
    if (file == nullptr) return false;
    const std::string bytes(1 << 16, 'x');
    const bool fits = std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size() && std::fflush(file) == 0;
    std::fclose(file);
    std::error_code ignored;
    fs::remove(probe, ignored);
    return fits;
  }

  /// What the run has found; from its file where an earlier start had written that.
  void add_findings(JobInfo& info) try {
    if (!found_) take(read_result(info.output));
    info.products = found_->products;
    info.lambda1 = found_->lambda1;
    info.trace = found_->trace;
  } catch (const Error&) {  // the result is there all the same
  }

  const ServeConfig& config_;
  const StopSignal& signal_;
  Spool spool_;
  AllowedPaths allowed_;
  Claims claims_;
  Shown shown_;
  Arrivals arrivals_;
  Hindrance hindrance_, room_;  // the latter: on the disk
  Timer since_look_, since_shown_;
  bool is_looked_for_gone_ = false, is_idle_ = false, has_shown_ = false, is_to_stop_ = false;
  std::int64_t jobs_ = 0;
  int only_code_ = kAllDone;    // of the last job
  std::optional<Claim> claim_;  // at work
  double started_ = 0;          // its start, and its result
  std::string output_;
  bool has_log_ = false;  // from a start before
  std::optional<Findings> found_;
  std::unique_ptr<LogFile> log_;
};

int run_job(const Order& order, const StopSignal& signal, ResidentProblem& resident,
            const std::function<void(const RunResult&)>& taken, Communicator& world) {
  Invocation run;
  run.command = command_from(order.command);
  run.config = from_ini(order.config, "job " + order.id);
  const std::vector<std::string> argv = {"hesspect", "serve", "job", order.id};
  return run_spectrum(run, argv, signal, world, &resident, "", taken);
}

}  // namespace

int serve(const std::vector<std::string>& args, const Environment& environment, const StopSignal& signal,
          Communicator& host) {
  const ServeConfig config = agreed(host, [&] { return parse_serve(args, environment); });
  const bool is_first = host.rank() == 0;
  if (config.help) {
    if (is_first) std::fputs(service_help("serve").c_str(), stdout);
    return kAllDone;
  }
  const LogLevel level = config.quiet ? LogLevel::kQuiet : config.verbose ? LogLevel::kDebug : LogLevel::kInfo;
  if (is_first) set_log_level(level);
  const Heartbeat heartbeat(host, config.lost_after_s, end_service_for_lost);
  std::unique_ptr<SpoolKeeper> desk;
  agree(host, [&] {
    if (is_first) desk = std::make_unique<SpoolKeeper>(config, signal);
  });
  const int threads = at::get_num_threads();
  ResidentProblem resident;
  const auto taken = [&](const RunResult& result) { desk->take(result); };  // on rank 0
  for (;;) {
    const Order mine = is_first ? desk->next() : Order{};
    const auto order =
        FieldReader::from<Order>(broadcast_patiently(host, is_first ? FieldWriter::text(mine) : ""), "an order");
    if (order.ends) return static_cast<int>(order.exit_code);
    at::set_num_threads(threads);  // a job before may have asked for others
    if (is_first) desk->open_log();
    const Timer timer;
    const RunEnd end =
        run_contained(host, [&](Communicator& world) { return run_job(order, signal, resident, taken, world); });
    if (!end.line.empty()) resident = {};  // a rank that failed may hold something else than the others
    if (is_first) {
      desk->take(end, timer.elapsed_s());
      withdraw_stop_request();  // where the job was cancelled: it is put away, and nobody makes another one
    }
    if (host.any(signal.received()) && is_first) desk->stop();
  }
}

}  // namespace hesspect
