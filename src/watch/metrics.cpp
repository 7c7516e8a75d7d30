#include "hesspect/watch/metrics.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <stdexcept>

namespace hesspect {
namespace {

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_label_name(std::string_view name) {
  return !name.empty() && is_letter(name.front()) && !name.starts_with("__") &&
         std::ranges::all_of(name, [](char c) { return is_letter(c) || is_digit(c); });
}

/// Backslash and the end of a line, and in a label's value the quote.
std::string escape_text(std::string_view text, bool is_label) {
  std::string out;
  for (const char c : text) {
    if (c == '\\')
      out += "\\\\";
    else if (c == '\n')
      out += "\\n";
    else if (c == '"' && is_label)
      out += "\\\"";
    else
      out += c;
  }
  return out;
}

}  // namespace

std::span<const MetricEntry> metric_entries() {
  using Kind = MetricKind;
  static constexpr std::array entries = {
      MetricEntry{"hesspect_jobs", Kind::kGauge,
                  "Jobs of the spool by state: queued, running, done, failed, cancelled"},
      MetricEntry{"hesspect_checkpoints", Kind::kGauge,
                  "Checkpoints of the series by state: waiting, done, failed, skipped, gone"},
      MetricEntry{"hesspect_products_total", Kind::kCounter,
                  "Products of the matrix with a vector since the process began"},
      MetricEntry{"hesspect_products_per_second", Kind::kGauge,
                  "Rate of products of the job under way, NaN between jobs"},
      MetricEntry{"hesspect_phase_seconds_total", Kind::kCounter,
                  "Seconds since the process began, by what they were spent on"},
      MetricEntry{"hesspect_resident_bytes", Kind::kGauge, "Memory of a rank's process, by rank"},
      MetricEntry{"hesspect_checkpoint_lag_seconds", Kind::kGauge,
                  "Age of the oldest checkpoint that waits to be measured, 0 where none does"},
      MetricEntry{"hesspect_last_checkpoint_step", Kind::kGauge,
                  "Training step of the checkpoint that was measured last"},
      MetricEntry{"hesspect_lambda_max", Kind::kGauge,
                  "Largest eigenvalue that was found last, in units of loss per parameter squared"},
      MetricEntry{"hesspect_trace", Kind::kGauge, "Trace that was found last, in units of loss per parameter squared"},
      MetricEntry{"hesspect_updated_seconds", Kind::kGauge, "When these values were set, in seconds since 1970"},
  };
  return entries;
}

std::string label_text(const MetricLabels& labels) {
  MetricLabels sorted = labels;
  std::ranges::sort(sorted);
  std::string text;
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    const auto& [name, value] = sorted[i];
    if (!is_label_name(name)) throw std::logic_error("'" + name + "' is no name of a metric's label");
    if (i > 0 && sorted[i - 1].first == name) throw std::logic_error("a metric's label '" + name + "' is there twice");
    text += (i == 0 ? "{" : ",") + name + "=\"" + escape_text(value, true) + "\"";
  }
  return text.empty() ? text : text + "}";
}

std::string metric_value(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  return std::string(text, end);
}

Metrics::Metrics(std::span<const MetricEntry> entries) {
  for (const MetricEntry& entry : entries)
    families_.push_back({std::string(entry.name), std::string(entry.help), entry.kind, {}});
}

Metrics::Family& Metrics::family(std::string_view name) {
  const auto found = std::ranges::find(families_, name, &Family::name);
  if (found == families_.end()) throw std::logic_error("'" + std::string(name) + "' is no metric of hesspect");
  return *found;
}

void Metrics::set(std::string_view name, const MetricLabels& labels, double value) {
  const std::string key = label_text(labels);
  const std::lock_guard lock(mutex_);
  family(name).lines[key] = value;
}

void Metrics::add(std::string_view name, const MetricLabels& labels, double value) {
  const std::string key = label_text(labels);
  const std::lock_guard lock(mutex_);
  family(name).lines[key] += value;
}

void Metrics::clear(std::string_view name) {
  const std::lock_guard lock(mutex_);
  family(name).lines.clear();
}

std::string Metrics::text() const {
  const std::lock_guard lock(mutex_);
  std::string text;
  for (const Family& f : families_) {
    if (f.lines.empty()) continue;
    text += "# HELP " + f.name + " " + escape_text(f.help, false) + "\n";
    text += "# TYPE " + f.name + (f.kind == MetricKind::kCounter ? " counter\n" : " gauge\n");
    for (const auto& [labels, value] : f.lines) text += f.name + labels + " " + metric_value(value) + "\n";
  }
  return text;
}

}  // namespace hesspect
