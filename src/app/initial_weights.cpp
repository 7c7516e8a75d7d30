#include "initial_weights.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"
#include "hesspect/core/sha256.h"
#include "hesspect/core/text.h"
#include "hesspect/run/sources.h"

namespace hesspect {
namespace {

/// Entries of a parameter that are compared at once.
constexpr std::int64_t kComparedAtOnce = std::int64_t{1} << 22;

RunConfig whole_file(const RunConfig& config) {
  RunConfig whole = config;
  whole.model.weights_partial = false;  // what the file lacked would count as unmoved
  whole.model.weights_key.clear();      // is of --weights
  return whole;
}

/// Errors of the step say which option it is about.
template <class Step>
auto of_initial_weights(const std::string& file, Step&& step) {
  try {
    return step();
  } catch (const InputError& error) {
    throw InputError("--initial-weights " + file + ": " + error.what());
  }
}

/// Σ (θ − θ0)² of each layer. @param squares  [layers]
InitialDistance distance_of(const Problem& problem, const std::vector<double>& squares) {
  InitialDistance initial;
  double square = 0;
  for (std::size_t i = 0; i < squares.size(); ++i) {
    const ParameterEntry& entry = problem.program->layout().entries()[i];
    initial.layers.push_back({entry.name, entry.numel, std::sqrt(squares[i])});
    square += squares[i];
  }
  initial.distance = std::sqrt(square);
  return initial;
}

double square_of(const at::Tensor& step) {
  const at::Tensor wide = step.reshape({-1}).to(at::kDouble);
  return wide.dot(wide).item<double>();
}

/// One rank, which has all parameters.
InitialDistance whole_distance(const RunConfig& config, const Problem& problem) {
  const std::string& file = config.model.initial_weights;
  const StepToWeights to = of_initial_weights(file, [&] { return step_to_weights(whole_file(config), file, problem); });
  std::vector<double> squares;
  for (const ParameterEntry& entry : problem.program->layout().entries())
    squares.push_back(square_of(to.step.narrow(0, entry.offset, entry.numel)));
  InitialDistance initial = distance_of(problem, squares);
  for (const auto& path : to.files) {
    initial.files.push_back(path.string());
    initial.sha256.push_back(sha256_file(path));
  }
  return initial;
}

/// Squares of a rank's share of each layer.
std::vector<double> squares_of_share(const Problem& problem, const OtherProgram& other, const Communicator& world) {
  const at::NoGradGuard no_grad;
  const at::ScalarType dtype = problem.program->options().dtype;
  std::vector<double> squares;
  const std::vector<ParameterEntry>& entries = problem.program->layout().entries();
  for (std::size_t p = 0; p < entries.size(); ++p) {
    const std::int64_t numel = entries[p].numel, last = numel * (world.rank() + 1) / world.size();
    double square = 0;
    for (std::int64_t at = numel * world.rank() / world.size(); at < last; at += kComparedAtOnce) {
      const std::int64_t count = std::min(kComparedAtOnce, last - at);
      const at::Tensor initial = other.program->read_parameter(p, at, count).to(dtype);
      if (!at::isfinite(initial).all().item<bool>())
        throw InputError("parameter '" + entries[p].name + "' holds non-finite values (NaN or infinity)");
      square += square_of(initial - problem.program->read_parameter(p, at, count).to(dtype));
    }
    squares.push_back(square);
  }
  return squares;
}

/// All ranks, each of which reads its share. Collective.
InitialDistance shared_distance(const RunConfig& config, const Problem& problem, Communicator& world) {
  const std::string& file = config.model.initial_weights;
  OtherProgram other;
  std::vector<double> squares = agreed(world, [&] {
    return of_initial_weights(file, [&] {
      other = program_with(whole_file(config), file, problem);
      return squares_of_share(problem, other, world);
    });
  });
  InitialDistance initial = distance_of(problem, world.sum(std::move(squares)));
  for (const auto& path : other.files) initial.files.push_back(path.string());
  initial.sha256 = hash_in_parts(other.files, world);
  return initial;
}

}  // namespace

std::optional<InitialDistance> distance_from(const RunConfig& config, Problem& problem, Communicator& world) {
  std::optional<InitialDistance> initial;
  const bool is_first = world.rank() == 0;
  if (problem.program->is_left_in_file())
    initial = shared_distance(config, problem, world);
  else
    agree(world, [&] {
      if (is_first) initial = whole_distance(config, problem);
    });
  if (!is_first) return std::nullopt;
  if (initial->distance == 0) {
    problem.warnings.push_back("--initial-weights " + quote(config.model.initial_weights) +
                               " are the model's own weights: nothing has moved");
    log_warning(problem.warnings.back());
  }
  return initial;
}

}  // namespace hesspect
