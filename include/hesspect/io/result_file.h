// The result of a run as one HDF5 file, after the NeXus conventions (docs/results.md has the schema).
//
// The file is laid out in memory by HDF5 and then written as bytes: to a temporary name beside the target, synced,
// renamed. So a full disk or a lost folder is one failing write(), never a half-written file. Limits: the whole file is
// in memory while it is written, which results (not eigenvectors) always fit.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "hesspect/core/data_error.h"
#include "hesspect/core/input_sharpness.h"
#include "hesspect/core/matrix_precision.h"
#include "hesspect/core/phases.h"
#include "hesspect/io/block_result.h"
#include "hesspect/io/feature_result.h"
#include "hesspect/spectrum/distance.h"
#include "hesspect/spectrum/estimates.h"
#include "hesspect/spectrum/landscape.h"
#include "hesspect/spectrum/measures.h"
#include "hesspect/spectrum/sharpness.h"

namespace hesspect {

/// A file that went into the run.
struct SourceFile {
  std::string path;
  std::string sha256;
};

/// What was run, by what, on what.
struct ProcessInfo {
  std::string run_id;   // the same for all starts of a resumed run, and in its checkpoint
  std::string command;  // "analyze"
  std::vector<std::string> argv;
  std::string config;  // ini text, resolved
  std::string version, git_revision, build_type, torch_version, hdf5_version, mpi_version;
  std::string model_torch_version;  // that exported the model
  std::vector<std::string> hosts;   // of each rank
  std::uint64_t seed = 0;
  std::vector<SourceFile> model, weights, data;  // weights: none where those in the model were used
  std::string weights_format;
  std::vector<std::string> weights_changes;      // what was done to make their names fit, a sentence each
  std::vector<std::string> weights_not_covered;  // names that kept what the model had
  std::vector<std::string> selected;             // parameter tensors, where --params or --exclude chose
  std::int64_t ranks = 1;
  std::int64_t threads = 1;  // a rank
  std::string dtype, device, distribution, curvature, loss_kind;
  std::string reduction = "mean";
  std::string precision = "fp32";    // of matrix products
  std::string start_time, end_time;  // ISO 8601, UTC
};

/// How trustworthy and how costly it was. NaN: not measured.
struct Diagnostics {
  static constexpr double kNotMeasured = std::numeric_limits<double>::quiet_NaN();

  double symmetry_error = 0;      // |u·Hv − v·Hu| / (‖u‖ ‖Hv‖ + ‖v‖ ‖Hu‖) for two random vectors
  PrecisionEffect precision;      // what the precision of matrix products was found to change
  double orthogonality_loss = 0;  // max |(QᵀQ − I) g| over the probes, g random signs
  std::int64_t products = 0;      // Hessian-vector products
  double product_s = 0;           // wall time in them
  double communication_s = 0;     // part of it in collectives, rank 0
  double cost_in_gradients = 0;   // seconds of a product over seconds of a gradient
  double elapsed_s = 0;           // of the whole run
  double loss = 0;                // mean over all terms
  double gradient_norm = 0;
  std::int64_t parameters = 0;        // n, tied ones once: of those selected
  std::int64_t model_parameters = 0;  // all that the model has to train
  /// Of `parameters`, those that vectors hold: the others are in rows of tables that the data don't use. 0: not written
  /// (older).
  std::int64_t parameters_in_use = 0;
  std::vector<std::string> rows_in_use;  // tables of which rows were left out: "name: 12 of 1,000 rows"
  std::int64_t rows = 0;                 // of data, all ranks
  double loss_terms = 0;                 // what the mean divides by
  std::int64_t micro_batch = 0;
  std::int64_t unit_rows = 1;          // rows that are never parted
  std::string row_check;               // how it is known that the loss is a sum over rows: "passed", "assumed …"
  std::int64_t peak_memory_bytes = 0;  // resident, the largest of all ranks
  std::int64_t peak_device_bytes = 0;  // of GPU memory, the largest of all ranks; 0 on the CPU
  std::vector<std::string> widened_weights;  // names stored as bf16 or fp16

  // The layout that ran.
  std::int64_t groups = 1;         // of ranks, each with probes of its own
  std::int64_t data_ranks = 1;     // ranks a group, which share its data and its Krylov vectors
  std::int64_t lock_step = 1;      // probes that a group ran at a time
  std::string basis_dtype;         // "float32"
  std::string basis_memory;        // "device" or "host"
  std::int64_t basis_bytes = 0;    // of a rank
  std::int64_t micro_batches = 0;  // of rank 0's rows
  std::int64_t kept_graphs = 0;    // of these, how many were kept between products
  std::int64_t cuda_graphs = 0;    // and of these, how many had their products replayed as CUDA graphs
  std::int64_t messages_per_step = 0;
  std::int64_t message_bytes_per_step = 0;
  std::int64_t starts = 1;  // 1 + times it was resumed

  // What the plan forecast, beside peak_memory_bytes, elapsed_s and product_s / products.
  std::int64_t forecast_memory_bytes = 0;
  double forecast_s = kNotMeasured;
  double forecast_product_s = kNotMeasured;  // of one product
  double gradient_s = kNotMeasured;          // of one gradient of all rows, warm
  double product_share = kNotMeasured;       // part of elapsed_s in products
  PhaseSeconds phases;                       // of rank 0, of the last start
};

/// Everything a result file holds. What was not asked for is not there.
struct RunResult {
  std::optional<Density> density;
  std::optional<EigenResult> eigenvalues;
  std::optional<TraceEstimate> trace;
  std::optional<CumulativeDensity> cumulative;
  std::vector<LayerEstimate> layers;
  std::optional<DataError> data_error;
  std::vector<DeflatedSample> samples;  // that the trace is the mean of, captured part not included; layers left out
  std::optional<Landscape> landscape;
  std::optional<Sharpness> sharpness;
  std::optional<DataComparison> quality;  // where --other-data was given
  ProductCount counts;
  std::vector<ProbeQuadrature> quadrature;
  std::optional<InputSharpness> inputs;
  std::optional<BlocksResult> blocks;
  std::optional<InitialDistance> initial;  // where --initial-weights was given
  std::optional<FeaturesResult> features;
  ProcessInfo process;
  Diagnostics diagnostics;
  std::vector<std::string> warnings;
};

/// Writes the result; replaces an earlier file of that name only when it is complete.
/// @throws InputError if it cannot be written; nothing is left behind
void write_result(const std::filesystem::path& path, const RunResult& result);

/// @throws InputError: no such file, not HDF5, not a result of hesspect, or broken
RunResult read_result(const std::filesystem::path& path);

/// True for an HDF5 file that says it is a result of hesspect. Never throws for the content's sake.
bool is_result(const std::filesystem::path& path);

}  // namespace hesspect
