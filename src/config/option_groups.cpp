#include "option_groups.h"

#include <cmath>
#include <limits>

#include "hesspect/core/errors.h"
#include "hesspect/core/row_groups.h"

namespace hesspect {
namespace {

constexpr std::int64_t kNoLimit = std::numeric_limits<std::int64_t>::max();
constexpr double kLargest = 1e100;              // of sigma, beta and delta: its square is still a number
constexpr double kLargestConfidence = 0.99999;  // excluded: quantiles beyond mean nothing with a few samples

/// A number a second with K, M, G, T or P behind it, kept in units of one of these; without a letter it is of those.
void add_rate(OptionGroup& group, const std::string& name, double& value, char unit, const std::string& help) {
  group.real(name, value, 0, 1e15, true, help);
  Option& option = group.options.back();
  option.value_name = "RATE";
  option.set = [&value, unit, set = option.set](const std::vector<std::string>& values) {
    static const std::string kLetters = "KMGTP";
    std::string text = values.back();
    const std::size_t letter = text.empty() ? text.npos : kLetters.find(text.back());
    if (letter != text.npos) text.pop_back();
    set({text});
    if (letter == text.npos) return;
    value *= std::pow(1000, static_cast<double>(letter) - static_cast<double>(kLetters.find(unit)));
  };
}

}  // namespace

OptionGroup preset_options(RunConfig& c) {
  OptionGroup group{"Preset", {}};
  group.choice(
      "preset", c.preset, {Preset::kQuick, Preset::kStandard, Preset::kThorough},
      "the values of options that are not given; quick: few rows, steps and probes, wide intervals; thorough: more "
      "of all, narrow intervals; any option given wins over it");
  return group;
}

OptionGroup model_options(ModelConfig& c) {
  OptionGroup group{"Model", {}};
  group.text("model", c.model, "FILE", "the exported program, a .pt2 that torch.export.save wrote");
  group.texts("weights", c.weights, "FILE|FOLDER",
              "a state dict laid over it by name: .safetensors, *.index.json, a PyTorch archive (.pt, .pth), or a "
              "folder of these; later ones over earlier (repeatable); default: the weights in the .pt2");
  group.flag("weights-partial", c.weights_partial, "leave what no state dict holds as it is in the .pt2 (adapters)");
  group.text("weights-key", c.weights_key, "KEY",
             "where a PyTorch file keeps the state dict, as swa_state_dict or ema.model; default: the usual keys");
  group.text("initial-weights", c.initial_weights, "FILE|FOLDER",
             "a state dict of the parameters before training, read as --weights is: how far each tensor has moved, and "
             "its trace weighted by that (analyze, trace; distances alone: density, eigs)");
  group.integer("output-index", c.output_index, 0, 1'000'000, "which of the program's outputs the loss takes");
  return group;
}

OptionGroup data_options(DataConfig& c) {
  OptionGroup group{"Data", {}};
  group.text("data", c.data, "FILE", "an HDF5 or safetensors file with one array per model input, rows first");
  group.pairs("input", c.inputs, "DATASET",
              "the array that feeds the model input NAME; default: the array of its name (repeatable)");
  group.text("target", c.target, "DATASET", "the array of targets");
  group.integer("samples", c.samples, 0, kNoLimit, "use the first so many rows; 0: all");
  group.integer("samples-at-most", c.samples_at_most, 0, kNoLimit,
                "use the first so many rows where there are more; 0: all; --samples wins over it");
  group.integer("micro-batch", c.micro_batch, 0, kNoLimit, "rows that go through the model at once; 0: chosen");
  group.count_or("unit-rows", c.unit_rows, "all",
                 "rows that belong together and are never parted (pairs, graphs, contrastive batches)");
  group.pairs("batch-dim", c.batch_dims, "D",
              "the dimension that is the rows of an input, of an output or of 'target', where it is not the first "
              "(repeatable)");
  return group;
}

const std::vector<std::string>& loss_names() {
  static const std::vector<std::string> names = {
      "cross_entropy", "causal_lm", "masked_lm",       "nll",   "mse", "l1", "smooth_l1",
      "huber",         "bce",       "bce_with_logits", "output"};
  return names;
}

OptionGroup loss_options(LossConfig& c) {
  OptionGroup group{"Loss", {}};
  group.choice("loss", c.loss, loss_names(),
               "what is averaged; output: what the program itself computes, a mean over its rows or the loss of each");
  group.choice("reduction", c.reduction, {Reduction::kMean, Reduction::kSum},
               "of the loss over all its terms; of 'output', also what the program's scalar is over its rows");
  group.text(
      "count-output", c.count_output, "I|NAME",
      "output: the program's output that says how many terms, or what weight, its mean is over; default: its rows");
  group.flag("assume-sum-over-rows", c.assume_sum_over_rows,
             "go on where the check at the start finds that the loss is no sum over rows");
  group.integer("shift", c.shift, 0, 1'000'000,
                "causal_lm: targets are moved by so many positions; 0: they already are");
  group.integer("ignore-index", c.ignore_index, std::numeric_limits<std::int64_t>::min(), kNoLimit,
                "cross_entropy, causal_lm, masked_lm, nll: target classes of this value do not count");
  group.real("label-smoothing", c.label_smoothing, 0, 1, true,
             "cross_entropy, causal_lm, masked_lm: the share of the target that is spread over all classes");
  group.numbers_or_array("class-weights", c.class_weights,
                         "cross_entropy, causal_lm, masked_lm, nll: a weight for each class, or the array of them");
  group.numbers_or_array("pos-weight", c.pos_weight,
                         "bce_with_logits: weights of positive targets, as the output's last dimensions");
  group.real("beta", c.beta, 0, kLargest, false, "smooth_l1: errors below it count as their square over 2 beta");
  group.real("delta", c.delta, 0, kLargest, false, "huber: errors below it count as half their square");
  group.text("loss-weight", c.loss_weight, "DATASET",
             "an array of weights, of rows or of the loss's terms; the mean divides by their sum");
  return group;
}

OptionGroup curvature_options(CurvatureConfig& c) {
  OptionGroup group{"Curvature", {}};
  group.choice("curvature", c.curvature,
               {Curvature::kHessian, Curvature::kGgn, Curvature::kFisher, Curvature::kEmpiricalFisher},
               "the matrix whose spectrum is computed; ggn: the generalised Gauss-Newton matrix; fisher: of the "
               "model's own distribution; empirical_fisher: of gradients' outer products at the data's targets");
  group.choice("fisher-unit", c.fisher_unit, {FisherUnit::kTerm, FisherUnit::kRow},
               "empirical_fisher: whose gradients these are, each term's of the loss or each row's");
  return group;
}

/// --block was the number of start vectors before it named blocks, and still is where it gets a number.
OptionGroup parts_options(PartsConfig& c, EigsConfig& eigs) {
  OptionGroup group{"Parts", {}};
  group.texts("params", c.params, "REGEX",
              "the matrix of these parameters alone, all others held fixed: those in whose name any expression finds "
              "something (repeatable)");
  group.texts("exclude", c.exclude, "REGEX", "the same without these (repeatable)");
  OptionGroup number;
  number.integer("block", eigs.block, 1, 1'000, "");
  group.options.push_back(
      {"block", "NAME=REGEX",
       "a diagonal block's own eigenvalues, trace and density, beside the whole matrix's: of the parameters in whose "
       "name the expression finds something (repeatable, also for one block)",
       true,
       [&c, count = number.options.front().set](const std::vector<std::string>& values) {
         std::vector<std::pair<std::string, std::string>> blocks;
         for (const std::string& value : values) {
           const std::size_t equals = value.find('=');
           if (!value.empty() && value.find_first_not_of("0123456789") == std::string::npos)
             count({value});
           else if (equals == std::string::npos || equals == 0 || equals + 1 == value.size())
             throw UsageError("expected NAME=REGEX, got '" + value + "'");
           else
             blocks.emplace_back(value.substr(0, equals), value.substr(equals + 1));
         }
         c.blocks = std::move(blocks);
       },
       [&c] {
         std::vector<std::string> values;
         for (const auto& [name, pattern] : c.blocks) values.push_back(name + "=" + pattern);
         return values;
       }});
  group.choice(
      "blocks", c.grouping,
      {ParameterGrouping::kNone, ParameterGrouping::kTensor, ParameterGrouping::kLayer, ParameterGrouping::kModule},
      "blocks that together are the whole: every parameter tensor; every layer's; every stage's or repeated "
      "module's (layer1, transformer.h.0)");
  group.integer("block-hvps", c.block_hvps, 10, 1'000'000, "products with each block at most, beside --max-hvps");
  return group;
}

OptionGroup eigs_options(EigsConfig& c) {
  OptionGroup group{"Eigenvalues (analyze, eigs)", {}};
  group.integer("top", c.top, 0, 10'000, "how many of the largest eigenvalues");
  group.integer("bottom", c.bottom, 0, 10'000, "how many of the smallest eigenvalues");
  group.integer("magnitude", c.magnitude, 0, 10'000, "instead of both: how many of the largest |eigenvalue|");
  group.choice("method", c.method, {EigenMethod::kLanczos, EigenMethod::kPower},
               "power: power iteration with deflation, for comparison (eigs, with --magnitude)");
  group.integer("max-steps", c.max_steps, 0, 1'000'000,
                "Lanczos steps at most; 0: 200, or n in models of n <= 1,000 parameters");
  group.real("rtol-eigs", c.rtol_eigs, 0, 1, false,
             "an eigenvalue has converged when its residual is below this share of the largest |eigenvalue|");
  group.integer("block-size", c.block, 1, 1'000,
                "start vectors; above 1: a block run of its own, which finds clusters and multiplicities up to this");
  group.integer("max-basis", c.max_basis, 0, 1'000'000,
                "Lanczos vectors kept, then a thick restart; 0: as many as there are steps, or as fit");
  group.flag("true-residuals", c.true_residuals, "measure |Hv - lambda v| of every pair found, with a product each");
  group.text("eigenvectors", c.eigenvectors, "FILE", "write the eigenvectors, by parameter: .h5 or .safetensors");
  return group;
}

OptionGroup trace_options(TraceConfig& c) {
  OptionGroup group{"Trace (analyze, trace)", {}};
  group.choice("trace-method", c.trace_method,
               {TraceMethod::kDeflated, TraceMethod::kHutchinson, TraceMethod::kHutchPlusPlus, TraceMethod::kXTrace,
                TraceMethod::kXNysTrace},
               "deflated: Hutchinson on what the Lanczos vectors leave over");
  group.flag("layers", c.layers, "the trace of every parameter tensor, from the same products");
  group.text("diagonal", c.diagonal, "FILE", "write an estimate of the diagonal, by parameter: .h5 or .safetensors");
  return group;
}

OptionGroup accuracy_options(AccuracyConfig& c) {
  OptionGroup group{"Accuracy", {}};
  group.real("rtol-trace", c.rtol_trace, 0, 1, true,
             "half width of the trace's confidence interval over |trace|; 0: --probes samples are taken");
  group.real("density-w1", c.density_w1, 0, 1, true,
             "bound of the density's Wasserstein-1 distance over the spectrum's width; 0: --probes runs of --steps");
  group.real("confidence", c.confidence, 0.5, kLargestConfidence, true, "of intervals, bands and bounds");
  group.integer("max-hvps", c.max_hvps, 0, kNoLimit, "Hessian-vector products at most; 0: no limit");
  group.options.push_back(
      {"data-error", "auto|off|GROUPS",
       "tell, by the spread over groups of rows, how far trace and eigenvalues would be off on other rows, at no "
       "product; micro-batches end with a group; auto: where they are many anyway",
       false,
       [&c](const std::vector<std::string>& v) {
         const std::string& text = v.back();
         if (text == "auto" || text == "off") {
           c.data_error = text == "off" ? 0 : kAutoRowGroups;
           return;
         }
         const bool is_number = !text.empty() && text.size() < 7 && text.find_first_not_of("0123456789") == text.npos;
         if (!is_number || std::stoll(text) < kFewestRowGroups)
           throw UsageError("expected auto, off or a number of groups of at least " + std::to_string(kFewestRowGroups));
         c.data_error = std::stoll(text);
       },
       [&c] {
         return std::vector<std::string>{c.data_error == 0  ? "off"
                                         : c.data_error < 0 ? "auto"
                                                            : std::to_string(c.data_error)};
       }});
  return group;
}

OptionGroup quadrature_options(QuadratureConfig& c) {
  OptionGroup group{"Probes (analyze, density, trace)", {}};
  group.integer("probes", c.probes, 1, 1'000'000, "Lanczos runs from random probes, at least");
  group.integer("steps", c.steps, 2, 1'000'000, "Lanczos steps of each, at least");
  group.distribution("distribution", c.distribution, "of a probe's entries");
  group.real("sigma", c.sigma, 0, kLargest, true,
             "standard deviation of the density's kernel, in units of the eigenvalues; 0: chosen");
  group.seed("seed", c.seed, "of the probes, which depend on nothing else");
  group.options.push_back({"reorthogonalization", "full|none", "of the Lanczos vectors", false,
                           [&c](const std::vector<std::string>& v) {
                             if (v.back() != "full" && v.back() != "none") throw UsageError("expected full or none");
                             c.reorthogonalize = v.back() == "full";
                           },
                           [&c] { return std::vector<std::string>{c.reorthogonalize ? "full" : "none"}; }});
  return group;
}

OptionGroup compute_options(ComputeConfig& c) {
  OptionGroup group{"Computation", {}};
  group.choice("dtype", c.dtype, {ElementType::kF32, ElementType::kF64},
               "of parameters and vectors; scalars are float64 always");
  group.choice("precision", c.precision, {MatrixPrecision::kFp32, MatrixPrecision::kTf32, MatrixPrecision::kBf16},
               "of the products of matrices alone, in float32; what it changes is measured and stands in the result");
  group.choice("device", c.device, {DeviceChoice::kAuto, DeviceChoice::kCpu, DeviceChoice::kCuda},
               "where the model runs");
  group.integer("threads", c.threads, 0, 4096, "a rank; 0: its share of the cores it may use");
  group.options.push_back({"rows-in-use", "auto|off",
                           "leave out of the vectors what has exactly no curvature: rows of look-up tables that no row "
                           "of the data uses",
                           false,
                           [&c](const std::vector<std::string>& v) {
                             if (v.back() != "auto" && v.back() != "off") throw UsageError("expected auto or off");
                             c.rows_in_use = v.back() == "auto";
                           },
                           [&c] { return std::vector<std::string>{c.rows_in_use ? "auto" : "off"}; }});
  return group;
}

OptionGroup layout_options(LayoutConfig& c) {
  OptionGroup group{"Layout", {}};
  group.integer(
      "groups", c.groups, 0, 1'000'000,
      "groups of ranks that work on probes of their own, each with all the data; divides the ranks; 0: chosen");
  group.integer("lock-step", c.lock_step, 0, 1'000, "probes that a group takes forward together; 0: chosen");
  group.choice("basis-dtype", c.basis_dtype, {std::nullopt, ElementType::kF64, ElementType::kF32, ElementType::kBF16},
               "of the stored Lanczos vectors; auto: as --dtype while that fits");
  group.choice("basis-memory", c.basis_memory, {std::nullopt, BasisMemory::kDevice, BasisMemory::kHost},
               "where they are; auto: on the device while they fit");
  group.choice(
      "parameters", c.parameters,
      {ParameterMemory::kAuto, ParameterMemory::kReplicated, ParameterMemory::kSharded, ParameterMemory::kHost},
      "where they are, and every vector: whole on every rank; a share on each rank of a group, of which a "
      "segment of the model at a time is gathered; or such a share in host memory beside a GPU");
  group.bytes("memory", c.memory, "that a rank may take, as 80G or 500M; 0: its share of what is free");
  group.bytes("graph-memory", c.graph_memory,
              "of it, for what is kept between products; 0: nothing is kept; auto: what is left", "auto");
  group.choice(
      "product", c.product,
      {ProductMode::kAuto, ProductMode::kKept, ProductMode::kRebuilt, ProductMode::kSegments, ProductMode::kAutograd},
      "how products are taken: by the tangent program, with what does not depend on the vector kept between "
      "products, rebuilt in each, or rebuilt a segment of the program at a time; or by LibTorch's autograd; "
      "auto: the fastest that fits");
  group.options.push_back({"fetch-ahead", "auto|on|off",
                           "where parameters are sharded, gather the next segment while one is worked on, in twice the "
                           "memory; auto: where it fits, on GPUs and on several hosts",
                           false,
                           [&c](const std::vector<std::string>& v) {
                             if (v.back() != "auto" && v.back() != "on" && v.back() != "off")
                               throw UsageError("expected auto, on or off");
                             c.fetch_ahead = v.back() == "auto" ? std::nullopt : std::optional(v.back() == "on");
                           },
                           [&c] {
                             return std::vector<std::string>{!c.fetch_ahead ? "auto" : *c.fetch_ahead ? "on" : "off"};
                           }});
  group.options.push_back({"cuda-graphs", "auto|off",
                           "on GPUs, replay the launches of products from what is kept, where that is faster", false,
                           [&c](const std::vector<std::string>& v) {
                             if (v.back() != "auto" && v.back() != "off") throw UsageError("expected auto or off");
                             c.cuda_graphs = v.back() == "auto";
                           },
                           [&c] { return std::vector<std::string>{c.cuda_graphs ? "auto" : "off"}; }});
  group.real("lost-after", c.lost_after_s, 0, 1e9, true,
             "seconds of silence after which a rank counts as lost and the run ends; 0: never");
  return group;
}

OptionGroup checkpoint_options(CheckpointConfig& c) {
  OptionGroup group{"Stopping and going on", {}};
  group.text("checkpoint", c.checkpoint, "FOLDER", "of the checkpoints; default: the output's name and .checkpoint");
  group.real("checkpoint-minutes", c.checkpoint_minutes, 0, 1e9, true,
             "between checkpoints; 0: only when the run is stopped");
  group.real("max-hours", c.max_hours, 0, 1e9, true, "stop with a checkpoint after so long (exit 75); 0: no limit");
  group.flag("resume", c.resume, "go on from the checkpoint, where there is one");
  return group;
}

OptionGroup inputs_options(InputsConfig& c) {
  OptionGroup group{"Inputs (inputs)", {}};
  group.texts("vary", c.vary, "NAME",
              "an input that is varied, or whose embeddings are, where it holds integers (repeatable); default: all "
              "floating inputs, and where there are none, the embeddings of the others");
  group.real("rtol-inputs", c.rtol_inputs, 0, 1, false,
             "a row's eigenvalue is known when its error is below this share of the row's largest |eigenvalue|");
  group.integer("input-steps", c.input_steps, 1, 100'000, "Lanczos steps of a row at most");
  group.choice("move", c.move, {InputDirection::kSign, InputDirection::kGradient},
               "where inputs are moved for the change of their gradient: along its signs, or along itself");
  group.real("move-by", c.move_by, 0, kLargest, true,
             "how far, in units of the inputs; 0: a tenth of the norm of the row's inputs");
  group.integer("fragile", c.fragile, 0, 1'000'000, "how many of the most fragile rows are listed");
  return group;
}

OptionGroup plan_options(PlanConfig& c) {
  OptionGroup group{"Plan", {}};
  group.choice("for", c.work,
               {Command::kAnalyze, Command::kDensity, Command::kEigs, Command::kTrace, Command::kFeatures,
                Command::kInputs, Command::kLandscape},
               "plan: the command that is planned");
  group.integer("world", c.world, 0, 1'000'000, "plan: ranks; 0: as many as there are");
  group.flag("measure", c.measure, "plan: run one micro-batch to learn its time and memory");
  add_rate(group, "bandwidth", c.bandwidth, 'G',
           "bytes a second of a rank's messages, as 50G, for the forecast; 0: an assumption");
  group.real("latency", c.latency_us, 0, 1e9, true,
             "microseconds of one step of a message, for the forecast; 0: an assumption");
  add_rate(group, "flops", c.tflops, 'T',
           "plan: operations a second of a rank's matrix products, as 400T, for a model without weights that is "
           "planned by its shapes; 0: not known");
  return group;
}

OptionGroup landscape_options(LandscapeConfig& c) {
  OptionGroup group{"Landscape", {}};
  group.texts("direction", c.directions, "WHAT",
              "along what: eigenvector:I (from 1 for the largest eigenvalues, from -1 for the smallest), random:I "
              "(filter-normalised), gradient, or weights:FILE (towards those); once or twice; default: eigenvector:1 "
              "and eigenvector:2");
  group.integer("points", c.points, 3, 10'001, "of each direction");
  group.spans("span", c.spans,
              "of a direction's coordinate, in lengths of the direction (repeatable, in their order); default: to "
              "where the quadratic model doubles the loss; random: 1; weights: -0.5:1.5");
  group.text("vectors-from", c.vectors_from, "FILE",
             "take eigenvectors from this file, which 'eigs' or 'analyze' has written by --eigenvectors");
  group.text("directions-file", c.directions_file, "FILE", "write the directions, by parameter: .h5 or .safetensors");
  return group;
}

OptionGroup sharpness_options(SharpnessConfig& c) {
  OptionGroup group{"Sharpness", {}};
  group.numbers("rho", c.rho, "sizes of SAM's ascent steps, in parameters");
  group.numbers("adaptive-rho", c.adaptive_rho, "sizes of ascent steps relative to each parameter's own");
  group.integer("eigenvectors-tried", c.eigenvectors, 0, 1'000,
                "how many leading eigenvectors ascent steps are taken along, both ways, besides the gradient");
  group.flag("step-check", c.step_check,
             "take steps of gradient descent and momentum just below and above the largest stable one");
  group.integer("basin-directions", c.basin_directions, 0, 10'000, "random directions for the basin's radius");
  group.text(
      "second-moments", c.second_moments, "FILE",
      "Adam's second moments: an optimiser's state dict (torch.save), or .safetensors or .h5 with an array of each "
      "parameter's name; gives the largest eigenvalue as Adam sees it, and its largest stable learning rate");
  group.real("adam-beta1", c.adam_beta1, -1, 1, true, "of Adam; -1: as that file has it, else 0.9");
  group.real("adam-beta2", c.adam_beta2, -1, 1, true, "of Adam; -1: as that file has it, else 0.999");
  group.real("adam-eps", c.adam_eps, -1, kLargest, true, "of Adam; -1: as that file has it, else 1e-8");
  group.integer("adam-step", c.adam_step, 0, kNoLimit,
                "updates that Adam has taken, where that file does not say; 0: its moments are corrected already");
  group.integer("measure-probes", c.measure_probes, 0, 1'000'000,
                "random vectors for the traces of Fisher, empirical Fisher and this matrix, and for relative flatness: "
                "each takes a product with every one of them; 0 leaves these figures out");
  group.text(
      "flatness-layer", c.flatness_layer, "NAME",
      "the parameter tensor, of two dimensions, whose relative flatness is measured; default: the last one with a "
      "row for each of the output's classes");
  group.text("other-data", c.other_data, "FILE",
             "a data file of further rows, as --data has them: loss, accuracy and calibration on both side by side");
  group.integer("other-samples", c.other_samples, 0, kNoLimit, "use the first so many of its rows; 0: all");
  group.real("basin-rise", c.basin_rise, 0, kLargest, false, "how far the loss may rise within it, over its size");
  return group;
}

OptionGroup features_options(FeaturesConfig& c) {
  OptionGroup group{"Features (features)", {}};
  group.text(
      "features", c.from, "auto|FILE",
      "auto: every table that is only looked up; or a JSON file of features by name, parameter, rows and columns");
  group.options.push_back(
      {"feature", "NAME=REGEX",
       "a feature: the parameters in whose name the expression finds something, of them @rows=3,10-19 or @columns=… "
       "alone (repeatable, also for one feature)",
       true,
       [&c](const std::vector<std::string>& values) {
         std::vector<std::pair<std::string, std::string>> named;
         for (const std::string& value : values) {
           const std::size_t equals = value.find('=');
           if (equals == std::string::npos || equals == 0 || equals + 1 == value.size())
             throw UsageError("expected NAME=REGEX, got '" + value + "'");
           named.emplace_back(value.substr(0, equals), value.substr(equals + 1));
         }
         c.named = std::move(named);
       },
       [&c] {
         std::vector<std::string> values;
         for (const auto& [name, pattern] : c.named) values.push_back(name + "=" + pattern);
         return values;
       }});
  group.integer("frequency-buckets", c.buckets, 0, 1'000,
                "auto: also each table's rows in so many buckets by how often the data look them up");
  group.integer("feature-rows", c.rows, 0, 100'000,
                "auto: also so many single rows of each table, spread from the most frequent to the rarest");
  group.numbers("feature-rho", c.rho,
                "lengths of the steps that the loss's change is measured at, relative to the "
                "norm of the feature's parameters");
  group.integer("feature-draws", c.draws, 2, 100'000, "random directions of these steps, both ways each");
  return group;
}

OptionGroup series_options(SeriesConfig& c) {
  OptionGroup group{"Series", {}};
  group.texts("checkpoints", c.checkpoints, "PATTERN|FOLDER|FILE",
              "the checkpoints of a training run: a pattern such as 'ckpt/*.safetensors', a folder of checkpoints "
              "(checkpoint-N folders or files), one of them, or a text file that lists them (repeatable)");
  group.choice("order", c.order, {SeriesOrder::kStep, SeriesOrder::kTime, SeriesOrder::kListed},
               "by the step number in their names, by their time of change, or as they are listed");
  group.text("results", c.results, "FOLDER",
             "where each checkpoint's own result goes; default: the output's name without its ending, and '-results'");
  group.text("learning-rate", c.learning_rate, "RATE|FILE",
             "of the training, for the largest eigenvalue times half of it: a number, or a file of lines 'step rate'");
  group.flag("warm", c.warm, "begin each checkpoint from what the last one found, within the same accuracy");
  group.integer("every", c.every, 1, 1'000'000'000,
                "take one in so many checkpoints, in the order in which they are "
                "found; the others are noted as skipped");
  group.flag("follow", c.follow, "go on waiting for checkpoints, until --end-marker, --until or a signal");
  group.real("poll", c.poll_s, 0, 1e6, false, "follow: seconds between looks at the folders");
  group.text(
      "marker", c.marker, "NAME",
      "a checkpoint counts as whole only when this file is there: in its folder, or with its file's name before");
  group.text("end-marker", c.end_marker, "FILE", "follow: end when this file is there and all checkpoints are taken");
  group.integer("until", c.until, -1, kNoLimit, "follow: end when the checkpoint of this step is taken; -1: none");
  group.flag("retry-failed", c.retry_failed, "take checkpoints again that failed in an earlier start");
  add_watch_options(group, c.watch);
  return group;
}

OptionGroup output_options(OutputConfig& c) {
  OptionGroup group{"Output", {}};
  group.text("output", c.output, "FILE", "the result, HDF5");
  group.text("from", c.from, "FILE", "density: smooth the probes of this earlier result again, without a model");
  group.flag("force", c.force, "overwrite the output where it exists");
  group.flag("quiet", c.quiet, "print nothing but errors");
  group.flag("verbose", c.verbose, "print more");
  group.text("trace-json", c.trace_json, "FILE",
             "write when rank 0 did what, op by op, for a viewer of timelines such as ui.perfetto.dev");
  return group;
}

OptionGroup report_options(ReportConfig& c) {
  OptionGroup group{"Report (report, compare)", {}};
  group.choice("format", c.format, {ReportFormat::kText, ReportFormat::kJson, ReportFormat::kHtml},
               "html: one page with its pictures in it (report)");
  group.real("momentum", c.momentum, 0, 1, true,
             "of the largest stable steps with momentum (report, and sharpness, where 0 leaves them out)");
  group.real("damping", c.damping, 0, kLargest, true,
             "a constant c of the effective dimension, in units of the eigenvalues, besides the usual ones; 0: none");
  return group;
}

OptionGroup general_options(Invocation& run, std::string& ini_file) {
  OptionGroup group{"General", {}};
  group.text("config", ini_file, "FILE", "an ini file with any of these options, one `name = value` a line");
  group.flag("print-config", run.print_config, "print the resolved configuration as an ini file, and stop");
  group.flag("help", run.help, "print this help, and stop");
  group.flag("version", run.version, "print versions, and stop");
  return group;
}

OptionTable run_options(RunConfig& c) {
  return OptionTable{{preset_options(c),
                      model_options(c.model),
                      data_options(c.data),
                      loss_options(c.loss),
                      curvature_options(c.curvature),
                      parts_options(c.parts, c.eigs),
                      eigs_options(c.eigs),
                      trace_options(c.trace),
                      accuracy_options(c.accuracy),
                      quadrature_options(c.quadrature),
                      compute_options(c.compute),
                      layout_options(c.layout),
                      checkpoint_options(c.checkpoint),
                      inputs_options(c.inputs),
                      plan_options(c.plan),
                      landscape_options(c.landscape),
                      sharpness_options(c.sharpness),
                      features_options(c.features),
                      series_options(c.series),
                      output_options(c.output),
                      report_options(c.report)}};
}

}  // namespace hesspect
