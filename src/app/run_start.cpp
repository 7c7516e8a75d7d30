#include "run_start.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <random>
#include <sstream>

#include "hesspect/config/direction.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/hdf5_trial.h"
#include "hesspect/core/log.h"
#include "hesspect/core/sha256.h"
#include "hesspect/core/text.h"
#include "hesspect/io/atomic_file.h"
#include "hesspect/io/result_file.h"
#include "hesspect/report/assemble.h"

namespace hesspect {
namespace {

namespace fs = std::filesystem;

std::string new_run_id() {
  std::random_device random;
  std::ostringstream text;
  text << std::hex;
  for (int i = 0; i < 4; ++i) text << random();
  return text.str();
}

/// The file that says what features are; empty: there is none.
std::string features_file(const RunConfig& config) {
  return config.features.from == "auto" ? std::string() : config.features.from;
}

/// Files that a run reads beside model, weights and data.
std::vector<std::string> further_inputs(const RunConfig& config) {
  std::vector<std::string> files{config.model.initial_weights, features_file(config), config.sharpness.second_moments,
                                 config.sharpness.other_data, config.landscape.vectors_from};
  if (!config.landscape.directions.empty())
    for (const DirectionName& direction : directions_from(config.landscape.directions)) files.push_back(direction.file);
  std::erase(files, "");
  return files;
}

std::vector<fs::path> inputs_of(const RunConfig& config) {
  std::vector<fs::path> inputs{config.model.model, config.data.data};
  inputs.insert(inputs.end(), config.model.weights.begin(), config.model.weights.end());
  for (const std::string& file : further_inputs(config)) inputs.emplace_back(file);
  return inputs;
}

/// What decides the result, a file of features by its content.
std::string config_of(const Invocation& run) {
  std::string text = "# command " + to_string(run.command) + "\n" + to_ini_of_result(run.config);
  const std::string file = features_file(run.config);
  if (file.empty()) return text;
  try {
    return text + "# features file of SHA-256 " + sha256_file(file) + "\n";
  } catch (const InputError&) {  // whoever reads it will say so
    return text;
  }
}

/// The first line in which two configurations differ, as "steps = 80 there, steps = 40 here".
std::string difference(const std::string& there, const std::string& here) {
  std::istringstream a(there), b(here);
  std::string left, right;
  while (true) {
    const bool more_left = static_cast<bool>(std::getline(a, left)),
               more_right = static_cast<bool>(std::getline(b, right));
    if (!more_left) left.clear();
    if (!more_right) right.clear();
    if (left != right || (!more_left && !more_right))
      return quote(left.empty() ? "nothing" : left) + " there, " + quote(right.empty() ? "nothing" : right) + " here";
  }
}

bool older(const std::string& input, const std::string& result) {
  std::error_code error;
  return input.empty() || fs::last_write_time(input, error) <= fs::last_write_time(result, error);
}

bool all_older(const std::vector<std::string>& inputs, const std::string& result) {
  return std::all_of(inputs.begin(), inputs.end(), [&](const std::string& input) {
    std::error_code error;
    if (!fs::is_directory(input, error)) return older(input, result);
    for (fs::directory_iterator entry(input, error), end; !error && entry != end; entry.increment(error))
      if (!older(entry->path().string(), result)) return false;
    return true;
  });
}

/// The output is the finished result of this very run, so far as a look at names and times can tell.
bool is_finished_result(const Invocation& run, const RunResult& result) {
  const RunConfig& c = run.config;
  if (result.process.command != to_string(run.command)) return false;
  const RunConfig then = from_ini(result.process.config, "the configuration in " + quote(c.output.output));
  return to_ini_of_result(then) == to_ini_of_result(c) && then.model.model == c.model.model &&
         then.model.weights == c.model.weights && then.data.data == c.data.data &&
         older(c.model.model, c.output.output) && all_older(c.model.weights, c.output.output) &&
         all_older(further_inputs(c), c.output.output) && older(c.data.data, c.output.output);
}

}  // namespace

void require_no_input(const std::string& output, const std::vector<std::filesystem::path>& inputs) {
  for (const auto& input : inputs) {
    std::error_code error;  // where one of them does not exist
    if (std::filesystem::equivalent(output, input, error) && !error)
      throw UsageError("the output " + quote(output) + " is the input " + quote(input.string()));
  }
}

void check_outputs(const RunConfig& config, const std::vector<std::string>& files) {
  const std::vector<fs::path> inputs = inputs_of(config);
  for (const std::string& file : files) {
    require_no_input(file, inputs);
    if (file != files.front()) check_output(file, config.output.force || config.checkpoint.resume);
  }
  if (fs::path(checkpoint_folder(config)).lexically_normal() == fs::path(files.front()).lexically_normal())
    throw UsageError("--checkpoint and --output name the same: " + quote(files.front()));
}

void check_new_outputs(const RunConfig& config, const std::vector<std::string>& files) {
  const std::vector<fs::path> inputs = inputs_of(config);
  for (const std::string& file : files) {
    if (file.empty()) continue;
    require_no_input(file, inputs);
    check_output(file, config.output.force);
  }
}

int exit_code_of(const RunResult& result) {
  return static_cast<int>(converged(result) ? ExitCode::kDone : ExitCode::kNotConverged);
}

void remove_or_warn(CheckpointFolder& folder) {
  try {
    folder.remove();
  } catch (const InputError& error) {
    log_warning(error.what());
  }
}

RunStart shared(const RunStart& start, Communicator& world) {
  RunStart all = start;
  all.finished = world.of_rank0(start.finished);
  all.resumed = world.of_rank0(start.resumed);
  all.state.run_id = world.broadcast_bytes(start.state.run_id);
  all.state.layout = run_layout_from(world.broadcast_bytes(to_text(start.state.layout)));
  return all;
}

std::string checkpoint_folder(const RunConfig& config) {
  return config.checkpoint.checkpoint.empty() ? config.output.output + ".checkpoint" : config.checkpoint.checkpoint;
}

RunStart begin_run(const Invocation& run, CheckpointFolder& folder) {
  const OutputConfig& output = run.config.output;
  const bool resume = run.config.checkpoint.resume;
  const std::string name = quote(folder.path().string());
  RunStart start;
  start.state.config = config_of(run);
  start.state.run_id = new_run_id();
  start.state.overwrite = output.force;

  if (resume || folder.exists())
    check_output(output.output, /*overwrite=*/true);  // before what is said of a checkpoint
  const bool there = folder.exists();
  start.fresh = !there;
  if (there) folder.lock();  // another run at work in it is the first thing to know
  if (there && !resume && !output.force)
    throw UsageError("there is a checkpoint in " + name + ": --resume goes on from it, --force discards it");
  if (there && resume) {
    std::vector<std::string> warnings;
    LedgerState state = read_state(folder, warnings).value();
    for (const std::string& warning : warnings) log_warning(warning);
    if (state.config != start.state.config)
      throw UsageError("the checkpoint in " + name + " belongs to another configuration: " +
                       difference(state.config, start.state.config) + "; --force without --resume discards it");
    start.resumed = true;
    start.state = std::move(state);
    ++start.state.starts;
    start.state.overwrite = start.state.overwrite || output.force;
  }
  if (resume) try_hdf5_file(output.output);
  if (resume && is_result(output.output)) {
    const RunResult result = read_result(output.output);
    if (start.resumed ? result.process.run_id == start.state.run_id : is_finished_result(run, result)) {
      if (start.resumed) remove_or_warn(folder);  // the run was ended between its last two steps
      start.finished = exit_code_of(result);
      return start;
    }
  }
  check_output(output.output, output.force || (start.resumed && start.state.overwrite));
  folder.lock();
  return start;
}

bool knows_digests(const LedgerState& state) {
  return std::ranges::any_of(std::array{&state.model, &state.weights, &state.data},
                             [](const auto* files) { return std::ranges::any_of(*files, is_hashed); });
}

void require_same_sources(const LedgerState& state, const SourceHashing& now, const std::string& folder) {
  const auto check = [&](const std::string& what, const std::vector<SourceFile> Sources::*files,
                         const std::vector<SourceFile>& then) {
    bool same = then.size() == (now.unhashed().*files).size();
    for (std::size_t i = 0; same && i < then.size(); ++i) {
      // A state that was written before the digests were there knows sizes and times alone.
      const Sources& known = is_hashed(then[i]) ? now.sources() : now.unhashed();
      same = then[i].sha256 == (known.*files)[i].sha256;
    }
    if (!same)
      throw InputError("the checkpoint in " + quote(folder) + " belongs to " + what +
                       " of other content; --force without --resume discards it");
  };
  check("a model", &Sources::model, state.model);
  check("weights", &Sources::weights, state.weights);
  check("data", &Sources::data, state.data);
}

}  // namespace hesspect
