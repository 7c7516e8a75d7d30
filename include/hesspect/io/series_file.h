// The file of a series: what was found of each checkpoint of a training run, in order, as one HDF5 file after the NeXus
// conventions (docs/series.md has its layout). It is written anew after each checkpoint, under another name that is
// then renamed: whoever reads it finds it whole, as it was after some checkpoint.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "hesspect/io/result_file.h"
#include "hesspect/spectrum/trace_change.h"

namespace hesspect {

/// One checkpoint's part. NaN: not known.
struct SeriesRow {
  static constexpr double kNotKnown = std::numeric_limits<double>::quiet_NaN();

  std::int64_t step = -1;  // -1: its name tells none
  std::string name;
  double time = 0;  // of the checkpoint's change, unix seconds
  std::string sha256;
  std::string result;  // file, relative to the series file
  std::int64_t products = 0;
  double seconds = 0;                      // of its run
  bool fresh = true;                       // its run took nothing over from the checkpoint before
  std::vector<EigenEstimate> top, bottom;  // each largest first
  TraceEstimate trace{.value = kNotKnown, .standard_error = kNotKnown, .half_width = kNotKnown};
  std::vector<DeflatedSample> samples;  // that the trace is from
  TraceChange change;                   // of the trace, since the row before
  std::vector<LayerEstimate> layers;
  Density density;
  double loss = kNotKnown;
  double overlap = kNotKnown;        // mean squared cosine of its top eigenvectors' space with the one's before
  double learning_rate = kNotKnown;  // of the training at that step
};

/// What a result has for its row; step, name, time, sha256, result, fresh, change, overlap and rate are the caller's.
SeriesRow series_row(const RunResult& result);

struct Series {
  std::string version, curvature, config;
  std::vector<SeriesRow> rows;
};

/// @throws InputError if it can't be written; an earlier file of that name is then as it was
void write_series(const std::filesystem::path& path, const Series& series);

/// As far as a table of lines needs it: without layers, densities and samples; of eigenvalues the largest alone.
/// @throws InputError: no such file, not a series, or broken
Series read_series(const std::filesystem::path& path);

/// True for an HDF5 file that says it is a series of hesspect. Never throws for the content's sake.
bool is_series(const std::filesystem::path& path);

}  // namespace hesspect
