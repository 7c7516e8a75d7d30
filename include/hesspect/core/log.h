// The logger (spdlog behind it; its headers stay out of this one) and the progress line. Rank 0 alone talks, on stderr.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace hesspect {

enum class LogLevel { kQuiet, kInfo, kDebug };

/// Sets what this process prints. Ranks other than 0 call it with kQuiet. Errors are printed at every level.
void set_log_level(LogLevel level);
void log_info(std::string_view message);
void log_debug(std::string_view message);
void log_warning(std::string_view message);
/// One line "hesspect: error: …" on stderr.
void log_error(std::string_view message);

/// Progress of a run: products done of how many, rate, time left. A bar that redraws itself on a terminal, elsewhere a
/// line at most every 30 s. Silent where the log level is kQuiet.
class Progress {
 public:
  Progress(std::string label, std::int64_t total);
  ~Progress();  // ends the bar's line
  void set_total(std::int64_t total);
  void set_label(std::string label);
  /// `done` of total units (operator products) are finished.
  void update(std::int64_t done);
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hesspect
