#include "files_ahead.h"

#include <filesystem>
#include <system_error>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/io/atomic_file.h"
#include "hesspect/io/checkpoint.h"

namespace hesspect {
namespace {

void require_file(const std::string& option, const std::string& path) {
  std::error_code error;
  if (path.empty() || std::filesystem::exists(path, error)) return;
  throw InputError("--" + option + " " + quote(path) + ": " +
                   (error && error != std::errc::no_such_file_or_directory ? error.message() : "no such file"));
}

void check_inputs(const RunConfig& c) {
  require_file("model", c.model.model);
  require_file("data", c.data.data);
  for (const std::string& weights : c.model.weights) require_file("weights", weights);
  require_file("initial-weights", c.model.initial_weights);
  require_file("second-moments", c.sharpness.second_moments);
  require_file("other-data", c.sharpness.other_data);
  if (c.features.from != "auto") require_file("features", c.features.from);
  require_file("from", c.output.from);
}

void check_outputs(const RunConfig& c, bool overwrite) {
  for (const std::string& file : {c.output.output, c.eigs.eigenvectors, c.trace.diagonal, c.landscape.directions_file})
    if (!file.empty()) check_output(file, overwrite);
}

}  // namespace

void check_files_ahead(const Invocation& run) {
  const RunConfig& c = run.config;
  check_inputs(c);
  // A series goes on with its output.
  if (run.command == Command::kPlan || run.command == Command::kSeries || c.checkpoint.resume) return;
  const std::string folder =
      c.checkpoint.checkpoint.empty() ? c.output.output + ".checkpoint" : c.checkpoint.checkpoint;
  if (CheckpointFolder(folder).exists()) return;
  check_outputs(c, c.output.force);
}

}  // namespace hesspect
