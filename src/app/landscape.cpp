#include "landscape.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <tuple>
#include <utility>

#include "hesspect/comm/agree.h"
#include "hesspect/config/direction.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"
#include "hesspect/core/probe_numbers.h"
#include "hesspect/core/text.h"
#include "hesspect/curvature/directions.h"
#include "hesspect/curvature/loss_surface.h"
#include "hesspect/krylov/vector_math.h"
#include "hesspect/run/write_vectors.h"
#include "hesspect/spectrum/landscape.h"
#include "hesspect/spectrum/probe.h"
#include "one_group.h"
#include "planning.h"
#include "run_life.h"
#include "vectors_from.h"

namespace hesspect {
namespace {

using Kind = DirectionName::Kind;

/// Directions with marks so close together, over their norm, are the same, found again on other ranks.
constexpr double kSameMark = 1e-3;

/// A vector from a file counts as an eigenvector with a residual of so many times what was asked for.
constexpr double kLooseEigenvector = 10;

std::int64_t wanted(const std::vector<DirectionName>& names, std::int64_t sign) {
  std::int64_t most = 0;
  for (const DirectionName& name : names)
    if (name.kind == Kind::kEigenvector) most = std::max(most, sign * name.number);
  return most;
}

class LandscapeRun {
 public:
  LandscapeRun(const Invocation& run, const std::vector<std::string>& argv, RunLife& life, Communicator& world)
      : config_(run.config.landscape),
        names_(directions_from(config_.directions)),
        // Eigenvectors in a file need not be found.
        run_(run, argv, config_.vectors_from.empty() ? wanted(names_, 1) : 0,
             config_.vectors_from.empty() ? wanted(names_, -1) : 0, world, &life) {
    const RunStart& start = life.start();
    known_ = landscape_progress_from(world.broadcast_bytes(to_text(
        life.first() && start.resumed ? start.state.landscape.value_or(LandscapeProgress{}) : LandscapeProgress{})));
    run_.set_progress([this](LedgerState& state) { state.landscape = known_; });
  }

  int go() {
    tell_start();
    find_directions();
    measure_curvature();
    choose_spans();
    recognise_directions();
    look();
    write_directions();
    return run_.finish([this](RunResult& r) { r.landscape = std::move(landscape_); });
  }

 private:
  HessianOperator& op() { return run_.op(); }

  std::int64_t most_losses() const { return hesspect::most_losses(config_.points, names_.size()); }

  void tell_start() {
    const Problem& problem = run_.problem();
    const Plan& plan = run_.plan();
    log_info(format_count(problem.program->layout().model_size()) + " parameters, " + format_count(problem.rows) +
             " rows in micro-batches of " + std::to_string(op().stats().micro_batch) + ", loss " +
             format_number(op().loss()) + "; at most " + format_count(plan.products) + " products, " +
             format_duration(plan.run_s) + ", and " + format_count(most_losses()) + " losses; " +
             format_bytes(plan.bytes.total()));
  }

  /// Where in the lists an eigenvector stands. @throws UsageError where there is none
  std::size_t place_of(std::int64_t number) {
    const EigenPairs& pairs = run_.find_eigenpairs();
    const std::size_t top = pairs.top.size(), bottom = pairs.bottom.size();
    const auto rank = static_cast<std::size_t>(std::abs(number));
    if (rank > (number > 0 ? top : bottom))
      throw UsageError("--direction eigenvector:" + std::to_string(number) + ": only " +
                       std::to_string(number > 0 ? top : bottom) + " were found");
    return number > 0 ? rank - 1 : top + bottom - rank;  // the smallest is the last
  }

  /// The vector of a name, and what it is called.
  std::pair<at::Tensor, std::string> made(const DirectionName& name) {
    Communicator& world = run_.world();
    if (name.kind == Kind::kEigenvector && !config_.vectors_from.empty()) {
      if (!from_file_)
        from_file_ = agreed(world, [&] {
          return std::make_unique<EigenvectorFile>(config_.vectors_from, run_.problem().program->layout());
        });
      at::Tensor vector = agreed(world, [&] { return shard_of(op(), from_file_->vector(name.number)); });
      return {std::move(vector), "eigenvector:" + std::to_string(name.number) + " of " + config_.vectors_from};
    }
    if (name.kind == Kind::kEigenvector) {
      const std::size_t place = place_of(name.number);
      const EigenPairs& pairs = run_.find_eigenpairs();
      const EigenEstimate& pair = place < pairs.top.size() ? pairs.top[place] : pairs.bottom[place - pairs.top.size()];
      return {run_.eigenvector(place), "eigenvector of " + format_number(pair.value)};
    }
    if (name.kind == Kind::kRandom)
      return {filter_normalised(op(), *run_.problem().program, run_.seed(),
                                kDirectionProbes + static_cast<std::uint64_t>(name.number)),
              "random " + std::to_string(name.number) + ", filter-normalised"};
    if (name.kind == Kind::kGradient) return {agreed(world, [&] { return op().gradient().clone(); }), "gradient"};
    const StepToWeights to = agreed(world, [&] { return step_to_weights(run_.config(), name.file, run_.problem()); });
    if (!to.other_buffers.empty())
      run_.warn(quote(name.file) + " has other numbers in " + format_count(std::ssize(to.other_buffers)) +
                " buffers: " + format_names(to.other_buffers, 3) +
                "; on the way there they stay those of the model's own weights");
    return {agreed(world, [&] { return shard_of(op(), to.step); }), "to " + name.file};
  }

  /// What is wrong with the other ones is found before a Lanczos run begins.
  void find_directions() {
    landscape_.directions.resize(names_.size());
    vectors_.resize(names_.size());
    for (const bool by_run : {false, true})
      for (std::size_t i = 0; i < names_.size(); ++i)
        if ((names_[i].kind == Kind::kEigenvector && config_.vectors_from.empty()) == by_run) find_direction(i);
  }

  void find_direction(std::size_t i) {
    const DirectionName& name = names_[i];
    LandscapeDirection& d = landscape_.directions[i];
    at::Tensor& vector = vectors_[i];
    std::tie(vector, d.name) = made(name);
    d.norm = std::sqrt(run_.dot(vector, vector));
    if (!(d.norm > 0) || !std::isfinite(d.norm))
      throw InputError("the direction '" + d.name + "' is " + (d.norm == 0 ? "zero" : "not finite") +
                       (name.kind == Kind::kWeights ? ": those are the model's own weights" : ""));
    if (name.kind == Kind::kGradient) {
      scale_into(vector, 1 / d.norm, vector);
      d.norm = 1;
    }
  }

  /// Slopes and bends, by a product a direction; those of parallel directions make no surface.
  void measure_curvature() {
    at::Tensor product = agreed(run_.world(), [&] { return at::zeros_like(vectors_[0]); });
    for (std::size_t i = 0; i < vectors_.size(); ++i) {
      LandscapeDirection& d = landscape_.directions[i];
      d.slope = run_.dot(op().gradient(), vectors_[i]);
      op().apply(vectors_[i], product);
      d.bend = run_.dot(vectors_[i], product);
      if (from_file_ && names_[i].kind == Kind::kEigenvector) check_eigenvector(i, product);
      if (i == 1) landscape_.cross = run_.dot(vectors_[0], product);
    }
    if (vectors_.size() < 2) return;
    const double cosine =
        run_.dot(vectors_[0], vectors_[1]) / (landscape_.directions[0].norm * landscape_.directions[1].norm);
    if (std::abs(cosine) > 1 - 1e-6) throw InputError("the two directions are parallel: they span no surface");
    if (std::abs(cosine) > 0.1)
      run_.warn("the directions are not at right angles (cosine " + format_number(cosine) +
                "): the picture is slanted");
  }

  /// An eigenvector of other weights or data is a direction like any other, but not what it is called.
  void check_eigenvector(std::size_t i, const at::Tensor& product) {
    const double value = landscape_.directions[i].bend, norm_sq = run_.dot(product, product);
    const double residual = std::sqrt(std::max(0.0, norm_sq - value * value));
    if (residual > kLooseEigenvector * std::max(run_.config().eigs.rtol_eigs, kLooseEigenvector * run_.rounding_of(1)) *
                       std::sqrt(norm_sq))
      run_.warn("'" + landscape_.directions[i].name + "' is no eigenvector here: its Rayleigh quotient is " +
                format_number(value) + ", with a residual of " + format_number(residual) +
                "; it may be of other weights, data or another loss");
  }

  void choose_spans() {
    landscape_.loss_at_start = op().loss();
    landscape_.rounding = run_.rounding_of(op().loss());
    for (std::size_t i = 0; i < names_.size(); ++i) {
      LandscapeDirection& d = landscape_.directions[i];
      if (i < config_.spans.size()) {
        std::tie(d.low, d.high) = config_.spans[i];
      } else if (names_[i].kind == Kind::kWeights) {
        d.low = -0.5, d.high = 1.5;
      } else {
        d.high = names_[i].kind == Kind::kRandom ? 1 : doubling_width(op().loss(), d.slope, d.bend);
        d.low = -d.high;
      }
    }
  }

  /// Losses of an earlier start count where they lie along these directions, which other ranks may have found with the
  /// other sign, or otherwise where eigenvalues are multiple. Spans then stay what they were.
  void recognise_directions() {
    const at::Tensor z =
        probe_vector(op(), ProbeDistribution::kGaussian, run_.seed(), static_cast<std::uint64_t>(trace_probe(0)));
    LandscapeProgress now;
    for (std::size_t i = 0; i < vectors_.size(); ++i) {
      LandscapeDirection& d = landscape_.directions[i];
      now.marks.push_back(run_.dot(vectors_[i], z));
      now.spans.insert(now.spans.end(), {d.low, d.high});
    }
    bool same = known_.spans.size() == now.spans.size() && known_.marks.size() == now.marks.size();
    for (std::size_t i = 0; same && i < vectors_.size(); ++i)
      same = std::abs(known_.marks[i] - now.marks[i]) <= kSameMark * landscape_.directions[i].norm;
    if (!run_.world().of_rank0(same)) {
      if (!known_.losses.empty())
        log_warning("the directions are not those of the run that was stopped: its losses are taken again");
      known_ = std::move(now);
      return;
    }
    for (std::size_t i = 0; i < vectors_.size(); ++i) {
      landscape_.directions[i].low = known_.spans[2 * i];
      landscape_.directions[i].high = known_.spans[2 * i + 1];
    }
    if (!known_.losses.empty()) log_info("resumed with " + format_count(std::ssize(known_.losses)) + " losses");
  }

  void look() {
    LossSurface surface(op());
    at::Tensor step = agreed(run_.world(), [&] { return at::zeros_like(vectors_[0]); });
    const std::size_t before = known_.losses.size();
    std::size_t asked = 0;
    const Timer timer;
    explore(landscape_, config_.points, [&](double a, double b) {
      if (asked++ < before) return known_.losses[asked - 1];
      run_.pause();
      agree(run_.world(), [&] {
        at::mul_out(step, vectors_[0], at::scalar_tensor(a, step.options()));
        if (vectors_.size() > 1) step.add_(vectors_[1], b);
      });
      known_.losses.push_back(surface.loss(step));
      const std::int64_t taken = std::ssize(known_.losses), left = most_losses() - taken;
      const double each_s = timer.elapsed_s() / static_cast<double>(surface.losses());
      run_.tell("landscape: " + format_count(taken) + " of at most " + format_count(most_losses()) +
                " losses, at most " + format_duration(each_s * static_cast<double>(left)) + " left");
      return known_.losses.back();
    });
    log_debug(format_count(surface.losses()) + " losses");
  }

  void write_directions() {
    const std::string& file = config_.directions_file;
    if (file.empty()) return;
    VectorsInfo info;
    info.quantity = "directions of a landscape";
    for (const LandscapeDirection& d : landscape_.directions) info.values.push_back(d.bend);
    info.parts = parameter_parts(*run_.problem().program).tensors;
    write_vectors(op(), file, std::move(info), vectors_.size(), [&](std::size_t i) { return vectors_[i]; });
  }

  const LandscapeConfig& config_;
  const std::vector<DirectionName> names_;
  OneGroup run_;
  std::unique_ptr<EigenvectorFile> from_file_;
  std::vector<at::Tensor> vectors_;  // [chunk] each
  LandscapeProgress known_;          // as far as it has come, earlier starts included
  Landscape landscape_;
};

}  // namespace

std::vector<std::string> plan_landscape(const RunConfig& config, Communicator& world, bool& fits) {
  const std::vector<DirectionName> names = agreed(world, [&] { return directions_from(config.landscape.directions); });
  const bool finds = config.landscape.vectors_from.empty();
  RunConfig run = one_group_config(config, finds ? wanted(names, 1) : 0, finds ? wanted(names, -1) : 0);
  run.plan.work = Command::kEigs;
  std::vector<std::string> lines = plan_command(run, world, fits);
  lines.push_back("  losses        at most " + format_count(most_losses(config.landscape.points, names.size())) +
                  ", a forward pass over the data each, beside the products of the eigenvectors");
  return lines;
}

int run_landscape(const Invocation& run, const std::vector<std::string>& argv, const StopSignal& signal,
                  Communicator& world) {
  RunLife life(run, signal, world);
  return life.live({run.config.landscape.directions_file}, [&] { return LandscapeRun(run, argv, life, world).go(); });
}

}  // namespace hesspect
