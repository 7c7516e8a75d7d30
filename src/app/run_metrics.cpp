#include "run_metrics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

namespace hesspect {

void add_phase_seconds(Metrics& metrics, const RunResult& result) {
  for (const Phase phase : all_phases())
    if (const double seconds = result.diagnostics.phases[phase]; seconds > 0)
      metrics.add("hesspect_phase_seconds_total", {{"phase", name_of(phase)}}, seconds);
}

double largest_eigenvalue(const RunResult& result) {
  double largest = std::nan("");
  if (result.eigenvalues)
    for (const auto* const list : {&result.eigenvalues->top, &result.eigenvalues->magnitude})
      for (const EigenEstimate& each : *list)
        if (!(each.value <= largest)) largest = each.value;
  return largest;
}

void set_figures(Metrics& metrics, const RunResult& result) {
  const double largest = largest_eigenvalue(result);
  if (std::isfinite(largest)) metrics.set("hesspect_lambda_max", {}, largest);
  if (result.trace && std::isfinite(result.trace->value)) metrics.set("hesspect_trace", {}, result.trace->value);
}

void set_resident_bytes(Metrics& metrics, const std::vector<std::int64_t>& bytes) {
  for (std::size_t rank = 1; rank < bytes.size(); ++rank)
    metrics.set("hesspect_resident_bytes", {{"rank", std::to_string(rank)}}, static_cast<double>(bytes[rank]));
}

void set_series_metrics(Metrics& metrics, const SeriesLedger& ledger, double now) {
  constexpr std::array kNames = {"waiting", "done", "failed", "skipped", "gone"};
  std::array<double, kNames.size()> counts{};
  double oldest = now;
  for (const SeriesEntry& entry : ledger.entries) {
    switch (entry.state) {
      case SeriesState::kFound:
      case SeriesState::kRunning:
        ++counts[0];
        oldest = std::min(oldest, entry.time);
        break;
      case SeriesState::kDone: ++counts[1]; break;
      case SeriesState::kFailed: ++counts[2]; break;
      case SeriesState::kSkipped: ++counts[3]; break;
      case SeriesState::kGone: ++counts[4];
    }
    if (entry.state == SeriesState::kDone && entry.result == ledger.last && entry.step >= 0)
      metrics.set("hesspect_last_checkpoint_step", {}, static_cast<double>(entry.step));
  }
  for (std::size_t i = 0; i < kNames.size(); ++i)
    metrics.set("hesspect_checkpoints", {{"state", kNames[i]}}, counts[i]);
  metrics.set("hesspect_checkpoint_lag_seconds", {}, now - oldest);
}

}  // namespace hesspect
