#include "worker.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <sstream>
#include <thread>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/krylov/vector_math.h"
#include "planning.h"
#include "summary.h"

namespace hesspect {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
/// Numbers of the two vectors of the symmetry check, away from a run's own probes and from restarts (2^63 on).
constexpr std::uint64_t kSymmetryProbes = std::uint64_t{1} << 62;
/// Above this they are no rounding at all: the results would mean nothing.
constexpr double kGrossAsymmetry = 1e-3;
constexpr double kNoCurvature = 1e-6;  // in loss/parameter²
constexpr double kReportEvery_s = 0.2;

/// The group has stopped as it was asked to: unwinds the algorithms that were under way. No error.
struct Stopped {};

double reduced_dot(Communicator& comm, const at::Tensor& a, const at::Tensor& b) {
  double sum[1] = {dot_product(a, b)};
  comm.all_reduce_sum(std::span<double>(sum));
  return sum[0];
}

Symmetry symmetry_of(LinearOperator& op, std::uint64_t seed) {
  const at::Tensor u = probe_vector(op, ProbeDistribution::kGaussian, seed, kSymmetryProbes);
  const at::Tensor v = probe_vector(op, ProbeDistribution::kGaussian, seed, kSymmetryProbes + 1);
  // One after the other: together they would take the room of two for good.
  at::Tensor products[2] = {at::zeros_like(u), at::zeros_like(v)};
  op.apply(u, products[0]);
  op.apply(v, products[1]);
  Communicator& comm = op.comm();
  const auto norm = [&](const at::Tensor& x) { return std::sqrt(reduced_dot(comm, x, x)); };
  const double nu = norm(u), nv = norm(v);
  const double scale = nu * norm(products[1]) + nv * norm(products[0]);
  if (scale == 0) return {};
  return {std::abs(reduced_dot(comm, u, products[1]) - reduced_dot(comm, v, products[0])) / scale,
          scale / (2 * nu * nv)};
}

at::ScalarType storage_type(const std::string& name) {
  return name == "float64" ? at::kDouble : name == "bfloat16" ? at::kBFloat16 : at::kFloat;
}

}  // namespace

ProbeWork probe_work(const RunConfig& config, const std::string& command, const Plan& plan) {
  ProbeWork work;
  work.command = command;
  work.probe.seed = config.quadrature.seed;
  work.probe.distribution = config.quadrature.distribution;
  work.probe.steps = command == "trace" ? 1 : config.quadrature.steps;  // its first product alone gives the trace
  LanczosOptions& lanczos = work.probe.lanczos;
  if (!config.quadrature.reorthogonalize) lanczos.reorthogonalisation = Reorthogonalisation::kNone;
  lanczos.basis.storage = storage_type(plan.basis_dtype);
  lanczos.basis.on_host = plan.basis_memory == "host";
  work.eigen = {config.eigs.top, config.eigs.bottom, config.eigs.max_steps, config.eigs.rtol_eigs,
                config.quadrature.seed};
  work.eigenvalues = wants_eigenvalues(config, command);
  return work;
}

Worker::Worker(const ProbeWork& work, Group& group, Desk& desk, RunCheckpoint& checkpoint, const StopSignal& signal,
               const Clock& clock, int lock_step)
    : work_(work),
      group_(group),
      comm_(*group.comm),
      op_(*group.op),
      checkpoint_(checkpoint),
      signal_(signal),
      clock_(clock),
      line_(desk, group.number),
      lock_step_(lock_step) {}

Tally Worker::tally() const {
  const HessianStats& stats = op_.stats();
  return {stats.products, stats.product_s, stats.communication_s};
}

void Worker::check_symmetry() {
  const Symmetry symmetry = symmetry_of(op_, work_.probe.seed);
  if (!std::isfinite(symmetry.error))
    throw NumericalError(0, symmetry.error,
                         "a product with a random vector is not finite: weights or activations are too large");
  // The same numbers on all ranks. Where there is next to no curvature, the products are rounding alone.
  if (symmetry.error > kGrossAsymmetry && symmetry.curvature_scale > kNoCurvature)
    throw InputError("products are not symmetric (relative error " + number(symmetry.error) +
                     "): an op of the model has a wrong second derivative, or the model is not deterministic");
  if (group_.leads()) line_.symmetry(symmetry.error, symmetry.curvature_scale);
}

void Worker::run() {
  try {
    for (auto probes = next_probes(); !probes.empty(); probes = next_probes()) work_on(probes);
  } catch (const Stopped&) {
    active_.clear();
    if (group_.leads()) line_.stopping(tally());
  }
}

void Worker::wait_for_the_others() {
  while (true) {
    double signalled[1] = {signal_.received() ? 1.0 : 0.0}, all_ended[1] = {0.0};
    comm_.all_reduce_sum(std::span<double>(signalled));
    if (group_.leads()) {
      if (signalled[0] > 0) line_.stopping(tally());
      all_ended[0] = line_.ended() ? 1 : 0;
    }
    comm_.all_reduce_sum(std::span<double>(all_ended));
    if (all_ended[0] > 0) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

std::vector<std::int64_t> Worker::next_probes() {
  std::string text;
  if (group_.leads())
    for (const std::int64_t probe : line_.next(lock_step_, tally())) text += std::to_string(probe) + ' ';
  std::istringstream numbers(from_rank0(comm_, text));
  std::vector<std::int64_t> probes;
  for (std::int64_t probe = 0; numbers >> probe;) probes.push_back(probe);
  return probes;
}

std::unique_ptr<Lanczos> Worker::start(std::int64_t probe) {
  const LanczosOptions& lanczos = work_.probe.lanczos;
  const auto warn = [&](const std::string& text) { line_.warn(text); };
  if (auto run = checkpoint_.resume(op_, probe, lanczos, warn)) {
    if (group_.leads())
      line_.say("probe " + std::to_string(probe) + " goes on after " + std::to_string(run->replay_left()) + " steps");
    return run;
  }
  const at::Tensor vector =
      probe_vector(op_, work_.probe.distribution, work_.probe.seed, static_cast<std::uint64_t>(probe));
  return std::make_unique<Lanczos>(op_, vector, lanczos);
}

void Worker::work_on(const std::vector<std::int64_t>& probes) {
  for (const std::int64_t probe : probes) {
    active_.emplace_back();
    active_.back().probe = probe;
    active_.back().run = start(probe);
  }
  // `eigs` asks for eigenvalues alone: how far its one probe goes is theirs to say.
  if (work_.command != "eigs") {
    std::vector<Lanczos*> runs;
    for (const Active& one : active_) runs.push_back(one.run.get());
    extend_together(op_, runs, work_.probe.steps, [this] { between_products(); });
  }
  // The one that goes on to the eigenvalues comes last: the others need not wait for it, nor hold their memory.
  std::stable_sort(active_.begin(), active_.end(), [&](const Active& a, const Active& b) {
    return (work_.eigenvalues && a.probe == 0) < (work_.eigenvalues && b.probe == 0);
  });
  while (!active_.empty()) {
    finish(active_.front());
    active_.erase(active_.begin());
  }
}

void Worker::finish(Active& active) {
  Lanczos& run = *active.run;
  FinishedProbe done;
  const bool eigenvalues_here = work_.eigenvalues && active.probe == 0;
  const auto look = [&] {
    done.quadrature = quadrature_of(run, active.probe);
    const bool measure =
        active.probe == 0 && run.steps() > 1 && run.options().reorthogonalisation == Reorthogonalisation::kFull;
    done.quadrature.orthogonality_loss = measure ? run.orthogonality_loss() : kNaN;
  };
  if (work_.command != "eigs") look();
  if (eigenvalues_here)
    done.eigenvalues = eigenvalues(op_, run, work_.eigen, [this](const Lanczos&) { between_products(); });
  if (work_.command == "eigs") look();
  if (group_.leads()) line_.finished(done, tally());
  checkpoint_.forget(active.probe);
}

/// After each product: tells the dealer, hears whether to stop, writes checkpoints. Collective over the group.
void Worker::between_products() {
  double flags[2] = {signal_.received() ? 1.0 : 0.0, 0.0};  // stop, write
  if (group_.leads()) {
    if (clock_.stop_after_s > 0 && clock_.since_start.elapsed_s() > clock_.stop_after_s) flags[0] = 1;
    if (clock_.checkpoint_every_s > 0 && since_checkpoint_.elapsed_s() > clock_.checkpoint_every_s) flags[1] = 1;
    if (since_report_.elapsed_s() > kReportEvery_s) {
      if (line_.progress(tally())) flags[0] = 1;
      since_report_.reset();
    }
  }
  comm_.all_reduce_sum(std::span<double>(flags));
  const bool stop = flags[0] > 0;
  if (!stop && flags[1] == 0) return;
  try {
    for (const Active& one : active_) checkpoint_.save(one.probe, *one.run);
    if (group_.leads()) line_.checkpointed(tally());
    warned_ = false;
  } catch (const InputError& error) {
    if (stop) throw InputError(std::string(error.what()) + "; the checkpoint before is as it was");
    if (group_.leads() && !warned_) line_.warn(std::string("no checkpoint: ") + error.what());
    warned_ = true;
  }
  since_checkpoint_.reset();
  if (stop) throw Stopped{};
}

}  // namespace hesspect
