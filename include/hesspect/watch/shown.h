// All that a resident process shows, as its options ask for it: metrics in a file and on a port, and the spool's page.
//
//   Shown shown(config.watch, spool / "index.html");     // on rank 0; listens from here on
//   shown.metrics().add("hesspect_products_total", {}, 20);
//   shown.show(view);                                     // at every change of state, and every few seconds
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "hesspect/config/watch_config.h"
#include "hesspect/watch/metrics.h"
#include "hesspect/watch/spool_view.h"

namespace hesspect {

class Shown {
 public:
  /// @param page  of HTML; empty: none
  /// @throws UsageError: the port can't be had
  Shown(const WatchConfig& config, std::filesystem::path page);

  Metrics& metrics() { return metrics_; }
  /// Sets the spool's metrics, writes page and file. A file that can't be written is warned of once, and again once
  /// it could be written meanwhile: no run ends because nobody can look at it.
  void show(const SpoolView& view);
  /// The metrics' file alone, where nothing of the spool has changed.
  void write_metrics();

 private:
  struct Target {
    std::filesystem::path path;
    bool failing = false;
  };
  void write(Target& target, const std::string& text);

  Metrics metrics_;
  Target page_, file_;
  std::unique_ptr<MetricsServer> server_;
};

}  // namespace hesspect
