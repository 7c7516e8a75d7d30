// What a run is asked to do: plain nested structs, every field with its default. No parsing here (options.h does that).
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "hesspect/config/watch_config.h"
#include "hesspect/core/basis_memory.h"
#include "hesspect/core/curvature.h"
#include "hesspect/core/element_type.h"
#include "hesspect/core/input_sharpness.h"
#include "hesspect/core/matrix_precision.h"
#include "hesspect/core/parameter_grouping.h"
#include "hesspect/core/parameter_memory.h"
#include "hesspect/core/product_mode.h"
#include "hesspect/core/random_probe.h"
#include "hesspect/core/reduction.h"

namespace hesspect {

enum class Command {
  kNone,
  kAnalyze,
  kDensity,
  kEigs,
  kTrace,
  kPlan,
  kInspect,
  kLandscape,
  kSharpness,
  kInputs,
  kFeatures,
  kReport,
  kCompare,
  kSeries
};
enum class EigenMethod { kLanczos, kPower };
enum class TraceMethod { kDeflated, kHutchinson, kHutchPlusPlus, kXTrace, kXNysTrace };
enum class DeviceChoice { kAuto, kCpu, kCuda };

enum class ReportFormat { kText, kJson, kHtml };

/// In which order a series takes its checkpoints.
enum class SeriesOrder { kStep, kTime, kListed };

/// Which values options have that nobody gives.
enum class Preset { kQuick, kStandard, kThorough };

/// Whether the command reads earlier results and computes nothing: `report` and `compare`.
inline bool reads_results(Command command) { return command == Command::kReport || command == Command::kCompare; }

/// The names that options and results have.
std::string to_string(Command command);
std::string to_string(EigenMethod method);
std::string to_string(TraceMethod method);
std::string to_string(DeviceChoice device);
std::string to_string(ReportFormat format);
std::string to_string(SeriesOrder order);
std::string to_string(Preset preset);

struct ModelConfig {
  std::string model;                 // .pt2
  std::vector<std::string> weights;  // state dicts laid over the program, later over earlier; none: those in the .pt2
  bool weights_partial = false;      // what they don't hold keeps what the .pt2 has
  std::string weights_key;           // where a PyTorch file keeps the state dict, dotted; empty: the usual keys
  std::int64_t output_index = 0;
  std::string initial_weights;  // a state dict of the parameters before training; empty: not given
};

struct DataConfig {
  std::string data;
  /// Model input -> array in the data file, in the order given; an input that is not named here has the array of its
  /// name.
  std::vector<std::pair<std::string, std::string>> inputs;
  std::string target = "target";
  std::int64_t samples = 0;          // the first so many rows; 0: all
  std::int64_t samples_at_most = 0;  // the first so many where there are more; 0: no limit
  std::int64_t micro_batch = 0;      // rows; 0: chosen by the run
  std::int64_t unit_rows = 1;        // rows that are never parted; -1: all
  /// Input, output or "target" -> the dimension of its rows, a number as text.
  std::vector<std::pair<std::string, std::string>> batch_dims;
};

/// Numbers, or the name of the array in the data file that has them.
struct NumbersOrArray {
  std::vector<double> numbers;
  std::string array;
  bool given() const { return !numbers.empty() || !array.empty(); }
};

struct LossConfig {
  std::string loss;  // as in loss_names()
  Reduction reduction = Reduction::kMean;
  std::string count_output;  // output: index or name of the program's output that counts; empty: rows count
  bool assume_sum_over_rows = false;
  std::int64_t shift = 1;            // causal_lm
  std::int64_t ignore_index = -100;  // where targets are classes
  double label_smoothing = 0;        // cross_entropy, causal_lm, masked_lm
  NumbersOrArray class_weights;      // the same, and nll
  NumbersOrArray pos_weight;         // bce_with_logits
  double beta = 1;                   // smooth_l1
  double delta = 1;                  // huber
  std::string loss_weight;           // array in the data file: of rows or terms; empty: all 1
};

struct CurvatureConfig {
  Curvature curvature = Curvature::kHessian;
  FisherUnit fisher_unit = FisherUnit::kTerm;  // empirical_fisher
};

/// Of which parameters, and of which of them apart. Regular expressions on parameters' names.
struct PartsConfig {
  std::vector<std::string> params, exclude;                 // none: all parameters
  std::vector<std::pair<std::string, std::string>> blocks;  // name -> expression
  ParameterGrouping grouping = ParameterGrouping::kNone;    // of blocks
  std::int64_t block_hvps = 200;                            // products with each block, at most
  bool chooses() const { return !params.empty() || !exclude.empty(); }
  bool wants_blocks() const { return !blocks.empty() || grouping != ParameterGrouping::kNone; }
};

struct EigsConfig {
  std::int64_t top = 10;
  std::int64_t bottom = 3;
  std::int64_t magnitude = 0;  // instead of top and bottom: of largest |λ|
  std::int64_t max_steps = 0;  // Lanczos steps at most; 0: most_steps decides
  double rtol_eigs = 1e-4;     // residual norm over the largest |Ritz value|
  EigenMethod method = EigenMethod::kLanczos;
  std::int64_t block = 1;      // start vectors; more than 1: a block run of its own
  std::int64_t max_basis = 0;  // rows, then thick restart; 0: as many as steps, or as fit
  bool true_residuals = true;  // a product for each reported pair
  std::string eigenvectors;    // file: .h5 or .safetensors
};

/// Lanczos steps at most, for a model of `parameters` parameters: what is asked for, else 200; where parameters are
/// few, as many as there are, so that all eigenvalues can be found.
inline std::int64_t most_steps(const EigsConfig& eigs, std::int64_t parameters) {
  constexpr std::int64_t kUsual = 200, kFew = 1000;
  if (eigs.max_steps > 0) return eigs.max_steps;
  return parameters <= kFew ? std::max(kUsual, parameters) : kUsual;
}

struct TraceConfig {
  TraceMethod trace_method = TraceMethod::kDeflated;
  bool layers = true;    // traces of all parameter tensors
  std::string diagonal;  // file: .h5 or .safetensors
};

/// How accurate the results are to be. 0: no accuracy is asked for, and --probes and --steps say how much is done.
struct AccuracyConfig {
  double rtol_trace = 0.02;      // half width of the confidence interval over |trace|
  double density_w1 = 0.01;      // bound of the Wasserstein-1 distance over the width of the spectrum
  double confidence = 0.9;       // of intervals, bands and bounds
  std::int64_t max_hvps = 2000;  // products at most; 0: no limit
  /// Groups of rows, by whose spread the error is told that the data make; 0: none, -1: as many as cost next to
  /// nothing.
  std::int64_t data_error = -1;
};

struct QuadratureConfig {
  std::int64_t probes = 1;  // Lanczos runs, at least
  std::int64_t steps = 80;  // of each, at least
  ProbeDistribution distribution = ProbeDistribution::kRademacher;
  double sigma = 0;  // standard deviation of the kernel, in units of λ; 0: chosen
  std::uint64_t seed = 0;
  bool reorthogonalize = true;  // full; false: none
};

struct ComputeConfig {
  ElementType dtype = ElementType::kF32;               // or kF64
  MatrixPrecision precision = MatrixPrecision::kFp32;  // of matrix products within products
  DeviceChoice device = DeviceChoice::kAuto;
  std::int64_t threads = 0;  // a rank; 0: the cores it may use, shared between the ranks that share them
  bool rows_in_use = true;   // vectors leave out rows of look-up tables that the data don't use
};

/// How the run is laid out over ranks and memory. 0, -1 and nothing: chosen by the plan.
struct LayoutConfig {
  std::int64_t groups = 0;                 // of ranks, each with probes of its own
  std::int64_t lock_step = 0;              // probes a group advances together
  std::optional<ElementType> basis_dtype;  // kF64, kF32 or kBF16
  std::optional<BasisMemory> basis_memory;
  ParameterMemory parameters = ParameterMemory::kAuto;
  std::int64_t memory = 0;         // bytes a rank may take
  std::int64_t graph_memory = -1;  // bytes of it for what is kept between products
  ProductMode product = ProductMode::kAuto;
  bool cuda_graphs = true;          // where they are faster
  std::optional<bool> fetch_ahead;  // of sharded parameters; none: chosen
  double lost_after_s = 20;         // a rank that has been silent so long is lost; 0: never
};

struct CheckpointConfig {
  std::string checkpoint;          // folder; empty: the output's name and ".checkpoint"
  double checkpoint_minutes = 30;  // 0: only when stopped
  double max_hours = 0;            // 0: no limit
  bool resume = false;
};

/// What the command `inputs` measures.
struct InputsConfig {
  std::vector<std::string> vary;  // inputs; none: floating ones, else the embeddings of the others
  double rtol_inputs = 0.01;      // of an eigenvalue's error, over the row's largest |eigenvalue|
  std::int64_t input_steps = 100;
  InputDirection move = InputDirection::kSign;
  double move_by = 0;  // 0: a tenth of the norm of the row's inputs
  std::int64_t fragile = 20;
};

/// What the command `plan` plans.
struct PlanConfig {
  Command work = Command::kAnalyze;  // or kDensity, kEigs, kTrace, kFeatures, kInputs, kLandscape
  std::int64_t world = 0;            // ranks; 0: those there are
  bool measure = true;
  double bandwidth = 0;   // GB/s of a rank's messages; 0: assumed
  double latency_us = 0;  // microseconds of one step of a message; 0: assumed
  double tflops = 0;      // 10^12 operations a second of a rank's matrix products; 0: not known
};

/// What the loss is looked at along.
struct LandscapeConfig {
  /// One or two of "eigenvector:I", "random:I", "gradient", "weights:FILE"; none: the first two eigenvectors.
  std::vector<std::string> directions;
  std::int64_t points = 21;                      // of each direction
  std::vector<std::pair<double, double>> spans;  // of each direction's coordinate; none: chosen
  std::string vectors_from;                      // eigenvectors that an earlier run wrote; empty: they are found
  std::string directions_file;                   // .h5 or .safetensors; empty: they are not written
};

/// What steps are taken from the parameters.
struct SharpnessConfig {
  std::vector<double> rho{0.05};          // of SAM, in parameters
  std::vector<double> adaptive_rho{0.5};  // relative to each parameter
  std::int64_t eigenvectors = 3;          // that SAM's steps are taken along, besides the gradient
  bool step_check = true;                 // takes gradient steps below and above the largest stable one
  double momentum = 0.9;
  std::int64_t basin_directions = 5;
  double basin_rise = 0.1;     // of the loss, over its size
  std::string second_moments;  // of Adam; empty: not given
  /// -1: as that file has it, else PyTorch's default.
  double adam_beta1 = -1, adam_beta2 = -1, adam_eps = -1;
  std::int64_t adam_step = 0;        // updates so far, where the file does not say; 0: not known
  std::int64_t measure_probes = 10;  // random vectors for traces of information matrices and relative flatness; 0: none
  std::string flatness_layer;        // parameter tensor; empty: the last one that makes the output
  std::string other_data;            // a file of further rows; empty: none
  std::int64_t other_samples = 0;    // the first so many of them; 0: all
};

/// What the command `features` takes as features, and what it measures of them.
struct FeaturesConfig {
  std::string from;                                        // "auto", or a file of JSON; empty: none
  std::vector<std::pair<std::string, std::string>> named;  // name -> expression
  std::int64_t buckets = 0;                                // auto: of each table's rows, by frequency; 0: none
  std::int64_t rows = 0;                                   // auto: single rows of each table
  std::vector<double> rho{0.1};                            // of the loss's changes, relative to the feature's norm
  std::int64_t draws = 8;                                  // random directions of each
  bool wanted() const { return !from.empty() || !named.empty(); }
};

/// What the command `series` goes through, and when it ends.
struct SeriesConfig {
  std::vector<std::string> checkpoints;  // patterns, folders, files, or lists of them
  SeriesOrder order = SeriesOrder::kStep;
  std::string results;        // folder of the results; empty: the output's stem and "-results"
  std::string learning_rate;  // a number, or a file of lines "step rate"; empty: not given
  bool warm = true;           // each checkpoint begins from what the last one found
  std::int64_t every = 1;     // takes one in so many, in their order
  bool follow = false;        // waits for more
  double poll_s = 2;          // between looks at the folders
  std::string marker;         // what must be there beside a whole checkpoint; empty: nothing
  std::string end_marker;     // a file that ends following; empty: none
  std::int64_t until = -1;    // the step that ends following; -1: none
  bool retry_failed = false;  // takes those again that have failed
  WatchConfig watch;          // how it is seen from outside
};

struct OutputConfig {
  std::string output;
  std::string from;  // density: an earlier result
  bool force = false;
  bool quiet = false;
  bool verbose = false;
  std::string trace_json;  // a timeline of the run; empty: none
};

/// How `report` and `compare` write what they say.
struct ReportConfig {
  ReportFormat format = ReportFormat::kText;
  double momentum = 0.9;  // of the stable steps with momentum
  double damping = 0;     // a further constant of the effective dimension; 0: none
};

struct RunConfig {
  Preset preset = Preset::kStandard;  // its values are in the fields below
  ModelConfig model;
  DataConfig data;
  LossConfig loss;
  CurvatureConfig curvature;
  PartsConfig parts;
  EigsConfig eigs;
  TraceConfig trace;
  AccuracyConfig accuracy;
  QuadratureConfig quadrature;
  ComputeConfig compute;
  LayoutConfig layout;
  CheckpointConfig checkpoint;
  InputsConfig inputs;
  PlanConfig plan;
  LandscapeConfig landscape;
  SharpnessConfig sharpness;
  FeaturesConfig features;
  SeriesConfig series;
  OutputConfig output;
  ReportConfig report;
};

}  // namespace hesspect
