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

/// Progress of a run: products done of how many, rate, time left, as ranges as long as they are. A bar that redraws
/// itself on a terminal, elsewhere a line at most every 30 s. Silent where the log level is kQuiet. One at a time; a
/// message logged meanwhile goes above the bar.
class Progress {
 public:
  /// @param before  units done by an earlier start of the run, which say nothing of its speed
  explicit Progress(std::string label, std::int64_t before = 0);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();  // ends the bar's line
  /// How many units (operator products) the whole run takes, as far as is known by now.
  void set_expected(std::int64_t least, std::int64_t most);
  /// So many units are finished.
  void update(std::int64_t done);
  /// Ends the bar's line, or prints one last line "label: 80 products in 12.3 s". Once; further calls do nothing.
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// What Progress prints: "label: 12/80 products, 15%, 3.1/s, 22.0 s left" where least = most, else
/// "label: 12 of 80 to 190 products, 3.1/s, 22.0 s to 58.0 s left", or "60 of at most 190 …"; without a share and time
/// left where most <= 0.
/// @param before  of `done`, those of an earlier start: not of elapsed_s
std::string format_progress(std::string_view label, std::int64_t done, std::int64_t least, std::int64_t most,
                            double elapsed_s, std::int64_t before = 0);

}  // namespace hesspect
