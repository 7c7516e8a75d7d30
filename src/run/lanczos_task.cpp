// A group's Lanczos runs: in lock-step to their least number of steps, then each as far as what is asked of it goes.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "context.h"
#include "hesspect/comm/agree.h"
#include "hesspect/core/probe_numbers.h"
#include "hesspect/core/text.h"
#include "hesspect/krylov/vector_math.h"
#include "hesspect/spectrum/augmented_eigenvalues.h"
#include "hesspect/spectrum/cumulative.h"
#include "hesspect/spectrum/probe.h"
#include "hesspect/spectrum/second_pass.h"
#include "hesspect/spectrum/zero_eigenvalues.h"

namespace hesspect {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
/// Steps between looks at what a run has reached.
constexpr std::int64_t kWindow = 8;

/// The operator, and what its first products with unit start vectors tell of the trace.
class FirstProducts final : public LinearOperator {
 public:
  FirstProducts(LinearOperator& op, const LayerOffsets& layers) : op_(op), layers_(layers) {}
  Communicator& comm() const override { return op_.comm(); }
  const Shard& shard() const override { return op_.shard(); }
  at::TensorOptions options() const override { return op_.options(); }
  void apply(const at::Tensor& x, at::Tensor& y) override {
    op_.apply(x, y);
    samples.push_back(trace_sample(op_, layers_, 0, x, y));
  }
  void apply_block(std::span<const at::Tensor> x, std::span<at::Tensor> y) override {
    op_.apply_block(x, y);
    for (std::size_t i = 0; i < x.size(); ++i) samples.push_back(trace_sample(op_, layers_, 0, x[i], y[i]));
  }
  std::vector<TraceSample> samples;

 private:
  LinearOperator& op_;
  const LayerOffsets& layers_;
};

/// The sample of z from that of z / ‖z‖.
TraceSample scaled(TraceSample unit, std::int64_t probe, double norm_sq) {
  unit.probe = probe;
  unit.quadratic_form *= norm_sq;
  unit.product_norm_sq *= norm_sq;
  for (double& layer : unit.layers) layer *= norm_sq;
  return unit;
}

class LanczosTask {
 public:
  /// @param known  samples of first products that earlier starts have reported, and the symmetry check's
  LanczosTask(Context& context, const std::vector<TraceSample>& known)
      : context_(context), goals_(context.goals), op_(context.op), comm_(context.comm), known_(known) {}

  struct Found {
    ProbeQuadrature quadrature;
    std::optional<EigenPairs> pairs;
    std::optional<EigenResult> augmented;  // instead, beside start vectors
    VectorSource vectors;                  // of `augmented`
  };

  void begin(const std::vector<std::int64_t>& probes);
  /// @param anew  the eigenvalues are known, and nothing but the basis is wanted
  Found carry_out(const ActiveRun& active, bool anew);
  VectorSource second_pass(std::int64_t probe, const Lanczos& run, const EigenPairs& pairs);
  void finish(ActiveRun& active);
  void keep_for_deflation(std::unique_ptr<Lanczos> run);

 private:
  std::unique_ptr<Lanczos> start(std::int64_t probe);
  bool wants_sample(std::int64_t probe) const;
  void first_steps();
  void sample_again(std::int64_t probe);
  std::int64_t most_rows() const;
  void refine(Lanczos& run);
  void find_all(Lanczos& run);
  void deflate_further(Lanczos& run);
  bool is_warm(const Lanczos& run) const;
  bool augments(const Lanczos& run) const;
  void converge(Lanczos& run);
  std::int64_t augmenting_products(const Lanczos& run) const;
  double asked_w1() const { return goals_.density ? goals_.density->w1 : 0; }
  /// Of the spectrum that the density is of.
  double width_of(const ProbeQuadrature& q) const {
    const double lo = q.ritz.front(), hi = q.ritz.back();
    return goals_.zeros > 0 ? std::max(hi, 0.0) - std::min(lo, 0.0) : hi - lo;
  }
  /// Each rank has come to the opinion by floating-point work of its own.
  bool decided(bool mine) const { return comm_.of_rank0(mine); }
  void extend(Lanczos& run, std::int64_t steps) {
    run.extend(op_, steps, [this](const Lanczos&) { context_.between_products(); });
  }

  Context& context_;
  const Goals& goals_;
  HessianOperator& op_;
  Communicator& comm_;
  const std::vector<TraceSample>& known_;
};

std::unique_ptr<Lanczos> LanczosTask::start(std::int64_t number) {
  const LanczosOptions options = context_.lanczos_options();
  const auto warn = [this](const std::string& text) { context_.say(text, /*warning=*/true); };
  if (auto run = context_.checkpoint.resume(op_, number, options, warn)) {
    context_.say("probe " + std::to_string(number) + " goes on after " + std::to_string(run->replay_left()) + " steps");
    return run;
  }
  return std::make_unique<Lanczos>(op_, context_.probe(number), options);
}

/// The least number of steps that is asked of every run.
void LanczosTask::begin(const std::vector<std::int64_t>& probes) {
  for (const std::int64_t number : probes) {
    auto run = start(number);
    context_.active.push_back({number, std::move(run)});
  }
  if (goals_.steps == 0) return;
  first_steps();
  std::vector<Lanczos*> runs;
  for (const ActiveRun& one : context_.active) runs.push_back(one.run.get());
  extend_together(op_, runs, goals_.steps - 1, [this] { context_.between_products(); });
}

/// Whether the run's first product is a sample of the trace that no earlier start has reported.
bool LanczosTask::wants_sample(std::int64_t number) const {
  return goals_.samples_trace() && !goals_.writes_diagonal() && number < goals_.runs &&
         (number > 0 || !goals_.deflates()) &&
         std::ranges::none_of(known_, [&](const TraceSample& sample) { return sample.probe == number; });
}

/// Every run's first step, and what its product tells of the trace.
void LanczosTask::first_steps() {
  std::vector<ActiveRun*> fresh;
  for (ActiveRun& one : context_.active) {
    if (one.run->replay_left() == 0) {
      fresh.push_back(&one);
      continue;
    }
    one.run->extend(op_, 1);  // taken again, without a product
    if (wants_sample(one.probe)) sample_again(one.probe);
  }
  if (fresh.empty()) return;
  FirstProducts watched(op_, context_.layers);
  std::vector<Lanczos*> runs;
  for (const ActiveRun* one : fresh) runs.push_back(one->run.get());
  extend_together(watched, runs, 1);
  for (std::size_t i = 0; i < fresh.size(); ++i)
    if (wants_sample(fresh[i]->probe))
      context_.report(Sampled{scaled(watched.samples[i], fresh[i]->probe, runs[i]->t().start_norm_sq)});
  context_.between_products();
}

/// The first product again, of a run that is past it.
void LanczosTask::sample_again(std::int64_t number) {
  at::Tensor z = context_.probe(number);
  const double sum = comm_.sum(norm_sq(z));
  scale_into(z, 1 / std::sqrt(sum), z);
  at::Tensor hz = agreed(comm_, [&] { return at::zeros_like(z); });
  op_.apply(z, hz);
  context_.report(Sampled{scaled(trace_sample(op_, context_.layers, number, z, hz), number, sum)});
}

/// Steps that a run's basis has room for without a thick restart.
std::int64_t LanczosTask::most_rows() const {
  const std::int64_t max_basis = context_.eigen_options().max_basis;
  return max_basis > 0 ? std::min(goals_.most_steps, max_basis - 1) : goals_.most_steps;
}

/// Takes the run as far as its density asks.
void LanczosTask::refine(Lanczos& run) {
  if (asked_w1() <= 0) return;
  const std::int64_t most = most_rows();
  const auto coarse = [&] {
    const ProbeQuadrature q = quadrature_of(run.t(), 0);
    // Half of what is allowed is for the choice of probes.
    return goals_.share_in_use() * quadrature_w1(q, goals_.n) > asked_w1() / 2 * width_of(q);
  };
  while (run.steps() < most && !run.t().breakdown() && decided(coarse()))
    extend(run, std::min(std::max(kWindow, run.steps() / 8), most - run.steps()));
}

/// Takes probe 0's run on to all eigenvalues, where those are few and cheaper than the probes that the density would
/// take. Where the space has closed, so that one value may be all that is left over, one step tells.
void LanczosTask::find_all(Lanczos& run) {
  const std::int64_t n = goals_.n, most = most_rows();
  if (asked_w1() <= 0 || !goals_.reorthogonalize) return;
  const auto pays = [&] {
    if (all_found(run.t()) || (n > most && (!run.t().breakdown() || run.t().blocks.size() > 1))) return false;
    const ProbeQuadrature q = quadrature_of(run.t(), 0);
    const CumulativeDensity d = with_zeros(
        cumulative_density(std::span(&q, 1), n,
                           {.confidence = goals_.confidence, .moved = goals_.density_error, .most_points = 0}),
        n, goals_.zeros);
    const double target = asked_w1() * (d.range_hi - d.range_lo);
    if (d.w1 <= target) return false;
    const double ratio = d.w1_sampling / std::max(target - d.w1_quadrature - d.w1_precision, target / 2);
    const double probes = (ratio * ratio - 1) * static_cast<double>(q.alpha.size());
    return n > most || probes > static_cast<double>(n - run.t().rows());
  };
  while (run.t().rows() < most && decided(pays())) {
    if (run.t().breakdown() && !restart_afresh(op_, run, goals_.seed)) return;
    extend(run, n > most ? 1 : std::min(kWindow, most - run.t().rows()));
  }
}

/// Takes probe 0's run on while a step saves more than one of the trace's probes.
void LanczosTask::deflate_further(Lanczos& run) {
  if (!goals_.deflates() || goals_.trace->rule.rtol <= 0) return;
  const TraceRule& rule = goals_.trace->rule;
  std::vector<TraceSample> samples;
  std::vector<at::Tensor> z;
  for (const TraceSample& sample : known_)
    if (sample.probe >= trace_probe(0)) {
      samples.push_back(sample);
      z.push_back(context_.probe(sample.probe));
    }
  DeflationForecast forecast(std::move(samples), std::move(z));
  const double quantile = trace_quantile(rule.confidence);
  const std::int64_t most = most_rows();
  while (run.steps() < most && !run.t().breakdown()) {
    forecast.update(run);
    // A wider look back, for what single steps bring comes in bursts.
    const std::int64_t window = std::max(2 * kWindow, run.steps() / 3);
    const double floor = trace_floor(quadrature_of(run.t(), 0), goals_.n);
    if (!decided(forecast.pays(window, rule.rtol, quantile, floor))) return;
    extend(run, std::min(kWindow, most - run.steps()));
  }
}

/// Whether there are vectors that may be near the eigenvectors, beside which these can be searched.
bool LanczosTask::is_warm(const Lanczos& run) const {
  return goals_.solves_by(EigenSolver::kProbe) && !context_.start_vectors.empty() && goals_.reorthogonalize &&
         run.steps() >= 2 && !run.t().breakdown() && run.t().thick_restarts.empty();
}

/// Whether the eigenvalues are searched beside the start vectors, for which the run itself need not go on.
bool LanczosTask::augments(const Lanczos& run) const {
  return is_warm(run) && !all_found(run.t()) && can_augment(run, op_.options()) &&
         augmenting_products(run) >= goals_.eigen->wanted();
}

/// Takes the run on until its eigenvalues have converged, and no step further while it is short.
void LanczosTask::converge(Lanczos& run) {
  const std::int64_t most = most_rows();
  while (run.steps() < most && !run.t().breakdown() &&
         !decided(eigenvalues_so_far(run, context_.eigen_options()).converged))
    extend(run, std::min(std::max<std::int64_t>(1, run.steps() / 32), most - run.steps()));
}

/// Two vectors are held for each, in the room that the plan has for the run's further rows.
std::int64_t LanczosTask::augmenting_products(const Lanczos& run) const {
  return std::min((most_rows() - run.t().rows()) / 2, goals_.most_steps - run.steps());
}

/// All that is asked of a run, in the order in which a resumed one takes its recorded steps again.
LanczosTask::Found LanczosTask::carry_out(const ActiveRun& active, bool anew) {
  Lanczos& run = *active.run;
  Found found;
  refine(run);
  if (active.probe == 0) find_all(run);
  if (run.steps() > 0) found.quadrature = quadrature_of(run.t(), active.probe);
  if (active.probe != 0) return found;
  if (is_warm(run)) {
    // Vectors that have turned too far are of no use, and steps of the run itself serve density and trace too.
    const double rtol = goals_.eigen->rtol;
    if (decided(near_eigenvectors(run, context_.start_vectors, rtol).empty())) converge(run);
    deflate_further(run);
    found.quadrature = quadrature_of(run.t(), active.probe);
    // The basis stays as it is from here on: the vectors are made from it.
    if (!anew && augments(run)) {
      found.augmented =
          augmented_eigenvalues(op_, run, context_.start_vectors, context_.eigen_options(), augmenting_products(run),
                                &found.vectors, [this] { context_.between_products(); });
      return found;
    }
    if (anew) return found;
  }
  const bool solves = goals_.solves_by(EigenSolver::kProbe);
  if (solves)
    found.pairs =
        eigenvalues(op_, run, context_.eigen_options(), [this](const Lanczos&) { context_.between_products(); });
  deflate_further(run);
  if (!run.t().thick_restarts.empty()) return found;
  // The further steps make the quadrature finer.
  found.quadrature = quadrature_of(run.t(), active.probe);
  if (solves) {
    EigenPairs so_far = eigenvalues_so_far(run, context_.eigen_options());
    if (so_far.converged || !found.pairs->converged) found.pairs = std::move(so_far);
  }
  return found;
}

VectorSource LanczosTask::second_pass(std::int64_t probe, const Lanczos& run, const EigenPairs& pairs) {
  SecondPass second =
      hesspect::second_pass(op_, context_.probe(probe), run.options(), pairs, [this] { context_.between_products(); });
  if (second.difference * run.t().scale() > run.rounding())
    context_.say(
        "the second pass parts from the first by " + format_number(second.difference) +
            " of the largest eigenvalue: products do not repeat bit for bit here, and eigenvectors are only as "
            "good as their true residuals say",
        /*warning=*/true);
  return std::move(second.vectors);
}

void LanczosTask::finish(ActiveRun& active) {
  Found found = carry_out(active, /*anew=*/false);
  Lanczos& run = *active.run;
  const bool measured = active.probe == 0 && goals_.reorthogonalize && run.steps() > 1;
  found.quadrature.orthogonality_loss = measured ? run.orthogonality_loss() : kNaN;
  FinishedProbe done{std::move(found.quadrature), std::nullopt};
  if (found.augmented) {
    done.eigenvalues = measured_and_written(context_, *found.augmented, found.vectors, /*are_measured=*/true);
  } else if (found.pairs) {
    VectorSource vectors;
    if (goals_.reorthogonalize)
      vectors = eigenvectors(run, *found.pairs);
    else if (goals_.eigen->second_pass)
      vectors = second_pass(active.probe, run, *found.pairs);
    done.eigenvalues = measured_and_written(context_, *found.pairs, vectors);
  }
  context_.report(ProbeFinished{std::move(done)});
  if (active.probe == 0 && goals_.deflates())
    keep_for_deflation(std::move(active.run));
  else
    context_.checkpoint.forget(active.probe);
}

void LanczosTask::keep_for_deflation(std::unique_ptr<Lanczos> run) {
  const Lanczos& kept = *run;
  context_.deflation =
      std::make_unique<DeflationBasis>(DeflationBasis{std::move(run), KrylovDeflation(op_, kept, context_.layers)});
  const KrylovDeflation& space = context_.deflation->space;
  context_.report(BasisReady{{space.rank(), space.captured(), space.captured_sq(), space.captured_layers()}});
}

}  // namespace

void perform(Context& context, const RunLanczos& runs) {
  // Runs beyond the first ones come when the trace is done: the vectors make room.
  if (std::ranges::any_of(runs.probes, [&](std::int64_t p) { return p >= context.goals.runs; }))
    context.deflation.reset();
  LanczosTask task(context, runs.known);
  task.begin(runs.probes);
  // The one that goes on to the eigenvalues comes last: the others need not wait for it, nor hold their memory.
  std::vector<ActiveRun>& active = context.active;
  std::stable_sort(active.begin(), active.end(),
                   [](const ActiveRun& a, const ActiveRun& b) { return (a.probe == 0) < (b.probe == 0); });
  while (!active.empty()) {
    task.finish(active.front());
    active.erase(active.begin());
  }
}

/// Probe 0's run takes its recorded steps again, and where none are left on disk its products.
void perform(Context& context, const RebuildBasis& rebuild) {
  LanczosTask task(context, rebuild.known);
  task.begin({0});
  task.carry_out(context.active.front(), /*anew=*/true);
  std::unique_ptr<Lanczos> run = std::move(context.active.front().run);
  context.active.clear();
  task.keep_for_deflation(std::move(run));
}

}  // namespace hesspect
