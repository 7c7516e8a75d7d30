#include "problem.h"

#include <algorithm>

#include "hesspect/comm/agree.h"
#include "hesspect/comm/make_communicator.h"
#include "hesspect/core/errors.h"
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

}  // namespace

Problem set_up(const RunConfig& config, std::unique_ptr<Communicator> host) {
  Problem problem;
  const Timer timer;
  problem.placement = find_placement(*host);
  problem.threads = set_threads(config.compute.threads, problem.placement);

  const auto file = agreed(*host, [&] { return ArrayFile::open(config.data.data); });
  problem.device = choose_device(config.compute.device, *host);
  problem.comm = make_communicator(problem.device, std::move(host));
  Communicator& comm = *problem.comm;

  LossOptions loss;
  DataShard shard;
  agree(comm, [&] {
    loss = {loss_kind_from(config.loss.loss), config.loss.ignore_index, config.loss.shift};
    const ProgramOptions options{config.compute.dtype == "float64" ? at::kDouble : at::kFloat, problem.device};
    problem.program = std::make_unique<Program>(Program::load(config.model.model, options));
    if (!config.model.weights.empty()) {
      const Checkpoint checkpoint = read_checkpoint(config.model.weights);
      problem.overlay = problem.program->overlay(checkpoint);
      problem.weight_files = checkpoint.files;
      problem.weights_format = checkpoint.format;
    }
    problem.program->check_finite();
    shard = load_shard(*file, dataset_spec(config, *file, *problem.program, loss), comm.size(), comm.rank());
  });
  problem.rows = shard.global_rows;
  log_debug("model and data read in " + format_duration(timer.elapsed_s()));

  HessianOptions options;
  options.loss = loss;
  options.output_index = static_cast<int>(config.model.output_index);
  options.micro_batch = config.data.micro_batch;
  options.ranks_on_node = problem.placement.ranks_on_node;
  problem.op = std::make_unique<HessianOperator>(*problem.program, std::move(shard), comm, options);
  log_debug("operator ready after " + format_duration(timer.elapsed_s()));
  return problem;
}

}  // namespace hesspect
