#include "sharpness.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "adam.h"
#include "block_steps.h"
#include "hesspect/comm/agree.h"
#include "hesspect/core/hdf5_trial.h"
#include "hesspect/core/probe_numbers.h"
#include "hesspect/core/text.h"
#include "hesspect/curvature/directions.h"
#include "hesspect/curvature/loss_surface.h"
#include "hesspect/krylov/scaled_operator.h"
#include "hesspect/model/optimizer_state.h"
#include "hesspect/spectrum/loss_around.h"
#include "hesspect/spectrum/probe.h"
#include "model_measures.h"
#include "one_group.h"

namespace hesspect {
namespace {

class SharpnessRun {
 public:
  SharpnessRun(const Invocation& run, const std::vector<std::string>& argv, Communicator& world)
      : config_(run.config.sharpness),
        momentum_(run.config.report.momentum),
        run_(run, argv, std::max<std::int64_t>(1, config_.eigenvectors), 0, world),
        surface_(run_.op()) {
    if (!config_.second_moments.empty()) read_moments();
  }

  int go() {
    const EigenPairs& pairs = run_.find_eigenpairs();
    std::vector<at::Tensor> vectors;
    for (std::size_t i = 0; i < pairs.top.size(); ++i) vectors.push_back(run_.eigenvector(i));
    around_ = loss_around();
    const at::Tensor theta =
        agreed(run_.world(), [&] { return shard_of(run_.op(), run_.problem().program->flat_parameters().detach()); });
    result_.loss = run_.op().loss();
    result_.gradient_norm = std::sqrt(run_.dot(around_.gradient_at_start, around_.gradient_at_start));
    result_.parameter_norm = std::sqrt(run_.dot(theta, theta));
    if (!pairs.top.empty()) {
      result_.lambda_1 = pairs.top[0].value;
      result_.lambda_1_error = pairs.top[0].error;
    }
    ascend(vectors, theta);
    if (config_.step_check && !vectors.empty()) check(vectors[0]);
    result_.critical = critical_step(around_, bend_along_gradient());
    if (config_.measure_probes > 0) {
      run_.tell("sharpness: information matrices");
      result_.information = measure_information(run_, theta);
      result_.flatness = measure_flatness(run_);
    }
    if (result_.adam) precondition();
    if (run_.config().parts.wants_blocks()) take_blocks();
    run_.tell("sharpness: the basin");
    if (config_.basin_directions > 0)
      result_.basin = basin(
          around_, config_.basin_rise * std::abs(around_.at_start), config_.basin_directions,
          [&](std::int64_t i) {
            return probe_vector(run_.op(), ProbeDistribution::kGaussian, run_.seed(),
                                kDirectionProbes + static_cast<std::uint64_t>(i));
          },
          result_.parameter_norm);
    std::optional<DataComparison> quality;
    if (!config_.other_data.empty()) quality = compare_data(run_);
    return run_.finish([&](RunResult& r) {
      r.sharpness = std::move(result_);
      r.quality = std::move(quality);
    });
  }

 private:
  LossAround loss_around() {
    LossAround around;
    around.loss = [this](const at::Tensor& step) {
      tell();
      return surface_.loss(step);
    };
    around.gradient = [this](const at::Tensor& step, at::Tensor& gradient) {
      tell();
      surface_.gradient(step, gradient);
    };
    around.dot = [this](const at::Tensor& a, const at::Tensor& b) { return run_.dot(a, b); };
    around.gradient_at_start = run_.op().gradient();
    around.at_start = surface_.loss(at::zeros_like(around.gradient_at_start));  // as the others are added up
    around.rounding = run_.rounding_of(around.at_start);
    return around;
  }

  void tell() {
    run_.tell("sharpness: " + format_count(surface_.losses()) + " losses, " + format_count(surface_.gradients()) +
              " gradients");
  }

  void ascend(const std::vector<at::Tensor>& vectors, const at::Tensor& theta) {
    const auto tried = std::min(vectors.size(), static_cast<std::size_t>(config_.eigenvectors));
    result_.ascents =
        ascents(around_, config_.rho, {vectors.begin(), vectors.begin() + static_cast<std::ptrdiff_t>(tried)});
    for (const Ascent& a : adaptive_ascents(around_, config_.adaptive_rho, theta)) result_.ascents.push_back(a);
    const bool hidden = std::ranges::any_of(
        result_.ascents, [&](const Ascent& a) { return std::abs(a.worst()) < 100 * around_.rounding; });
    if (hidden)
      run_.warn("ascent steps change the loss by little more than its rounding, " + format_number(around_.rounding) +
                ": take a larger --rho, or --dtype float64");
  }

  void check(const at::Tensor& eigenvector) {
    std::vector<double> momenta{0};
    if (momentum_ > 0) momenta.push_back(momentum_);
    result_.steps = check_steps(around_, result_.lambda_1, eigenvector, momenta);
    for (const StepCheck& step : result_.steps)
      if (!step.confirmed()) warn_of(step);
  }

  void read_moments() {
    Communicator& world = run_.world();
    agree(world, [&] {
      if (world.rank() == 0 && !is_torch_archive(config_.second_moments)) try_hdf5_file(config_.second_moments);
    });
    AdamPreconditioner adam = agreed(world, [&] { return read_adam(config_, run_.problem()); });
    for (const std::string& warning : adam.warnings) run_.warn(warning);
    adam_scale_ = agreed(world, [&] { return shard_of(run_.op(), adam.inverse_root); });
    if (run_.config().parts.wants_blocks()) inverse_root_ = adam.inverse_root;
    result_.adam = std::move(adam.found);
  }

  /// The largest eigenvalue of D^-1/2 H D^-1/2, and steps of Adam with D held fixed: heavy ball in D^1/2 θ, of rate
  /// η (1 − β₁).
  void precondition() {
    AdamSharpness& adam = *result_.adam;
    ScaledOperator scaled(run_.op(), adam_scale_);
    at::Tensor vector;
    const EigenPairs pairs = run_.leading_pair(scaled, vector);
    adam.products = pairs.steps;
    adam.converged = pairs.converged;
    if (pairs.top.empty()) return;
    adam.lambda_1 = pairs.top[0].value;
    adam.lambda_1_error = pairs.top[0].error;
    if (!adam.converged)
      run_.warn("the eigenvalue as Adam sees it did not converge in " + std::to_string(pairs.steps) +
                " products: raise --max-steps or --rtol-eigs");
    adam.largest_rate = adam_rate(adam.beta1, adam.lambda_1);
    if (!config_.step_check) return;
    adam.steps = check_steps(as_adam_sees_it(), adam.lambda_1, vector, {adam.beta1});
    for (StepCheck& step : adam.steps) {
      step.optimizer = "Adam";
      step.largest_step = adam.largest_rate;
      if (!step.confirmed()) warn_of(step);
    }
  }

  /// The loss over D^1/2 θ.
  LossAround as_adam_sees_it() {
    LossAround around = around_;
    const auto step_of = [this](const at::Tensor& v) { return agreed(run_.world(), [&] { return v * adam_scale_; }); };
    around.loss = [=, this](const at::Tensor& step) { return around_.loss(step_of(step)); };
    around.gradient = [=, this](const at::Tensor& step, at::Tensor& gradient) {
      around_.gradient(step_of(step), gradient);
      gradient.mul_(adam_scale_);
    };
    around.gradient_at_start = step_of(around_.gradient_at_start);
    return around;
  }

  void take_blocks() {
    const std::vector<Part> parts =
        agreed(run_.world(), [&] { return blocks_of(run_.config().parts, run_.problem().program->layout()); });
    run_.tell("sharpness: blocks");
    AdamScale adam;
    if (result_.adam) adam = {inverse_root_, as_adam_sees_it(), result_.adam->beta1};
    result_.blocks = steps_by_block(run_, parts, around_, adam, config_.step_check);
  }

  void warn_of(const StepCheck& step) {
    run_.warn(step.optimizer + ": growth a step is " + format_number(step.below) +
              " below the largest stable step and " + format_number(step.above) +
              " above it, where 1 lies between them for a quadratic loss: the loss is not quadratic so near");
  }

  double bend_along_gradient() {
    at::Tensor product = agreed(run_.world(), [&] { return at::zeros_like(around_.gradient_at_start); });
    run_.op().apply(around_.gradient_at_start, product);
    return run_.dot(around_.gradient_at_start, product);
  }

  const SharpnessConfig& config_;
  const double momentum_;
  OneGroup run_;
  LossSurface surface_;
  LossAround around_;
  at::Tensor adam_scale_;    // [chunk] D^-1/2
  at::Tensor inverse_root_;  // [n] the same of all, in host memory; with blocks alone
  Sharpness result_;
};

}  // namespace

int run_sharpness(const Invocation& run, const std::vector<std::string>& argv, Communicator& world) {
  return SharpnessRun(run, argv, world).go();
}

}  // namespace hesspect
