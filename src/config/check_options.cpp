// What no single option can decide or check: defaults that follow from other options, and options that don't go
// together.
#include <algorithm>
#include <filesystem>
#include <initializer_list>
#include <limits>

#include "hesspect/config/direction.h"
#include "hesspect/config/options.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "option_groups.h"

namespace hesspect {
namespace {

void require(bool given, Command command, const std::string& option, const std::string& what) {
  if (!given) throw UsageError("'" + to_string(command) + "' needs --" + option + ", " + what);
}

/// Refuses options that the loss does not heed. --ignore-index and --shift stand with any loss, as they always did:
/// they change nothing there.
void check_loss(const LossConfig& c) {
  const auto belongs = [&](const char* option, bool given, std::initializer_list<std::string> losses) {
    if (given && std::find(losses.begin(), losses.end(), c.loss) == losses.end())
      throw UsageError(std::string("--") + option + " belongs to --loss " + format_names(losses) + ", not to " +
                       c.loss);
  };
  const LossConfig usual;
  belongs("label-smoothing", c.label_smoothing != 0, {"cross_entropy", "causal_lm", "masked_lm"});
  belongs("class-weights", c.class_weights.given(), {"cross_entropy", "causal_lm", "masked_lm", "nll"});
  belongs("pos-weight", c.pos_weight.given(), {"bce_with_logits"});
  belongs("beta", c.beta != usual.beta, {"smooth_l1"});
  belongs("delta", c.delta != usual.delta, {"huber"});
  if (c.loss == "output" && !c.loss_weight.empty())
    throw UsageError("--loss-weight has no effect on --loss output: weigh the rows inside the program");
}

constexpr std::int64_t kLeastRoom = 8;  // rows that a basis needs beside the wanted vectors, to go on after a restart

std::int64_t wanted(const EigsConfig& c) { return c.top + c.bottom + c.magnitude; }

void check_eigenvalues(const EigsConfig& c, bool reorthogonalize, Command work) {
  if (c.magnitude > 0 && c.top + c.bottom > 0)
    throw UsageError("--magnitude takes the place of --top and --bottom: give one or the other");
  if (work == Command::kEigs && wanted(c) == 0) throw UsageError("'eigs' needs --top, --bottom or --magnitude above 0");
  if (c.method == EigenMethod::kPower) {
    if (work != Command::kEigs) throw UsageError("--method power belongs to 'eigs', not to '" + to_string(work) + "'");
    if (c.magnitude == 0)
      throw UsageError("--method power finds the largest |eigenvalues|: ask with --magnitude, not --top and --bottom");
    if (c.block > 1 || c.max_basis > 0) throw UsageError("--block-size and --max-basis belong to --method lanczos");
  } else if (!reorthogonalize) {
    const std::string without = " needs --reorthogonalization full: without it the Lanczos vectors are not kept";
    if (c.block > 1) throw UsageError("--block-size above 1" + without);
    if (c.max_basis > 0) throw UsageError("--max-basis" + without);
  }
  if (c.max_steps == 1) throw UsageError("--max-steps 1 is too few: at least 2, or 0 for as many as are usual");
  const std::int64_t most = most_steps(c, std::numeric_limits<std::int64_t>::max());
  if (c.block > most)
    throw UsageError("--block-size " + std::to_string(c.block) + " is more than --max-steps " + std::to_string(most) +
                     ": a block takes a step for each of its vectors");
  const std::int64_t least = wanted(c) + (c.block > 1 ? 2 * c.block : kLeastRoom);
  if (c.max_basis > 0 && c.max_basis < std::min(least, most + 1))
    throw UsageError("--max-basis " + std::to_string(c.max_basis) + " is too small for " + std::to_string(wanted(c)) +
                     " eigenvalues: at least " + std::to_string(least) + ", better twice that");
}

/// A block's name is that of a group in the result.
void check_parts(const RunConfig& c, Command work) {
  if (!c.parts.blocks.empty() && c.parts.grouping != ParameterGrouping::kNone)
    throw UsageError("--block and --blocks say twice what the blocks are: give one of them");
  for (const auto& [name, pattern] : c.parts.blocks)
    if (name.find('/') != std::string::npos || name == "." || name == "..")
      throw UsageError("--block " + name + "=" + pattern + ": a block's name must not hold a '/', nor be '.' or '..'");
  const bool has_blocks = work == Command::kAnalyze || work == Command::kDensity || work == Command::kEigs ||
                          work == Command::kTrace || work == Command::kSharpness;
  if (c.parts.wants_blocks() && !has_blocks)
    throw UsageError("--block and --blocks belong to 'analyze', 'density', 'eigs', 'trace' and 'sharpness', not to '" +
                     to_string(work) + "'");
  if (c.parts.wants_blocks() && !c.quadrature.reorthogonalize)
    throw UsageError("blocks need --reorthogonalization full: without it the Lanczos vectors are not kept");
}

void check_initial_weights(const RunConfig& c, Command work) {
  const bool measures =
      work == Command::kAnalyze || work == Command::kDensity || work == Command::kEigs || work == Command::kTrace;
  if (!c.model.initial_weights.empty() && !measures)
    throw UsageError("--initial-weights belongs to 'analyze', 'density', 'eigs' and 'trace', not to '" +
                     to_string(work) + "'");
}

void check_vectors_file(const std::string& option, const std::string& file, const OutputConfig& output) {
  if (!file.ends_with(".h5") && !file.ends_with(".hdf5") && !file.ends_with(".safetensors"))
    throw UsageError("--" + option + " " + file + ": expected a name that ends in .h5, .hdf5 or .safetensors");
  const auto plain = [](const std::string& path) { return std::filesystem::path(path).lexically_normal(); };
  if (plain(file) == plain(output.output)) throw UsageError("--" + option + " and --output name the same file");
}

void check_curvature(const RunConfig& c, bool trace) {
  if (c.curvature.fisher_unit != FisherUnit::kTerm && c.curvature.curvature != Curvature::kEmpiricalFisher)
    throw UsageError("--fisher-unit belongs to --curvature empirical_fisher, not to " +
                     to_string(c.curvature.curvature));
  if (trace && c.trace.trace_method == TraceMethod::kXNysTrace && !is_semidefinite(c.curvature.curvature))
    throw UsageError(
        "--trace-method xnystrace needs a positive semi-definite matrix, --curvature ggn, fisher or "
        "empirical_fisher: the Hessian has negative eigenvalues; xtrace takes any");
}

void check_rows_options(const RunConfig& c) {
  for (const auto& [name, dim] : c.data.batch_dims) {
    const bool is_number = !dim.empty() && dim.size() <= 2 && dim.find_first_not_of("0123456789") == std::string::npos;
    if (!is_number)
      throw UsageError("--batch-dim " + name + "=" + dim + ": expected the number of a dimension, from 0");
  }
  if (!c.loss.count_output.empty() && !c.loss.loss.empty() && c.loss.loss != "output")
    throw UsageError("--count-output belongs to --loss output, not to " + c.loss.loss);
  if (c.data.unit_rows > 1 && c.data.micro_batch % c.data.unit_rows != 0)
    throw UsageError("--micro-batch " + std::to_string(c.data.micro_batch) + " is no whole number of --unit-rows " +
                     std::to_string(c.data.unit_rows));
}

void check_files(const RunConfig& c, bool eigenvalues, bool trace, Command work) {
  const std::string& vectors = c.eigs.eigenvectors;
  const std::string& diagonal = c.trace.diagonal;
  if (!vectors.empty()) {
    if (!eigenvalues)
      throw UsageError("--eigenvectors belongs to 'analyze' and 'eigs', not to '" + to_string(work) + "'");
    if (wanted(c.eigs) == 0) throw UsageError("--eigenvectors needs --top, --bottom or --magnitude above 0");
    check_vectors_file("eigenvectors", vectors, c.output);
  }
  if (!diagonal.empty()) {
    if (!trace) throw UsageError("--diagonal belongs to 'analyze' and 'trace', not to '" + to_string(work) + "'");
    if (c.trace.trace_method != TraceMethod::kDeflated && c.trace.trace_method != TraceMethod::kHutchinson)
      throw UsageError("--diagonal needs --trace-method deflated or hutchinson, not " +
                       to_string(c.trace.trace_method));
    check_vectors_file("diagonal", diagonal, c.output);
  }
  if (!vectors.empty() && vectors == diagonal) throw UsageError("--eigenvectors and --diagonal name the same file");
}

void check_landscape(const RunConfig& c, Command work) {
  const LandscapeConfig& landscape = c.landscape;
  if (work != Command::kLandscape) {
    if (!landscape.directions.empty() || !landscape.spans.empty() || !landscape.directions_file.empty() ||
        !landscape.vectors_from.empty())
      throw UsageError("--direction, --span, --vectors-from and --directions-file belong to 'landscape', not to '" +
                       to_string(work) + "'");
    return;
  }
  const std::size_t directions = directions_from(landscape.directions).size();
  if (landscape.spans.size() > directions)
    throw UsageError("--span is given " + std::to_string(landscape.spans.size()) + " times, for " +
                     std::to_string(directions) + (directions == 1 ? " direction" : " directions"));
  const auto is_eigenvector = [](const DirectionName& name) { return name.kind == DirectionName::Kind::kEigenvector; };
  if (!landscape.vectors_from.empty() && std::ranges::none_of(directions_from(landscape.directions), is_eigenvector))
    throw UsageError("--vectors-from has no effect: no --direction is an eigenvector");
  if (!landscape.directions_file.empty()) check_vectors_file("directions-file", landscape.directions_file, c.output);
}

void check_sharpness(const SharpnessConfig& c, Command work) {
  if (!c.second_moments.empty() && work != Command::kSharpness)
    throw UsageError("--second-moments belongs to 'sharpness', not to '" + to_string(work) + "'");
  if (!c.other_data.empty() && work != Command::kSharpness)
    throw UsageError("--other-data belongs to 'sharpness', not to '" + to_string(work) + "'");
  if (c.other_samples > 0 && c.other_data.empty())
    throw UsageError("--other-samples says how much of --other-data is used, which is not given");
  for (const auto& [name, value] :
       {std::pair("adam-beta1", c.adam_beta1), {"adam-beta2", c.adam_beta2}, {"adam-eps", c.adam_eps}})
    if (value < 0 && value != -1)
      throw UsageError(std::string("--") + name + " is below 0, and not -1, which stands for what the file has");
  const bool given = c.adam_beta1 >= 0 || c.adam_beta2 >= 0 || c.adam_eps >= 0 || c.adam_step > 0;
  if (given && c.second_moments.empty())
    throw UsageError(
        "--adam-beta1, --adam-beta2, --adam-eps and --adam-step say how --second-moments is read, which is "
        "not given");
}

void check_features(const RunConfig& c, Command work) {
  const FeaturesConfig& features = c.features;
  if (work != Command::kFeatures) {
    RunConfig untouched;
    untouched.preset = c.preset;
    apply_preset(untouched);
    const FeaturesConfig& usual = untouched.features;
    if (features.wanted() || features.buckets > 0 || features.rows > 0 || features.rho != usual.rho ||
        features.draws != usual.draws)
      throw UsageError(
          "--features, --feature, --frequency-buckets, --feature-rows, --feature-rho and --feature-draws belong to "
          "'features', not to '" +
          to_string(work) + "'");
    return;
  }
  if (!features.wanted()) throw UsageError("'features' needs --features auto, --features FILE or --feature NAME=REGEX");
  if (features.from != "auto" && features.buckets > 0)
    throw UsageError("--frequency-buckets belongs to --features auto");
  if (features.from != "auto" && features.rows > 0) throw UsageError("--feature-rows belongs to --features auto");
  if (!c.quadrature.reorthogonalize)
    throw UsageError("'features' needs --reorthogonalization full: without it the Lanczos vectors are not kept");
}

void check_series(const RunConfig& c, Command command) {
  const SeriesConfig& series = c.series;
  const SeriesConfig usual;
  if (command != Command::kSeries) {
    if (!series.checkpoints.empty() || !series.results.empty() || !series.learning_rate.empty() || series.follow ||
        series.every != usual.every || series.until != usual.until || !series.marker.empty() ||
        !series.end_marker.empty() || series.order != usual.order || series.retry_failed ||
        !series.watch.metrics_file.empty() || series.watch.metrics_port != 0)
      throw UsageError(
          "--checkpoints, --order, --results, --learning-rate, --every, --follow, --marker, --end-marker, --until, "
          "--retry-failed and --metrics-... belong to 'series', not to '" +
          to_string(command) + "'");
    return;
  }
  require(!series.checkpoints.empty(), command, "checkpoints", "a pattern, a folder or a list of checkpoints");
  if (!series.follow && (!series.end_marker.empty() || series.until >= 0))
    throw UsageError("--end-marker and --until say when --follow ends, which is not given");
  if (!c.checkpoint.checkpoint.empty())
    throw UsageError("--checkpoint is of a single run: 'series' keeps one beside each result, in --results");
  if (!c.eigs.eigenvectors.empty() || !c.trace.diagonal.empty() || !c.output.trace_json.empty())
    throw UsageError(
        "--eigenvectors, --diagonal and --trace-json name files of a single run: give them to 'analyze' with "
        "--weights and the checkpoint");
}

/// Of the commands that look at the loss itself.
void check_one_group(const RunConfig& c, Command work) {
  if (work != Command::kLandscape && work != Command::kSharpness) return;
  const std::string name = quote(to_string(work));
  if (!c.quadrature.reorthogonalize)
    throw UsageError(name + " needs --reorthogonalization full: eigenvectors are made from the Lanczos vectors");
  if (c.layout.groups > 1)
    throw UsageError(name + " has one group of ranks, not --groups " + std::to_string(c.layout.groups));
}

}  // namespace

void resolve_defaults(RunConfig& c, const std::set<std::string>& given) {
  if (given.contains("samples") && !given.contains("samples-at-most")) c.data.samples_at_most = 0;
  const bool ends = given.contains("top") || given.contains("bottom");
  if (c.eigs.method == EigenMethod::kPower && !ends && !given.contains("magnitude")) c.eigs.magnitude = c.eigs.top;
  if (c.eigs.magnitude > 0) {
    if (!given.contains("top")) c.eigs.top = 0;
    if (!given.contains("bottom")) c.eigs.bottom = 0;
  }
  if (!c.quadrature.reorthogonalize) {
    if (!given.contains("true-residuals")) c.eigs.true_residuals = false;
    if (!given.contains("trace-method")) c.trace.trace_method = TraceMethod::kHutchinson;
  }
}

void check_whole(const Invocation& run) {
  const RunConfig& c = run.config;
  if (c.output.quiet && c.output.verbose) throw UsageError("--quiet and --verbose contradict each other");
  if (run.command == Command::kInspect) {
    if (run.file.empty()) throw UsageError("'inspect' needs a file: hesspect inspect FILE");
    return;
  }
  if (reads_results(run.command)) {
    if (run.files.empty())
      throw UsageError("'" + to_string(run.command) + "' needs results: hesspect " + to_string(run.command) +
                       " R.h5 ...");
    if (run.command == Command::kCompare && c.report.format == ReportFormat::kHtml)
      throw UsageError("'compare' writes text or json, not html: 'report' writes a page");
    return;
  }
  const bool smoothing = run.command == Command::kDensity && !c.output.from.empty();
  if (!c.output.from.empty() && !smoothing)
    throw UsageError("--from belongs to 'density', not to '" + to_string(run.command) + "'");
  if (!smoothing) {
    require(!c.model.model.empty(), run.command, "model", "a .pt2 file");
    require(!c.data.data.empty(), run.command, "data", "an HDF5 or safetensors file");
    require(!c.loss.loss.empty(), run.command, "loss", "one of " + format_names(loss_names(), loss_names().size()));
    check_loss(c.loss);
  }
  if (c.model.weights.empty() && run.command != Command::kSeries &&
      (c.model.weights_partial || !c.model.weights_key.empty()))
    throw UsageError("--weights-partial and --weights-key say how --weights is read, which is not given");
  const bool planning = run.command == Command::kPlan;
  const Command work = planning                          ? c.plan.work
                       : run.command == Command::kSeries ? Command::kAnalyze  // of each checkpoint
                                                         : run.command;
  if (!planning) {
    require(!c.output.output.empty(), run.command, "output", "the file to write");
    if (c.plan.world != 0) throw UsageError("--world belongs to 'plan'; 'mpirun -n' sets the ranks of a run");
  }
  if (c.compute.precision != MatrixPrecision::kFp32 && c.compute.dtype != ElementType::kF32)
    throw UsageError("--precision " + to_string(c.compute.precision) + " needs --dtype float32: in " +
                     to_string(c.compute.dtype) + " matrices are multiplied in full");
  const bool eigenvalues = work == Command::kEigs || work == Command::kAnalyze;
  const bool trace = work == Command::kTrace || work == Command::kAnalyze;
  if (eigenvalues) check_eigenvalues(c.eigs, c.quadrature.reorthogonalize, work);
  if (trace && !c.quadrature.reorthogonalize && c.trace.trace_method == TraceMethod::kDeflated)
    throw UsageError("--trace-method deflated needs --reorthogonalization full; without it, hutchinson");
  if (work == Command::kInputs) {
    if (c.curvature.curvature != Curvature::kHessian)
      throw UsageError("--curvature " + to_string(c.curvature.curvature) +
                       " is of the parameters: 'inputs' takes the Hessian in the inputs");
    if (c.compute.precision != MatrixPrecision::kFp32)
      throw UsageError("--precision " + to_string(c.compute.precision) +
                       " is of products over the parameters: 'inputs' takes full precision");
  }
  check_series(c, run.command);
  check_files(c, eigenvalues, trace, work);
  check_curvature(c, trace);
  check_landscape(c, work);
  check_features(c, work);
  check_one_group(c, work);
  check_rows_options(c);
  check_parts(c, work);
  check_initial_weights(c, work);
  check_sharpness(c.sharpness, work);
}

}  // namespace hesspect
