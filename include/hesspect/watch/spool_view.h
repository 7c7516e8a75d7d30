// A spool (`hesspect serve`) or a series as one looks at it from outside: plain values, a page of HTML from them, and
// their metrics.
//
//   SpoolView view{.spool = "/scratch/spool", .now = unix_seconds(), .jobs = {...}};
//   write_spool_page(view, "/scratch/spool/index.html");
//   set_spool_metrics(metrics, view);
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "hesspect/watch/metrics.h"

namespace hesspect {

/// One job. Times are seconds since 1970, 0 where it has not come to that.
struct JobView {
  enum class State { kQueued, kRunning, kDone, kFailed, kCancelled };
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

  std::string id, name;
  State state = State::kQueued;
  std::int64_t priority = 0;
  double submitted = 0, started = 0, ended = 0;
  int exit_code = 0;
  std::string line;    // the error, or what was found, in one line
  std::string result;  // path of the result file; empty: none
  std::int64_t products = 0;
  double products_per_s = kUnknown;
  double lambda1 = kUnknown;  // largest eigenvalue
  double trace = kUnknown;
};

/// "queued", "running", "done", "failed" or "cancelled"
std::string to_string(JobView::State state);

struct SpoolView {
  std::string spool;  // its folder
  double now = 0;     // when this was so
  std::vector<JobView> jobs;
};

/// The page: counts, what runs, what waits, what has ended, of the last 200 of each. It loads itself again every
/// `refresh_s` seconds, needs no network and no script, and follows the reader's light or dark theme.
std::string spool_page(const SpoolView& view, int refresh_s = 5);

/// Writes it, as write_text_file does. @throws InputError with the system's reason
void write_spool_page(const SpoolView& view, const std::filesystem::path& path);

/// hesspect_jobs by state, and of the job that ended last with figures hesspect_lambda_max and hesspect_trace.
void set_spool_metrics(Metrics& metrics, const SpoolView& view);

}  // namespace hesspect
