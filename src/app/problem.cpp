#include "problem.h"

#include <algorithm>

#include "hesspect/comm/agree.h"
#include "hesspect/comm/make_communicator.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/hdf5_trial.h"
#include "hesspect/core/log.h"
#include "hesspect/core/text.h"
#include "hesspect/core/timer.h"
#include "hesspect/data/dataset.h"

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
  if (needs_target(loss.kind)) {
    spec.target = array_name(file, config.data.target);
    require_array(file, spec.target, "the targets", "--target");
  }
  return spec;
}

/// More than there are rows: the first of so many ranks has one row.
constexpr int kManyRanks = 1 << 30;

std::int64_t bytes_of(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.numel() * static_cast<std::int64_t>(tensor.element_size()) : 0;
}

}  // namespace

Problem read_problem(const RunConfig& config, int threads, Communicator& world) {
  Problem problem;
  const Timer timer;
  problem.process_bytes = resident_memory_bytes();
  problem.placement = find_placement(world);
  problem.threads = set_threads(threads > 0 ? threads : config.compute.threads, problem.placement);

  agree(world, [&] {
    if (world.rank() == 0) try_hdf5_file(config.data.data);
  });
  problem.file = agreed(world, [&] { return ArrayFile::open(config.data.data); });
  problem.device = choose_device(config.compute.device, world);

  agree(world, [&] {
    HessianOptions& options = problem.options;
    options.loss = {loss_kind_from(config.loss.loss), config.loss.ignore_index, config.loss.shift};
    options.output_index = static_cast<int>(config.model.output_index);
    options.ranks_on_node = problem.placement.ranks_on_node;
    const at::ScalarType dtype = config.compute.dtype == "float64" ? at::kDouble : at::kFloat;
    problem.program = std::make_unique<Program>(Program::load(config.model.model, {dtype, problem.device}));
    if (!config.model.weights.empty()) {
      const Checkpoint checkpoint = read_checkpoint(config.model.weights);
      problem.overlay = problem.program->overlay(checkpoint);
      problem.weight_files = checkpoint.files;
      problem.weights_format = checkpoint.format;
    }
    problem.program->check_finite();
    problem.spec = dataset_spec(config, *problem.file, *problem.program, options.loss);
    const DataShard one = load_shard(*problem.file, problem.spec, kManyRanks, 0);
    problem.rows = one.global_rows;
    for (const at::Tensor& input : one.inputs) problem.row_bytes += bytes_of(input);
    problem.row_bytes += bytes_of(one.target);
  });
  log_debug("model and data read in " + format_duration(timer.elapsed_s()));
  return problem;
}

std::vector<std::int64_t> layer_offsets(const Problem& problem) {
  std::vector<std::int64_t> offsets;
  for (const ParameterEntry& entry : problem.program->layout().entries()) offsets.push_back(entry.offset);
  offsets.push_back(problem.program->layout().size());
  return offsets;
}

std::vector<VectorPart> vector_parts(const Problem& problem) {
  std::vector<VectorPart> parts;
  for (const ParameterEntry& entry : problem.program->layout().entries())
    parts.push_back({entry.name, entry.shape, entry.offset, entry.numel});
  return parts;
}

DataShard first_rows(const Problem& problem, std::int64_t rows) {
  DatasetSpec spec = problem.spec;
  spec.samples = std::min(problem.rows, rows);
  return load_shard(*problem.file, spec, 1, 0);
}

Group make_group(Problem& problem, const Plan& plan, Communicator& world) {
  const Timer timer;
  Group group;
  group.number = world.rank() / plan.data_ranks;
  group.comm = make_communicator(problem.device, split(world, group.number, world.rank()));
  DataShard shard =
      agreed(world, [&] { return load_shard(*problem.file, problem.spec, group.comm->size(), group.comm->rank()); });
  HessianOptions options = problem.options;
  options.micro_batch = plan.micro_batch;
  options.graph_budget_bytes = plan.graph_budget_bytes;
  group.op = std::make_unique<HessianOperator>(*problem.program, std::move(shard), *group.comm, options);
  log_debug("operator ready after " + format_duration(timer.elapsed_s()));
  return group;
}

}  // namespace hesspect
