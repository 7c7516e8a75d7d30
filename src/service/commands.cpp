#include "hesspect/service/commands.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <system_error>
#include <thread>

#include "hesspect/config/job_options.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/core/timer.h"
#include "hesspect/io/atomic_file.h"
#include "hesspect/series/checkpoints.h"
#include "hesspect/service/batch_queue.h"
#include "hesspect/service/claims.h"
#include "hesspect/service/spool.h"

namespace hesspect {
namespace {

namespace fs = std::filesystem;

constexpr int kDone = static_cast<int>(ExitCode::kDone);
constexpr std::size_t kShownEnded = 20;
constexpr auto kLookEvery = std::chrono::milliseconds(200);

void print(const std::string& text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  if (!written) throw InputError("cannot write to the standard output");
}

bool is_over(const JobInfo& job) { return job.state != JobState::kQueued && job.state != JobState::kRunning; }

/// Jobs run in another folder than this one, so their paths are made absolute here.
void make_absolute(RunConfig& config) {
  const EachPath absolute = [](const std::string&, std::string& path) {
    std::error_code error;
    const fs::path full = fs::absolute(path, error).lexically_normal();
    if (!error) path = full.string();
  };
  for_each_input(config, absolute);
  for_each_output(config, absolute);
}

JobOptions job_of(const QueueConfig& config, const Environment& environment) {
  const std::string& first = config.words.front();
  std::error_code ignored;
  if (!first.ends_with(".ini") && !fs::is_regular_file(first, ignored))
    return job_from_arguments(config.words, environment);
  if (config.words.size() > 1)
    throw UsageError("unexpected argument '" + config.words[1] + "' behind the job's file: its options stand in it");
  std::ifstream in(first, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(in), {}};
  if (!in) throw InputError("cannot read " + quote(first) + ": " + std::strerror(errno));
  if (text.size() > Spool::kMostBytes)
    throw UsageError(quote(first) + " has " + std::to_string(text.size()) + " bytes; at most " +
                     std::to_string(Spool::kMostBytes) + " are taken");
  return parse_job(text, first);
}

/// What a service would find, as far as it can be told here.
void check(const JobOptions& job) {
  Invocation whole = job.run;
  if (whole.config.output.output.empty()) whole.config.output.output = "result.h5";  // chosen by the service
  check_whole(whole);
  if (whole.config.checkpoint.max_hours > 0)
    throw UsageError("--max-hours is for a run by itself: a job goes on until it is done, or the service is stopped");
  for_each_input(whole.config, [](const std::string& option, std::string& path) {
    std::error_code error;
    if (!fs::exists(path, error)) throw InputError("--" + option + " " + quote(path) + ": no such file");
  });
}

/// A job for each checkpoint of a series, in their order.
std::vector<JobOptions> jobs_of_series(const QueueConfig& config, const Environment& environment) {
  const JobOptions common = jobs_of_series_from_arguments(config.words, environment);
  const SeriesConfig series = common.run.config.series;
  std::vector<FoundCheckpoint> found = find_checkpoints(series.checkpoints, /*must_be=*/true);
  if (series.order == SeriesOrder::kStep) std::ranges::stable_sort(found, {}, &FoundCheckpoint::step);
  if (series.order == SeriesOrder::kTime) std::ranges::stable_sort(found, {}, &FoundCheckpoint::time);
  std::vector<JobOptions> jobs;
  for (const FoundCheckpoint& one : found) {
    if (const std::string why = why_not_whole(one.path, ""); !why.empty())
      throw InputError("the checkpoint " + quote(one.path.string()) + " is not whole: " + why);
    JobOptions job = common;
    job.head.name = one.name;
    job.run.config.series = {};
    job.run.config.model.weights = {one.path.string()};
    if (!series.results.empty())
      job.run.config.output.output = (fs::path(series.results) / (result_stem(one.name) + ".h5")).string();
    for (const JobOptions& other : jobs)
      if (!series.results.empty() && other.run.config.output.output == job.run.config.output.output)
        throw UsageError("the checkpoints " + quote(other.run.config.model.weights.front()) + " and " +
                         quote(one.path.string()) + " would both write " + quote(job.run.config.output.output) +
                         ": leave out --results, or name them apart");
    jobs.push_back(std::move(job));
  }
  if (!series.results.empty()) make_folders(series.results);
  return jobs;
}

int submit(const QueueConfig& config, const Environment& environment) {
  std::vector<JobOptions> jobs =
      config.words.front() == "series" ? jobs_of_series(config, environment) : std::vector{job_of(config, environment)};
  for (JobOptions& job : jobs) {
    if (!config.name.empty())
      job.head.name = config.name + (job.head.name.empty() || jobs.size() == 1 ? "" : " " + job.head.name);
    if (config.priority != 0) job.head.priority = config.priority;
    make_absolute(job.run.config);
    check(job);
  }
  Spool::make(config.spool);
  const Spool spool(config.spool);
  const bool is_batch = config.slurm || config.flux;
  std::vector<std::string> ids;
  for (const JobOptions& job : jobs) ids.push_back(spool.add(job, is_batch ? "slurm" : "incoming"));
  if (is_batch) submit_to_batch(spool, ids, config);
  Spool again(config.spool);
  std::string text;
  for (const std::string& id : ids) {
    JobInfo named;
    named.id = id;
    text += (config.json ? to_json(again.find(id).value_or(named)) : id) + "\n";
  }
  print(text);
  return kDone;
}

std::string clock_time(double seconds) {
  if (seconds <= 0) return "-";
  const auto time = static_cast<std::time_t>(seconds);
  std::tm fields{};
  localtime_r(&time, &fields);
  char text[32];
  std::strftime(text, sizeof text, "%m-%d %H:%M:%S", &fields);
  return text;
}

std::string remark_of(const JobInfo& job) {
  if (job.state == JobState::kQueued) return job.service.empty() ? "" : "in the queue of " + job.service;
  if (job.state == JobState::kRunning)
    return "by " + job.service + (job.starts > 1 ? ", start " + std::to_string(job.starts) : "");
  std::string text = job.exit_code == 0 ? "" : "exit " + std::to_string(job.exit_code);
  if (job.state == JobState::kDone) {
    if (std::isfinite(job.lambda1))
      text += (text.empty() ? "" : ", ") + std::string("largest ") + format_number(job.lambda1);
    if (std::isfinite(job.trace)) text += (text.empty() ? "" : ", ") + std::string("trace ") + format_number(job.trace);
  }
  if (!job.line.empty()) text += (text.empty() ? "" : ": ") + one_line(job.line);
  return text;
}

void print_table(const std::vector<JobInfo>& jobs) {
  std::vector<std::vector<std::string>> rows = {{"ID", "STATE", "PRIORITY", "COMMAND", "SUBMITTED", "SECONDS", "NAME"}};
  for (const JobInfo& job : jobs) {
    const double seconds =
        job.state == JobState::kRunning && job.started > 0 ? unix_seconds() - job.started : job.seconds;
    rows.push_back({job.id, to_string(job.state), std::to_string(job.priority), job.command, clock_time(job.submitted),
                    seconds > 0 ? format_number(std::round(10 * seconds) / 10) : "-", job.name});
  }
  std::vector<std::size_t> widths(rows.front().size());
  for (const auto& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string text;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::string line;
    for (std::size_t i = 0; i < rows[r].size(); ++i)
      line += rows[r][i] + std::string(widths[i] - rows[r][i].size() + 2, ' ');
    const std::string remark = r == 0 ? "" : remark_of(jobs[r - 1]);
    line += remark;
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  print(text);
}

JobInfo known(Spool& spool, const std::string& id) {
  std::optional<JobInfo> job = spool.find(id);
  if (!job) throw UsageError("there is no job " + quote(id) + " in " + quote(spool.folder().string()));
  return *job;
}

int show_queue(const QueueConfig& config) {
  Spool spool(config.spool);
  std::vector<JobInfo> jobs;
  if (config.words.empty()) jobs = spool.jobs(config.all ? SIZE_MAX : kShownEnded);
  for (const std::string& id : config.words) jobs.push_back(known(spool, id));
  for (JobInfo& job : jobs)
    if (job.state == JobState::kQueued && !job.service.empty())
      if (const std::string state = batch_state(job.service); !state.empty()) job.line = state;
  if (!config.json) {
    for (const std::string& remark : spool.take_remarks())
      std::fprintf(stderr, "hesspect: warning: %s\n", remark.c_str());
    print_table(jobs);
    return kDone;
  }
  std::string text = "[";
  for (const JobInfo& job : jobs) text += (text.size() == 1 ? "\n " : ",\n ") + to_json(job);
  print(text + "\n]\n");
  return kDone;
}

int cancel(const QueueConfig& config) {
  Spool spool(config.spool);
  for (const std::string& id : config.words) {
    const JobInfo before = known(spool, id);
    const std::string done = cancel_job(spool, id);
    if (before.state == JobState::kQueued && !before.service.empty()) cancel_in_batch(before.service);
    print(config.json ? to_json(known(spool, id)) + "\n" : id + " " + done + "\n");
  }
  return kDone;
}

/// A job that waits for Slurm or Flux, which have forgotten it, will not be run any more.
void fail_if_forgotten(Spool& spool, const JobInfo& job, double seen_s) {
  if (job.state != JobState::kQueued || job.service.empty() || seen_s < 10) return;
  const std::string state = batch_state(job.service);
  if (!state.empty()) return;
  throw InputError("the job " + job.id + " waits, but " + job.service + " is not in the queue any more: see " +
                   quote((spool.path("log") / (job.id + ".slurm")).string()));
}

int wait(const QueueConfig& config) {
  Spool spool(config.spool);
  const Timer timer;
  double looked_at_batch_s = 0;
  int code = kDone;
  for (const std::string& id : config.words) {
    JobInfo job = known(spool, id);
    while (!is_over(job)) {
      if (config.timeout_s > 0 && timer.elapsed_s() > config.timeout_s) {
        std::fprintf(stderr, "hesspect: the job %s is %s after %s\n", id.c_str(), to_string(job.state).c_str(),
                     format_duration(timer.elapsed_s()).c_str());
        return static_cast<int>(ExitCode::kResubmit);
      }
      std::this_thread::sleep_for(kLookEvery);
      job = known(spool, id);
      if (timer.elapsed_s() > looked_at_batch_s + 10) {
        looked_at_batch_s = timer.elapsed_s();
        fail_if_forgotten(spool, job, looked_at_batch_s);
      }
    }
    const int of_job = job.state == JobState::kCancelled ? static_cast<int>(ExitCode::kResubmit) : job.exit_code;
    if (code == kDone) code = of_job;
    print(config.json ? to_json(job) + "\n"
                      : id + " " + to_string(job.state) + (remark_of(job).empty() ? "" : " " + remark_of(job)) + "\n");
  }
  return code;
}

int show_log(const QueueConfig& config) {
  Spool spool(config.spool);
  const std::string& id = config.words.front();
  JobInfo job = known(spool, id);
  std::ifstream in;
  std::string buffer(1 << 16, '\0');
  for (;;) {
    const bool is_last = !config.follow || is_over(job);
    if (!in.is_open()) in.open(spool.log_file(id), std::ios::binary);
    while (in.is_open() && (in.read(buffer.data(), static_cast<std::streamsize>(buffer.size())), in.gcount() > 0))
      print(buffer.substr(0, static_cast<std::size_t>(in.gcount())));
    in.clear();
    if (is_last) break;
    std::this_thread::sleep_for(kLookEvery);
    job = known(spool, id);
  }
  if (!in.is_open()) std::fprintf(stderr, "hesspect: the job %s has said nothing yet\n", id.c_str());
  return kDone;
}

}  // namespace

int run_queue_command(std::string_view command, const QueueConfig& config, const Environment& environment) {
  if (command == "submit") return submit(config, environment);
  if (command == "queue") return show_queue(config);
  if (command == "cancel") return cancel(config);
  if (command == "wait") return wait(config);
  return show_log(config);
}

}  // namespace hesspect
