// What metrics take from a run's result and a series' ledger. On rank 0.
#pragma once

#include <cstdint>
#include <vector>

#include "hesspect/io/result_file.h"
#include "hesspect/series/series_ledger.h"
#include "hesspect/watch/metrics.h"

namespace hesspect {

/// Adds the seconds of a run that has ended to hesspect_phase_seconds_total.
void add_phase_seconds(Metrics& metrics, const RunResult& result);

/// The largest of the eigenvalues that are in a result; NaN: it has none.
double largest_eigenvalue(const RunResult& result);

/// hesspect_resident_bytes of the ranks other than 0, which measures its own all the time. @param bytes  of each rank
void set_resident_bytes(Metrics& metrics, const std::vector<std::int64_t>& bytes);

/// hesspect_lambda_max and hesspect_trace, as far as the result has them.
void set_figures(Metrics& metrics, const RunResult& result);

/// hesspect_checkpoints by state, the lag, and the step that was done last.
/// @param now  unix seconds
void set_series_metrics(Metrics& metrics, const SeriesLedger& ledger, double now);

}  // namespace hesspect
