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
#include "one_group.h"
#include "vectors_from.h"

namespace hesspect {
namespace {

using Kind = DirectionName::Kind;

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
  LandscapeRun(const Invocation& run, const std::vector<std::string>& argv, Communicator& world)
      : config_(run.config.landscape),
        names_(directions_from(config_.directions)),
        // Eigenvectors in a file need not be found.
        run_(run, argv, config_.vectors_from.empty() ? wanted(names_, 1) : 0,
             config_.vectors_from.empty() ? wanted(names_, -1) : 0, world) {}

  int go() {
    run_.find_eigenpairs();
    for (const DirectionName& name : names_) add_direction(name);
    measure_curvature();
    choose_spans();
    look();
    write_directions();
    return run_.finish([this](RunResult& r) { r.landscape = std::move(landscape_); });
  }

 private:
  HessianOperator& op() { return run_.op(); }

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

  void add_direction(const DirectionName& name) {
    LandscapeDirection d;
    at::Tensor vector;
    std::tie(vector, d.name) = made(name);
    d.norm = std::sqrt(run_.dot(vector, vector));
    if (!(d.norm > 0) || !std::isfinite(d.norm))
      throw InputError("the direction '" + d.name + "' is " + (d.norm == 0 ? "zero" : "not finite") +
                       (name.kind == Kind::kWeights ? ": those are the model's own weights" : ""));
    if (name.kind == Kind::kGradient) {
      scale_into(vector, 1 / d.norm, vector);
      d.norm = 1;
    }
    landscape_.directions.push_back(std::move(d));
    vectors_.push_back(std::move(vector));
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

  void look() {
    LossSurface surface(op());
    at::Tensor step = agreed(run_.world(), [&] { return at::zeros_like(vectors_[0]); });
    const bool is_plane = vectors_.size() > 1;
    const std::int64_t points = config_.points, all = is_plane ? points * points : points;
    explore(landscape_, points, [&](double a, double b) {
      agree(run_.world(), [&] {
        at::mul_out(step, vectors_[0], at::scalar_tensor(a, step.options()));
        if (is_plane) step.add_(vectors_[1], b);
      });
      const double loss = surface.loss(step);
      run_.tell("landscape: " + format_count(surface.losses()) + " of some " + format_count(all) + " losses");
      return loss;
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
  Landscape landscape_;
};

}  // namespace

int run_landscape(const Invocation& run, const std::vector<std::string>& argv, Communicator& world) {
  return LandscapeRun(run, argv, world).go();
}

}  // namespace hesspect
