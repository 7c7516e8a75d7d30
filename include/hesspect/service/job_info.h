// What is known of a job from outside, and the record that is left of one that has ended.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

namespace hesspect {

enum class JobState { kQueued, kRunning, kDone, kFailed, kCancelled };

/// "queued", "running", "done", "failed" or "cancelled"
std::string to_string(JobState state);

/// Times are unix seconds, 0 where it has not come to that.
struct JobInfo {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

  std::string id, name, command;
  JobState state = JobState::kQueued;
  std::int64_t priority = 0;
  double submitted = 0, started = 0, ended = 0;
  std::int64_t starts = 0;  // that have begun, the one at work too
  int exit_code = 0;
  std::string line;     // the error, or a word on the end; empty: none
  std::string output;   // the result file; empty: not known
  std::string service;  // that has it, or had it; "slurm 123" for one that waits there
  double seconds = 0;   // of the last start
  std::int64_t products = 0;
  double lambda1 = kUnknown;  // largest eigenvalue
  double trace = kUnknown;
};

/// As one line of JSON; numbers that are not known are null.
std::string to_json(const JobInfo& job);
/// @throws InputError for text that is none
JobInfo job_info_from_json(const std::string& text);

}  // namespace hesspect
