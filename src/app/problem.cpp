#include "problem.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "hesspect/comm/agree.h"
#include "hesspect/comm/make_communicator.h"
#include "hesspect/comm/timed_communicator.h"
#include "hesspect/core/element_type_torch.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/hdf5_trial.h"
#include "hesspect/core/log.h"
#include "hesspect/core/memory.h"
#include "hesspect/core/text.h"
#include "hesspect/core/timer.h"
#include "hesspect/curvature/row_check.h"
#include "hesspect/data/dataset.h"
#include "hesspect/tangent/precision.h"
#include "read_loss.h"
#include "rows_in_use.h"
#include "same_files.h"
#include "shapes.h"
#include "sharded.h"

namespace hesspect {
namespace {

std::vector<std::string> names_of(const std::vector<ArrayInfo>& arrays) {
  std::vector<std::string> names;
  for (const auto& array : arrays) names.push_back(array.name);
  return names;
}

/// HDF5 tools write a name with its root, "/x": that is the array "x".
std::string array_name(const ArrayFile& file, const std::string& name) {
  const auto names = names_of(file.arrays());
  const bool found = std::find(names.begin(), names.end(), name) != names.end();
  return !found && name.starts_with('/') ? name.substr(1) : name;
}

void require_array(const ArrayFile& file, const std::string& name, const std::string& what, const std::string& option) {
  const auto names = names_of(file.arrays());
  if (std::find(names.begin(), names.end(), name) != names.end()) return;
  throw InputError(quote(file.path().string()) + " has no array " + quote(name) + " for " + what +
                   did_you_mean(name, names) + "; it has " + (names.empty() ? "none" : format_names(names)) + " (" +
                   option + " names another)");
}

constexpr std::string_view kTarget = "target";

/// Sets what the user says of inputs and outputs.
void set_batch_dims(const RunConfig& config, Program& program) {
  for (const auto& [name, dim] : config.data.batch_dims)
    if (name != kTarget) program.set_batch_dim(name, std::stoll(dim));
}

/// The rows of the target lie as those of the output do, where it has as many dimensions.
std::int64_t target_dim(const RunConfig& config, const ArrayInfo& target, const Program& program,
                        const LossOptions& loss) {
  for (const auto& [name, dim] : config.data.batch_dims)
    if (name == kTarget) return std::stoll(dim);
  const auto index = static_cast<std::size_t>(config.model.output_index);
  if (index >= program.outputs().size()) return 0;  // which is told later
  // Classes stand before all dimensions but the first; target classes have no dimension for them, probabilities do.
  const OutputSpec& output = program.outputs()[index];
  std::int64_t dim = output.batch_dim;
  const bool classes_second = loss.kind == LossKind::kCrossEntropy || loss.kind == LossKind::kNll;
  if (classes_second && dim > 1 && target.shape.size() < output.shape.size()) --dim;
  return dim < static_cast<std::int64_t>(target.shape.size()) ? dim : 0;
}

/// An output by its number, name or path.
int output_index_from(const std::string& text, const Program& program) {
  if (text.find_first_not_of("0123456789") != std::string::npos || text.size() > 6)
    return static_cast<int>(program.output_named(text));
  const int index = std::stoi(text);
  if (index >= static_cast<int>(program.outputs().size()))
    throw UsageError("--count-output " + text + ": the model has " + std::to_string(program.outputs().size()) +
                     " outputs, numbered from 0");
  return index;
}

/// Which array feeds which input, every name checked.
DatasetSpec dataset_spec(const RunConfig& config, const ArrayFile& file, const Program& program,
                         const LossOptions& loss) {
  std::vector<std::string> inputs;
  for (const auto& input : program.inputs()) inputs.push_back(input.name);
  DatasetSpec spec;
  spec.path = config.data.data;
  spec.samples = config.data.samples;
  for (const auto& [name, array] : config.data.inputs)
    if (std::find(inputs.begin(), inputs.end(), name) == inputs.end())
      throw InputError("the model has no input " + quote(name) + did_you_mean(name, inputs) + "; its inputs are " +
                       format_names(inputs));
  for (const auto& name : inputs) {
    const auto given = std::find_if(config.data.inputs.begin(), config.data.inputs.end(),
                                    [&](const auto& pair) { return pair.first == name; });
    spec.inputs.push_back(given == config.data.inputs.end() ? name : array_name(file, given->second));
    require_array(file, spec.inputs.back(), "the model's input " + quote(name), "--input " + name + "=DATASET");
  }
  for (const InputSpec& input : program.inputs()) spec.input_dims.push_back(input.batch_dim);
  if (needs_target(loss.kind)) {
    spec.target = array_name(file, config.data.target);
    require_array(file, spec.target, "the targets", "--target");
    spec.target_dim = target_dim(config, file.info(spec.target), program, loss);
  }
  if (!config.loss.loss_weight.empty()) {
    spec.weight = array_name(file, config.loss.loss_weight);
    require_array(file, spec.weight, "the loss's weights", "--loss-weight");
  }
  return spec;
}

/// Leaves out what is beyond --samples-at-most, in whole units. @return how that is told; empty: nothing is left out
std::string leave_out_rows(const DataConfig& config, const ArrayFile& file, DatasetSpec& spec) {
  const std::int64_t most = config.samples_at_most;
  if (spec.samples > 0 || most == 0 || config.unit_rows < 0) return "";
  const std::int64_t rows = count_rows(file, spec), unit = std::max<std::int64_t>(1, config.unit_rows);
  if (rows <= most) return "";
  spec.samples = std::max<std::int64_t>(1, most / unit) * unit;
  return "of the " + format_count(rows) + " rows only the first " + format_count(spec.samples) +
         " are used (--samples-at-most): what is found is of these";
}

std::int64_t bytes_of(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.numel() * static_cast<std::int64_t>(tensor.element_size()) : 0;
}

/// The program with its weights, and what laying them over it changed.
struct LoadedProgram {
  std::unique_ptr<Program> program;
  std::vector<std::filesystem::path> files;  // of the weights
  std::string format;
  std::vector<std::string> changes;
  OverlayReport overlay;
};

/// Lays the state dicts over the program, later ones over earlier.
/// @param look_at_values  whether they are finite
void lay_weights_over(const ModelConfig& config, bool look_at_values, LoadedProgram& loaded) {
  std::vector<StateDict> state_dicts;
  for (const std::string& path : config.weights) state_dicts.push_back(read_state_dict(path, config.weights_key));
  loaded.overlay = loaded.program->overlay(state_dicts, config.weights_partial, look_at_values);
  for (const StateDict& state_dict : state_dicts) {
    loaded.files.insert(loaded.files.end(), state_dict.files.begin(), state_dict.files.end());
    loaded.format += (loaded.format.empty() ? "" : ", ") + state_dict.format;
    if (!state_dict.other_sets.empty() && config.weights_key.empty())
      loaded.changes.push_back(quote(state_dict.files.front().string()) + ": " + quote(state_dict.key) +
                               " is read; --weights-key chooses " + format_names(state_dict.other_sets));
  }
  for (std::size_t i = 0; i < state_dicts.size(); ++i)
    if (const std::string change = describe(loaded.overlay.changes[i]); !change.empty())
      loaded.changes.push_back(quote(state_dicts[i].files.front().string()) + ": " + change);
  if (!loaded.overlay.ignored.empty()) loaded.changes.push_back("ignored: " + format_names(loaded.overlay.ignored));
}

/// Holds what --params and --exclude don't choose fixed, of a program that is laid out.
void select_parameters(const PartsConfig& config, Problem& problem) {
  Program& program = *problem.program;
  const ParameterLayout& layout = program.layout();
  problem.model_parameters = layout.model_size();
  if (!config.chooses()) return;
  std::vector<bool> chosen = config.params.empty() ? std::vector<bool>(layout.entries().size(), true)
                                                   : matching(layout, "params", config.params);
  const std::vector<bool> excluded = matching(layout, "exclude", config.exclude);
  for (std::size_t i = 0; i < chosen.size(); ++i) chosen[i] = chosen[i] && !excluded[i];
  const Part part = part_of(layout, "", chosen);
  if (part.size() == 0) throw InputError("--params and --exclude leave no parameter of the model");
  problem.selected = part.tensors;
  program.select_parameters(chosen);
}

/// All but the parameters' values, which lay_out reads.
LoadedProgram load_program(const RunConfig& config, Weights weights, at::ScalarType dtype, at::Device device) {
  LoadedProgram loaded;
  const ProgramOptions options{.dtype = dtype, .device = device, .lay_out = false};
  loaded.program = std::make_unique<Program>(Program::load(config.model.model, options));
  if (!config.model.weights.empty()) lay_weights_over(config.model, !is_sharded(config), loaded);
  if (weights == Weights::kRequired) loaded.program->require_data();
  set_batch_dims(config, *loaded.program);
  return loaded;
}

void lay_out(const RunConfig& config, Weights weights, const RowsInUse& rows_in_use, Program& program) {
  program.lay_out(rows_in_use);
  if (weights == Weights::kRequired || (config.plan.measure && !plans_by_shapes(config, program)))
    program.use_stand_ins();
  program.check_finite();
}

// --- rows that stand alone ------------------------------------------------------------------------------------------

/// Models of up to so many bytes in double are checked in double, where rounding hides nothing.
constexpr std::int64_t kCheckedInDouble_bytes = std::int64_t{64} << 20;

RowCheck check_in_best_dtype(const RunConfig& config, Weights weights, Problem& problem) {
  const auto check = [&](Program& program) {
    return check_rows(program, *problem.file, problem.spec, problem.options.loss, problem.options.output_index);
  };
  const bool as_double =
      problem.program->options().dtype != at::kDouble && 8 * problem.program->layout().size() <= kCheckedInDouble_bytes;
  if (!as_double) return check(*problem.program);
  const std::unique_ptr<Program> in_double = load_program(config, weights, at::kDouble, problem.device).program;
  lay_out(config, weights, problem.rows_in_use, *in_double);
  return check(*in_double);
}

/// A program that takes all the rows at once, and no others, has them as one unit.
bool takes_all_rows_only(const Problem& problem) {
  return problem.options.units.rows == 1 && problem.program->static_batch() == problem.rows;
}

/// How the check ended, as every rank has to know it.
struct RowVerdict {
  std::int64_t unit_rows = 1;
  bool together = true;
  std::string text, warning;
};

/// On one rank. @throws InputError where the loss is no sum over rows
RowVerdict judge_rows(const RunConfig& config, Weights weights, Problem& problem) {
  RowVerdict verdict{problem.options.units.rows, true, "passed", ""};
  const std::string units = "units of " + format_count(verdict.unit_rows) + " rows";
  if (verdict.unit_rows == problem.rows && problem.rows > 1)
    return {verdict.unit_rows, false, "not needed: all rows are one unit", ""};
  if (!problem.program->lacking().empty())
    return {verdict.unit_rows, true, "not checked: the program holds no weights", ""};
  const RowCheck check = check_in_best_dtype(config, weights, problem);
  if (!check.applies)
    verdict.text = problem.rows == 1 ? "not needed: there is one row"
                                     : std::string("not needed: the program takes one ") +
                                           (verdict.unit_rows > 1 ? "unit" : "row") + " at a time";
  if (check.passed) return verdict;
  const std::string finding = "the loss is no sum over rows: " + check.finding;
  if (verdict.unit_rows > 1)  // they need not: each goes through the program by itself
    return {verdict.unit_rows, false, units + " go through the program one at a time", ""};
  if (takes_all_rows_only(problem))
    return {problem.rows, false, "all rows are one unit, as the program's fixed batch has them (" + finding + ")",
            "rows depend on each other, and the model's fixed batch holds them all: they are taken as one unit, as by "
            "--unit-rows all"};
  if (!config.loss.assume_sum_over_rows) throw InputError(finding + "; " + check.advice);
  return {
      1, true, "assumed (--assume-sum-over-rows), but " + finding,
      finding + "; it goes on as if it were (--assume-sum-over-rows): micro-batches and ranks then change the results"};
}

/// Collective: rank 0 tries, all take its verdict.
void check_that_rows_stand_alone(const RunConfig& config, Weights weights, Problem& problem, Communicator& world) {
  RowVerdict verdict;
  const Timer timer;
  const PhaseTimer phase(problem.options.phases, Phase::kStart, "whether rows stand alone");
  agree(world, [&] {
    if (world.rank() == 0) verdict = judge_rows(config, weights, problem);
  });
  verdict.unit_rows = world.of_rank0(verdict.unit_rows);
  verdict.together = world.of_rank0(verdict.together);
  problem.row_check = world.broadcast_bytes(verdict.text);
  problem.row_warning = world.broadcast_bytes(verdict.warning);
  problem.options.units = {verdict.unit_rows, verdict.together};
  problem.spec.unit_rows = verdict.unit_rows;
  log_debug("whether rows stand alone: " + problem.row_check + " (" + format_duration(timer.elapsed_s()) + ")");
}

/// Reads what --other-data names, as the data are read. @throws InputError as for these
void read_other_data(const RunConfig& config, Problem& problem) {
  RunConfig other = config;
  other.data.data = config.sharpness.other_data;
  other.data.samples = config.sharpness.other_samples;
  problem.other_file = ArrayFile::open(other.data.data);
  problem.other_spec = dataset_spec(other, *problem.other_file, *problem.program, problem.options.loss);
  leave_out_rows(other.data, *problem.other_file, problem.other_spec);
  problem.other_rows = count_rows(*problem.other_file, problem.other_spec);
  problem.other_spec.unit_rows = config.data.unit_rows < 0 ? problem.other_rows : config.data.unit_rows;
  require_whole_units(problem.other_rows, problem.other_spec);
}

/// Before they are read: the parameters with a vector, its product and the gradient are the least that a run takes on
/// every rank. @throws MemoryError
void require_room_for_parameters(const RunConfig& config, const Problem& problem, int ranks) {
  Program& program = *problem.program;
  // The plan looks at memory that is asked for, and says what would fit; where the ranks may share the parameters
  // instead, they need not be read for that.
  const std::int64_t asked = config.layout.memory;
  const bool may_be_shared = config.layout.parameters == ParameterMemory::kAuto && ranks > 1;
  if ((asked > 0 && !may_be_shared) || !problem.device.is_cpu() || !program.flat_parameters().is_meta() ||
      !problem.rows_in_use.empty())
    return;
  const std::int64_t room = asked > 0 ? asked : available_memory_bytes(problem.placement.ranks_on_node);
  const std::int64_t bytes =
      4 * program.layout().size() * static_cast<std::int64_t>(c10::elementSize(program.options().dtype));
  if (bytes <= room) return;
  throw MemoryError(bytes, room,
                    "parameters, a vector, its product and the gradient take " + format_bytes(bytes) +
                        " on every rank, and " + format_bytes(room) + " may be taken" + sharing_advice(config, ranks));
}

/// All that is told of the problem when the run begins.
void tell(Problem& problem) {
  problem.warnings = problem.program->lost_gradients(problem.options.output_index).warnings;
  for (const std::string& warning : problem.overlay.warnings) problem.warnings.push_back(warning);
  for (const std::string* warning : {&problem.left_out_warning, &problem.row_warning})
    if (!warning->empty()) problem.warnings.push_back(*warning);
  for (const std::string& warning : problem.warnings) log_warning(warning);
}

void take(LoadedProgram loaded, Problem& problem) {
  problem.program = std::move(loaded.program);
  problem.overlay = std::move(loaded.overlay);
  problem.weight_files = std::move(loaded.files);
  problem.weights_format = std::move(loaded.format);
  problem.weights_changes = std::move(loaded.changes);
}

void set_units(const RunConfig& config, Problem& problem) {
  const std::int64_t rows = config.data.unit_rows < 0 ? problem.rows : config.data.unit_rows;
  // Whether units stand alone can't be tried before the ranks have the parameters, where these are sharded.
  problem.options.units = {rows, rows == 1 || !is_sharded(config)};
  problem.spec.unit_rows = problem.options.units.rows;
}

/// All that the problem was read from.
std::vector<std::filesystem::path> files_of(const RunConfig& config, const Problem& problem) {
  std::vector<std::filesystem::path> files{config.model.model, config.data.data};
  if (!config.sharpness.other_data.empty()) files.emplace_back(config.sharpness.other_data);
  files.insert(files.end(), problem.weight_files.begin(), problem.weight_files.end());
  return files;
}

void tell_tables(const Problem& problem) {
  for (const std::string& table : tables_in_use(problem.program->layout())) log_info("rows in use: " + table);
}

/// Finds the rows in use, and reads the parameters' values. Collective.
void read_parameters(const RunConfig& config, Weights weights, Problem& problem, Communicator& world) {
  Program& program = *problem.program;
  const PhaseTimer phase(problem.options.phases, Phase::kFiles, "parameters");
  if (config.compute.rows_in_use) {
    problem.rows_in_use = find_rows_in_use(program, *problem.file, problem.spec, world);
    if (problem.other_file)
      problem.rows_in_use =
          united(problem.rows_in_use, find_rows_in_use(program, *problem.other_file, problem.other_spec, world));
  }
  agree(world, [&] {
    if (is_sharded(config)) {  // each rank will read its share, when the ranks are divided
      program.leave_in_file(problem.rows_in_use);
      select_parameters(config.parts, problem);
      program.check_finite();
      return;
    }
    if (weights == Weights::kRequired) require_room_for_parameters(config, problem, world.size());
    lay_out(config, weights, problem.rows_in_use, program);
    select_parameters(config.parts, problem);
  });
  tell_tables(problem);
}

}  // namespace

Problem read_problem(const RunConfig& config, int threads, Weights weights, Phases* phases, Communicator& world) {
  Problem problem;
  problem.options.phases = phases;
  const Timer timer;
  problem.process_bytes = resident_memory_bytes();
  problem.placement = find_placement(world);
  problem.threads = set_threads(threads > 0 ? threads : config.compute.threads, problem.placement);

  agree(world, [&] {
    if (world.rank() != 0) return;
    try_hdf5_file(config.data.data);
    if (!config.sharpness.other_data.empty()) try_hdf5_file(config.sharpness.other_data);
  });
  problem.file = agreed(world, [&] { return ArrayFile::open(config.data.data); });
  problem.device = choose_device(to_string(config.compute.device), world);
  if (config.compute.precision != MatrixPrecision::kFp32)  // finding out may take products
    agree(world, [&] { require_units(config.compute.precision, matrix_units(problem.device)); });

  agree(world, [&] {
    const PhaseTimer reading(phases, Phase::kFiles, "model and data");
    HessianOptions& options = problem.options;
    options.loss = read_loss(config.loss, *problem.file);
    options.output_index = static_cast<int>(config.model.output_index);
    options.product = config.layout.product;
    options.cuda_graphs = config.layout.cuda_graphs;
    options.curvature = config.curvature.curvature;
    options.fisher_unit = config.curvature.fisher_unit;
    options.precision = config.compute.precision;
    options.ranks_on_node = problem.placement.ranks_on_node;
    const at::ScalarType dtype = to_scalar_type(config.compute.dtype);
    take(load_program(config, weights, dtype, problem.device), problem);
    problem.spec = dataset_spec(config, *problem.file, *problem.program, options.loss);
    problem.left_out_warning = leave_out_rows(config.data, *problem.file, problem.spec);
    problem.rows = count_rows(*problem.file, problem.spec);
    set_units(config, problem);
    problem.spec.row_groups = std::max<std::int64_t>(0, config.accuracy.data_error);
    if (!config.loss.count_output.empty())
      options.loss.count_output = output_index_from(config.loss.count_output, *problem.program);
    const std::int64_t first = 0;
    const DataShard one = load_rows(*problem.file, problem.spec, std::span(&first, 1));
    for (const at::Tensor& input : one.inputs) problem.row_bytes += bytes_of(input);
    problem.row_bytes += bytes_of(one.target) + bytes_of(one.weight);
    require_whole_units(problem.rows, problem.spec);
    if (!config.sharpness.other_data.empty()) read_other_data(config, problem);
  });
  require_same_files(files_of(config, problem), problem.placement.hosts, world);
  read_parameters(config, weights, problem, world);
  for (const std::string& change : problem.weights_changes) log_info("weights: " + change);
  if (!is_sharded(config)) check_that_rows_stand_alone(config, weights, problem, world);
  tell(problem);
  log_debug("model and data read in " + format_duration(timer.elapsed_s()));
  return problem;
}

bool read_other_weights(const RunConfig& config, const ParameterLayout& layout, Phases* phases, Problem& problem,
                        Communicator& world) {
  const Timer timer;
  problem.options.phases = phases;
  const RowUnits units = problem.options.units;
  problem.program.reset();  // there is room for one
  agree(world, [&] {
    const PhaseTimer reading(phases, Phase::kFiles, "other weights");
    const at::ScalarType dtype = to_scalar_type(config.compute.dtype);
    LoadedProgram loaded = load_program(config, Weights::kRequired, dtype, problem.device);
    if (is_sharded(config)) {
      loaded.program->leave_in_file(problem.rows_in_use);
    } else {
      lay_out(config, Weights::kRequired, problem.rows_in_use, *loaded.program);
    }
    take(std::move(loaded), problem);
    select_parameters(config.parts, problem);
    if (is_sharded(config)) problem.program->check_finite();
  });
  require_same_files(files_of(config, problem), problem.placement.hosts, world);
  const bool same = std::ranges::equal(
      layout.entries(), problem.program->layout().entries(), [](const ParameterEntry& a, const ParameterEntry& b) {
        return a.name == b.name && a.shape == b.shape && a.offset == b.offset && a.is_complex() == b.is_complex();
      });
  if (world.any(!same)) return false;
  tell_tables(problem);
  for (const std::string& change : problem.weights_changes) log_info("weights: " + change);
  problem.row_warning.clear();
  set_units(config, problem);
  if (!is_sharded(config)) check_that_rows_stand_alone(config, Weights::kRequired, problem, world);
  tell(problem);
  log_debug("other weights read in " + format_duration(timer.elapsed_s()));
  return units.rows == problem.options.units.rows && units.together == problem.options.units.together;
}

std::vector<Part> blocks_of(const PartsConfig& config, const ParameterLayout& layout) {
  if (!config.blocks.empty()) return named_parts(layout, config.blocks);
  return grouped_parts(layout, config.grouping);
}

ParameterParts parameter_parts(const Program& program) {
  ParameterParts parts;
  for (const ParameterEntry& entry : program.layout().entries()) {
    parts.offsets.push_back(entry.offset);
    parts.tensors.push_back({entry.name, entry.model_shape, entry.offset, entry.numel, entry.rows});
  }
  parts.offsets.push_back(program.layout().size());
  return parts;
}

OtherProgram program_with(const RunConfig& config, const std::string& weights, const Problem& problem) {
  RunConfig other_config = config;
  other_config.model.weights = {weights};
  const at::ScalarType dtype = problem.program->options().dtype;
  LoadedProgram other = load_program(other_config, Weights::kRequired, dtype, at::kCPU);
  if (problem.program->is_left_in_file())
    other.program->leave_in_file(problem.rows_in_use);
  else
    lay_out(other_config, Weights::kRequired, problem.rows_in_use, *other.program);
  if (!problem.selected.empty()) {
    std::vector<bool> chosen;
    for (const ParameterEntry& entry : other.program->layout().entries())
      chosen.push_back(std::ranges::find(problem.selected, entry.name) != problem.selected.end());
    other.program->select_parameters(chosen);
  }
  const auto& own_entries = problem.program->layout().entries();
  const auto& other_entries = other.program->layout().entries();
  const bool same = std::ranges::equal(own_entries, other_entries, [](const auto& a, const auto& b) {
    return a.name == b.name && a.shape == b.shape && a.offset == b.offset;
  });
  if (!same)
    throw InputError(quote(weights) +
                     " ties other parameters than the model's own weights: there is no line between them");
  return {std::move(other.program), std::move(other.files)};
}

StepToWeights step_to_weights(const RunConfig& config, const std::string& weights, const Problem& problem) {
  const OtherProgram other = program_with(config, weights, problem);
  at::NoGradGuard no_grad;
  return {other.program->flat_parameters() - problem.program->flat_parameters().cpu(),
          problem.program->unlike(*other.program), other.files};
}

DataShard first_rows(const Problem& problem, std::int64_t rows) {
  DatasetSpec spec = problem.spec;
  const std::int64_t units = (std::max<std::int64_t>(1, rows) + spec.unit_rows - 1) / spec.unit_rows;
  spec.samples = std::min(problem.rows, units * spec.unit_rows);
  return load_shard(*problem.file, spec, 1, 0);
}

Group make_group(Problem& problem, const Plan& plan, Communicator& world) {
  const Timer timer;
  Group group;
  group.number = world.rank() / plan.data_ranks;
  group.comm = make_communicator(problem.device, split(world, group.number, world.rank()));
  Phases* phases = problem.options.phases;
  if (phases != nullptr && group.comm->size() > 1)
    group.comm = std::make_unique<TimedCommunicator>(std::move(group.comm), *phases);
  DataShard shard = agreed(world, [&] {
    const PhaseTimer reading(phases, Phase::kFiles, "rows");
    const auto& loaded = problem.loaded_rows;
    if (loaded && loaded->ranks == group.comm->size() && loaded->rank == group.comm->rank()) return loaded->shard;
    return load_shard(*problem.file, problem.spec, group.comm->size(), group.comm->rank());
  });
  if (problem.keeps_rows) problem.loaded_rows = {group.comm->size(), group.comm->rank(), shard};
  HessianOptions options = problem.options;
  problem.options.warm = nullptr;  // the operator takes it
  options.micro_batch = plan.micro_batch;
  options.graph_budget_bytes = plan.graph_budget_bytes;
  options.product = plan.product;
  options.joint_products = plan.joint;
  options.fetch_ahead = plan.fetch_ahead;
  options.span = plan.span;
  options.passes = plan.passes;
  options.on_host = plan.parameters == ParameterMemory::kHost;
  options.crossing_on_host = plan.crossing_on_host;
  group.op = std::make_unique<HessianOperator>(*problem.program, std::move(shard), *group.comm, options);
  log_debug("operator ready after " + format_duration(timer.elapsed_s()));
  return group;
}

}  // namespace hesspect
