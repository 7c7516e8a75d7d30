#include "resident.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "hesspect/core/log.h"

namespace hesspect {
namespace {

/// Plans that are kept at once: of a service's jobs that differ in what they ask for.
constexpr std::size_t kMostPlans = 64;

/// What tells a file from what it was. A file that can't be looked at is the reader's to complain of.
std::string identity(const std::string& path) {
  struct stat file {};
  if (path.empty() || stat(path.c_str(), &file) != 0) return path + " -";
  const auto number = [](auto value) { return " " + std::to_string(value); };
  return path + number(file.st_dev) + number(file.st_ino) + number(file.st_size) + number(file.st_mtim.tv_sec) +
         number(file.st_mtim.tv_nsec) + number(file.st_ctim.tv_sec) + number(file.st_ctim.tv_nsec);
}

/// Of a configuration, what a problem is made of, without weights.
std::string key_of(const RunConfig& given, int threads, const Communicator& world) {
  RunConfig config;
  config.model = given.model;
  config.model.weights.clear();
  config.model.initial_weights.clear();
  config.data = given.data;
  config.loss = given.loss;
  config.curvature = given.curvature;
  config.parts.params = given.parts.params;
  config.parts.exclude = given.parts.exclude;
  config.accuracy.data_error = given.accuracy.data_error;
  config.compute = given.compute;
  config.layout = given.layout;
  config.sharpness.other_data = given.sharpness.other_data;
  config.sharpness.other_samples = given.sharpness.other_samples;
  // Without weights of its own a program has those of the file.
  return to_ini(config) + (given.model.weights.empty() ? "of the file\n" : "laid over\n") +
         identity(given.model.model) + "\n" + identity(given.data.data) + "\n" + identity(given.sharpness.other_data) +
         "\n" + std::to_string(threads) + " threads, rank " + std::to_string(world.rank()) + " of " +
         std::to_string(world.size());
}

}  // namespace

Problem ResidentProblem::take(const RunConfig& config, int threads, Phases* phases, Communicator& world) {
  const std::string key = key_of(config, threads, world);
  if (!world.any(!kept_ || key != key_)) {
    Problem& problem = *kept_;
    problem.options.product = config.layout.product;  // a plan chooses
    problem.options.check_double_backward = true;
    problem.options.warm = nullptr;
    if (read_other_weights(config, layout_, phases, problem, world)) {
      ++times_taken_over_;
      return *std::exchange(kept_, std::nullopt);
    }
    log_debug("these weights are another problem: all is read anew");
  }
  kept_.reset();
  plans_.clear();
  Problem problem = read_problem(config, threads, Weights::kRequired, phases, world);
  key_ = key;
  layout_ = problem.program->layout();
  problem.keeps_rows = true;
  ++times_read_;
  return problem;
}

void ResidentProblem::give_back(Problem problem) {
  problem.program.reset();  // the next one has other weights
  problem.options.phases = nullptr;
  kept_ = std::move(problem);
}

std::string plan_key_of(const Invocation& run) {
  RunConfig config = run.config;
  config.model.weights.clear();
  config.model.initial_weights.clear();
  config.checkpoint = {};
  config.output = {};
  config.report = {};
  if (!config.eigs.eigenvectors.empty()) {
    config.eigs.eigenvectors = "a file";
    // The vectors that there has to be room for are those of the run that goes on to the eigenvalues, whatever the
    // fewest steps are.
    RunConfig usual;
    usual.preset = config.preset;
    apply_preset(usual);
    config.quadrature.steps = std::max(config.quadrature.steps, usual.quadrature.steps);
  }
  if (!config.trace.diagonal.empty()) config.trace.diagonal = "a file";
  return to_string(run.command) + "\n" + to_ini(config);
}

const Plan* ResidentProblem::plan_of(const std::string& key) const {
  const auto found = plans_.find(key);
  return found == plans_.end() ? nullptr : &found->second;
}

void ResidentProblem::keep_plan(const std::string& key, const Plan& plan) {
  if (plans_.size() >= kMostPlans) plans_.clear();
  plans_[key] = plan;
}

}  // namespace hesspect
