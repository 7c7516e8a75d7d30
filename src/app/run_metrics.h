// What metrics take from a run's result and a series' ledger. On rank 0.
#pragma once

#include "hesspect/io/result_file.h"
#include "hesspect/series/series_ledger.h"
#include "hesspect/watch/metrics.h"

namespace hesspect {

/// Adds the seconds of a run that has ended to hesspect_phase_seconds_total.
void add_phase_seconds(Metrics& metrics, const RunResult& result);

/// hesspect_lambda_max and hesspect_trace, as far as the result has them.
void set_figures(Metrics& metrics, const RunResult& result);

/// hesspect_checkpoints by state, the lag, and the step that was done last.
/// @param now  unix seconds
void set_series_metrics(Metrics& metrics, const SeriesLedger& ledger, double now);

}  // namespace hesspect
