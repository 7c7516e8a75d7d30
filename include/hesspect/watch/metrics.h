// What a resident process (`serve`, `series`) counts and measures, in the text format of Prometheus, version 0.0.4.
//
//   Metrics metrics;                                        // of the families that metric_entries() lists
//   metrics.set("hesspect_jobs", {{"state", "queued"}}, 3);
//   metrics.add("hesspect_products_total", {}, 20);
//   write_text_file("/var/lib/node_exporter/hesspect.prom", metrics.text());
//   MetricsServer server(metrics, "127.0.0.1", 9471);       // GET /metrics, until it is destroyed
//
// It knows nothing of runs, jobs or ranks: whoever has the numbers sets them. Histograms and timestamps there are none.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hesspect {

enum class MetricKind { kGauge, kCounter };

/// A family: what is known of a metric beside its values.
struct MetricEntry {
  std::string_view name;
  MetricKind kind;
  std::string_view help;  // one sentence, without a full stop
};

/// All that hesspect shows. docs/monitoring.md has the same table, launch/grafana/hesspect.json draws them.
std::span<const MetricEntry> metric_entries();

/// Label and value, each label once; their order does not matter.
using MetricLabels = std::vector<std::pair<std::string, std::string>>;

/// The values by family and labels. Any thread may call any of it.
class Metrics {
 public:
  explicit Metrics(std::span<const MetricEntry> entries = metric_entries());

  /// The value of one line from now on; a gauge may be NaN. A counter may be set too, by whoever has the whole count.
  /// @throws std::logic_error: no such family, or a label that is no name
  void set(std::string_view name, const MetricLabels& labels, double value);
  /// Adds to a line, which begins at 0.
  void add(std::string_view name, const MetricLabels& labels, double value);
  /// Removes all lines of a family, as of ranks that are gone.
  void clear(std::string_view name);

  /// Every family that has a value: # HELP, # TYPE and its lines, in the order of the entries.
  std::string text() const;

 private:
  struct Family {
    std::string name, help;
    MetricKind kind = MetricKind::kGauge;
    std::map<std::string, double> lines;  // by the labels as they are written
  };
  Family& family(std::string_view name);

  mutable std::mutex mutex_;
  std::vector<Family> families_;
};

/// "name{a=\"b\"} 3" has this between name and value; "" without labels.
/// @throws std::logic_error: a label that is no name, or is there twice
std::string label_text(const MetricLabels& labels);

/// Shortest text that reads back as the same number; "NaN", "+Inf", "-Inf".
std::string metric_value(double value);

/// Replaces a file as a whole: under a temporary name beside it, then renamed. Not synced to the disk: what it shows is
/// of now, and after a power cut of no use. @throws InputError with the system's reason; `path` is then as it was
void write_text_file(const std::filesystem::path& path, std::string_view text);

/// Answers GET /metrics over HTTP/1.1 from one thread, one connection after the other, each closed after its answer.
/// A request of more than 8 KiB, or one that takes longer than 2 s, is ended.
class MetricsServer {
 public:
  /// Listens when it returns.
  /// @param metrics  outlives the server
  /// @param address  a number of IPv4 or IPv6, or "localhost"
  /// @param port     0: one that is free
  /// @throws UsageError: no such address on this machine, a port that is taken or may not be had
  MetricsServer(const Metrics& metrics, const std::string& address, int port);
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;
  ~MetricsServer();  // ends the thread at once, also within a request

  int port() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hesspect
