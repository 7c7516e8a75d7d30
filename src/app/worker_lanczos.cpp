// A group's Lanczos runs: in lock-step to their least number of steps, then each as far as what is asked of it goes.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "hesspect/comm/agree.h"
#include "hesspect/krylov/vector_math.h"
#include "hesspect/spectrum/cumulative.h"
#include "worker.h"

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

}  // namespace

std::unique_ptr<Lanczos> Worker::start(std::int64_t number) {
  const LanczosOptions& options = goals_.probe.lanczos;
  const auto warn = [&](const std::string& text) { line_.warn(text); };
  if (auto run = checkpoint_.resume(op_, number, options, warn)) {
    if (group_.leads())
      line_.say("probe " + std::to_string(number) + " goes on after " + std::to_string(run->replay_left()) + " steps");
    return run;
  }
  return std::make_unique<Lanczos>(op_, probe(number), options);
}

void Worker::lanczos(const Assignment& assignment) {
  if (std::ranges::any_of(assignment.task.probes, [&](std::int64_t p) { return p >= goals_.probes; })) {
    // The trace is done: the vectors make room.
    deflation_.reset();
    deflating_.reset();
  }
  begin(assignment);
  // The one that goes on to the eigenvalues comes last: the others need not wait for it, nor hold their memory.
  std::stable_sort(active_.begin(), active_.end(),
                   [&](const Active& a, const Active& b) { return (a.probe == 0) < (b.probe == 0); });
  while (!active_.empty()) {
    finish(active_.front());
    active_.erase(active_.begin());
  }
}

/// The least number of steps that is asked of every run.
void Worker::begin(const Assignment& assignment) {
  symmetry_samples_.clear();
  for (const TraceSample& sample : assignment.samples)
    if (sample.probe >= static_cast<std::int64_t>(kTraceProbes)) symmetry_samples_.push_back(sample);
  for (const std::int64_t number : assignment.task.probes) {
    active_.push_back({number, nullptr});
    active_.back().run = start(number);
  }
  if (goals_.probe.steps == 0) return;
  first_steps(assignment);
  std::vector<Lanczos*> runs;
  for (const Active& one : active_) runs.push_back(one.run.get());
  extend_together(op_, runs, goals_.probe.steps - 1, [this] { between_products(); });
}

/// Every run's first step, and what its product tells of the trace, where an earlier start has not told it.
void Worker::first_steps(const Assignment& assignment) {
  const auto wanted = [&](std::int64_t number) {
    return goals_.samples_trace() && goals_.diagonal.empty() && number < goals_.probes &&
           (number > 0 || goals_.trace == TraceMethod::kHutchinson) &&
           std::ranges::none_of(assignment.samples, [&](const auto& sample) { return sample.probe == number; });
  };
  std::vector<Active*> fresh;
  for (Active& one : active_) {
    if (one.run->replay_left() == 0) {
      fresh.push_back(&one);
      continue;
    }
    one.run->extend(op_, 1);  // taken again, without a product
    if (!wanted(one.probe)) continue;
    const TraceSample sample = first_sample(one.probe);
    if (group_.leads()) line_.sample(sample, tally());
  }
  if (fresh.empty()) return;
  FirstProducts watched(op_, goals_.layers);
  std::vector<Lanczos*> runs;
  for (const Active* one : fresh) runs.push_back(one->run.get());
  extend_together(watched, runs, 1);
  for (std::size_t i = 0; i < fresh.size(); ++i)
    if (wanted(fresh[i]->probe) && group_.leads())
      line_.sample(scaled(watched.samples[i], fresh[i]->probe, runs[i]->start_norm_sq()), tally());
  between_products();
}

/// Of a run that is past its first product: the product again.
TraceSample Worker::first_sample(std::int64_t number) {
  at::Tensor z = probe(number);
  const double z_norm_sq = comm_.sum(norm_sq(z));
  scale_into(z, 1 / std::sqrt(z_norm_sq), z);
  at::Tensor hz = at::zeros_like(z);
  op_.apply(z, hz);
  return scaled(trace_sample(op_, goals_.layers, number, z, hz), number, z_norm_sq);
}

/// Steps that a run's basis has room for without a thick restart.
std::int64_t Worker::most_rows() const {
  return goals_.eigen.max_basis > 0 ? std::min(goals_.max_steps, goals_.eigen.max_basis - 1) : goals_.max_steps;
}

/// Takes the run as far as its density asks.
void Worker::refine(Lanczos& run) {
  if (goals_.w1 <= 0) return;
  const std::int64_t n = op_.shard().n, most = most_rows();
  const auto coarse = [&] {
    const ProbeQuadrature q = quadrature_of(run, 0);
    // Half of what is allowed is for the choice of probes.
    return quadrature_w1(q, n) > goals_.w1 / 2 * (q.ritz.back() - q.ritz.front());
  };
  while (run.steps() < most && !run.breakdown() && comm_.of_rank0(coarse())) {
    const std::int64_t more = std::max(kWindow, run.steps() / 8);
    run.extend(op_, std::min(more, most - run.steps()), [this](const Lanczos&) { between_products(); });
  }
}

/// Takes probe 0's run on to all eigenvalues, where those are few and cheaper than the probes that the density would
/// take. Where the space has closed, so that one value may be all that is left over, one step tells.
void Worker::find_all(Lanczos& run) {
  const std::int64_t n = op_.shard().n, most = most_rows();
  if (goals_.w1 <= 0 || run.options().reorthogonalisation != Reorthogonalisation::kFull) return;
  const auto pays = [&] {
    if (all_found(run) || (n > most && (!run.breakdown() || run.blocks().size() > 1))) return false;
    const ProbeQuadrature q = quadrature_of(run, 0);
    const CumulativeDensity d = cumulative_density(std::span(&q, 1), n, {goals_.confidence});
    const double target = goals_.w1 * (d.range_hi - d.range_lo);
    if (d.w1 <= target) return false;
    const double ratio = d.w1_sampling / std::max(target - d.w1_quadrature, target / 2);
    const double probes = (ratio * ratio - 1) * static_cast<double>(q.alpha.size());
    return n > most || probes > static_cast<double>(n - run.rows());
  };
  while (run.rows() < most && comm_.of_rank0(pays())) {
    if (run.breakdown() && !restart_afresh(op_, run, goals_.probe.seed)) return;
    const std::int64_t more = n > most ? 1 : std::min(kWindow, most - run.rows());
    run.extend(op_, more, [this](const Lanczos&) { between_products(); });
  }
}

/// Takes probe 0's run on while a step saves more than one of the trace's probes.
void Worker::deflate_further(Lanczos& run) {
  if (goals_.trace != TraceMethod::kDeflated || goals_.rule.rtol <= 0) return;
  std::vector<at::Tensor> z;
  for (const TraceSample& sample : symmetry_samples_) z.push_back(probe(sample.probe));
  DeflationForecast forecast(symmetry_samples_, std::move(z));
  const double quantile = trace_quantile(goals_.rule.confidence);
  const std::int64_t most = most_rows();
  while (run.steps() < most && !run.breakdown()) {
    forecast.update(op_, run);
    // A wider look back, for what single steps bring comes in bursts.
    const std::int64_t window = std::max(2 * kWindow, run.steps() / 3);
    const double floor = trace_floor(quadrature_of(run, 0), op_.shard().n);
    if (!comm_.of_rank0(forecast.pays(window, goals_.rule.rtol, quantile, floor))) return;
    run.extend(op_, std::min(kWindow, most - run.steps()), [this](const Lanczos&) { between_products(); });
  }
}

/// All that is asked of a run, in the order in which a resumed one takes its recorded steps again.
FinishedProbe Worker::carry_out(const Active& active) {
  Lanczos& run = *active.run;
  FinishedProbe done;
  refine(run);
  if (active.probe == 0) find_all(run);
  if (run.steps() > 0) done.quadrature = quadrature_of(run, active.probe);
  if (active.probe == 0) {
    if (goals_.eigenvalues)
      done.eigenvalues = eigenvalues(op_, run, goals_.eigen, [this](const Lanczos&) { between_products(); });
    deflate_further(run);
    if (run.thick_restarts() == 0) {  // the further steps make the quadrature finer
      done.quadrature = quadrature_of(run, active.probe);
      if (goals_.eigenvalues) {
        const EigenResult so_far = eigenvalues_so_far(run, op_.shard().n, goals_.eigen);
        if (so_far.converged || !done.eigenvalues->converged) done.eigenvalues = so_far;
      }
    }
  }
  return done;
}

void Worker::finish(Active& active) {
  FinishedProbe done = carry_out(active);
  Lanczos& run = *active.run;
  const bool full = run.options().reorthogonalisation == Reorthogonalisation::kFull;
  done.quadrature.orthogonality_loss = active.probe == 0 && full && run.steps() > 1 ? run.orthogonality_loss() : kNaN;
  if (done.eigenvalues && full) measure_and_write(*done.eigenvalues, eigenvectors(run, op_.shard().n, goals_.eigen));
  if (group_.leads()) line_.finished(done, tally());
  if (active.probe == 0 && goals_.trace == TraceMethod::kDeflated)
    keep_for_deflation(std::move(active.run));
  else
    checkpoint_.forget(active.probe);
}

/// Probe 0 was finished by an earlier start: its run takes its recorded steps again, and where none are left on disk
/// its products.
void Worker::rebuild(const Assignment& assignment) {
  begin(assignment);
  carry_out(active_.front());
  std::unique_ptr<Lanczos> run = std::move(active_.front().run);
  active_.clear();
  keep_for_deflation(std::move(run));
}

void Worker::keep_for_deflation(std::unique_ptr<Lanczos> run) {
  deflating_ = std::move(run);
  deflation_ = std::make_unique<KrylovDeflation>(op_, *deflating_, goals_.layers);
  if (group_.leads()) line_.deflation({deflation_->rank(), deflation_->captured(), deflation_->captured_layers()});
}

void Worker::measure_and_write(EigenResult& result, const VectorSource& vectors) {
  // Not stopped in between: nothing would be kept of them.
  if (goals_.true_residuals)
    measure_residuals(op_, vectors, result, lock_step_, [this] {
      if (group_.leads()) line_.progress(tally());
    });
  if (goals_.eigenvectors.empty()) return;
  VectorsInfo info;
  info.quantity = "eigenvectors of the Hessian";
  info.float64 = op_.options().dtype() == at::kDouble;
  for (const auto* list : {&result.top, &result.bottom, &result.magnitude})
    for (const EigenEstimate& one : *list) info.values.push_back(one.value);
  const std::size_t count = info.values.size();
  if (count > 0) write_vectors(goals_.eigenvectors, std::move(info), count, vectors);
}

void Worker::own_eigenvalues() {
  VectorSource vectors;
  const auto on_step = [this] { between_products(); };
  EigenResult result;
  if (goals_.power) {
    PowerOptions options;
    options.count = goals_.eigen.magnitude;
    options.rtol = goals_.eigen.rtol;
    options.max_products = goals_.max_steps;
    options.seed = goals_.probe.seed;
    result = power_iteration(op_, options, &vectors, on_step);
  } else {
    result = block_eigenvalues(op_, goals_.eigen, &vectors, on_step);
  }
  measure_and_write(result, vectors);
  if (group_.leads()) line_.eigenvalues(result, tally());
}

}  // namespace hesspect
