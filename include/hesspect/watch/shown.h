// All that a resident process shows while it works, as its options ask for it: metrics in a file and on a port, and the
// spool's page. A thread of its own writes them, every few seconds too, for the main thread is busy with a run.
//
//   Shown shown(config.watch, spool / "index.html");     // on rank 0; listens from here on
//   shown.show(view);                                    // handed over: costs its caller no file
//   shown.metrics().add("hesspect_phase_seconds_total", {{"phase", "products"}}, 3.5);
//
// Products, their rate and rank 0's memory it measures itself (core/product_count.h).
#pragma once

#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "hesspect/config/watch_config.h"
#include "hesspect/watch/metrics.h"
#include "hesspect/watch/spool_view.h"

namespace hesspect {

class Shown {
 public:
  /// @param page     of HTML; empty: none
  /// @param every_s  how often all is written where nothing new is shown
  /// @throws UsageError: the port can't be had
  explicit Shown(const WatchConfig& config, std::filesystem::path page = {}, double every_s = 5);
  Shown(const Shown&) = delete;
  Shown& operator=(const Shown&) = delete;
  /// Writes what was shown last.
  ~Shown();

  Metrics& metrics() { return metrics_; }
  /// The spool as it is now, from any thread. Its page and metrics are written at once, and again as time goes by. A
  /// file that can't be written is warned of once, and again once it could be written meanwhile: no run ends because
  /// nobody can look at it.
  void show(SpoolView view);

 private:
  struct Target {
    std::filesystem::path path;
    bool failing = false;
  };
  void keep_up();
  void measure();
  void write(Target& target, const std::string& text);

  Metrics metrics_;
  Target page_, file_;
  const double every_s_;
  double measured_at_ = 0, rate_ = JobView::kUnknown;
  std::int64_t counted_ = 0, counted_at_start_ = 0, counted_at_change_ = 0;  // products
  std::mutex mutex_;
  std::condition_variable wake_;
  SpoolView view_;  // under mutex_, as the next two
  bool has_view_ = false, is_new_ = false, ends_ = false;
  std::thread thread_;  // after all that it uses
  std::unique_ptr<MetricsServer> server_;
};

}  // namespace hesspect
