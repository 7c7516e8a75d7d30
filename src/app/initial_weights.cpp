#include "initial_weights.h"

#include <ATen/ATen.h>

#include <cmath>

#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"
#include "hesspect/core/sha256.h"
#include "hesspect/core/text.h"

namespace hesspect {

InitialDistance distance_from(const RunConfig& config, Problem& problem) {
  const std::string& file = config.model.initial_weights;
  RunConfig whole = config;
  whole.model.weights_partial = false;  // what the file lacked would count as unmoved
  whole.model.weights_key.clear();      // is of --weights
  InitialDistance initial;
  const StepToWeights to = [&] {
    try {
      return step_to_weights(whole, file, problem);
    } catch (const InputError& error) {
      throw InputError("--initial-weights " + file + ": " + error.what());
    }
  }();
  double square = 0;
  for (const ParameterEntry& entry : problem.program->layout().entries()) {
    const at::Tensor step = to.step.narrow(0, entry.offset, entry.numel).to(at::kDouble);
    const double layer = step.dot(step).item<double>();
    initial.layers.push_back({entry.name, entry.numel, std::sqrt(layer)});
    square += layer;
  }
  initial.distance = std::sqrt(square);
  for (const auto& path : to.files) {
    initial.files.push_back(path.string());
    initial.sha256.push_back(sha256_file(path));
  }
  if (initial.distance == 0) {
    problem.warnings.push_back("--initial-weights " + quote(file) + " are the model's own weights: nothing has moved");
    log_warning(problem.warnings.back());
  }
  return initial;
}

}  // namespace hesspect
