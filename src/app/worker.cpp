#include "worker.h"

#include <ATen/ATen.h>

#include <chrono>
#include <cmath>
#include <thread>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/krylov/vector_math.h"
#include "summary.h"

namespace hesspect {
namespace {

/// Above this they are no rounding at all: the results would mean nothing.
constexpr double kGrossAsymmetry = 1e-3;
constexpr double kNoCurvature = 1e-6;  // in loss/parameter²
constexpr double kReportEvery_s = 0.2;

/// The group has stopped as it was asked to: unwinds the algorithms that were under way. No error.
struct Stopped {};

/// @param z, hz  two probes and their products
Symmetry symmetry_of(Communicator& comm, const at::Tensor (&z)[2], const at::Tensor (&hz)[2]) {
  double sums[6] = {norm_sq(z[0]),           norm_sq(z[1]), norm_sq(hz[0]), norm_sq(hz[1]), dot_product(z[0], hz[1]),
                    dot_product(z[1], hz[0])};
  comm.all_reduce_sum(sums);
  const double nu = std::sqrt(sums[0]), nv = std::sqrt(sums[1]);
  const double scale = nu * std::sqrt(sums[3]) + nv * std::sqrt(sums[2]);
  if (scale == 0) return {};
  return {std::abs(sums[4] - sums[5]) / scale, scale / (2 * nu * nv)};
}

}  // namespace

Worker::Worker(const Goals& goals, Group& group, Desk& desk, RunCheckpoint& checkpoint, const StopSignal& signal,
               const Clock& clock, int lock_step, Names names)
    : goals_(goals),
      group_(group),
      comm_(*group.comm),
      op_(*group.op),
      checkpoint_(checkpoint),
      signal_(signal),
      clock_(clock),
      line_(desk, group.number),
      lock_step_(lock_step),
      names_(std::move(names)) {}

Tally Worker::tally() const {
  const HessianStats& stats = op_.stats();
  return {stats.products, stats.product_s, stats.communication_s};
}

at::Tensor Worker::probe(std::int64_t number) const {
  return probe_vector(op_, goals_.probe.distribution, goals_.probe.seed, static_cast<std::uint64_t>(number));
}

void Worker::check_symmetry() {
  constexpr auto first = static_cast<std::int64_t>(kTraceProbes);
  const at::Tensor z[2] = {probe(first), probe(first + 1)};
  // One after the other: together they would take the room of two for good.
  at::Tensor hz[2] = {at::zeros_like(z[0]), at::zeros_like(z[1])};
  for (int i = 0; i < 2; ++i) op_.apply(z[i], hz[i]);
  const Symmetry symmetry = symmetry_of(comm_, z, hz);
  if (!std::isfinite(symmetry.error)) {
    for (const at::Tensor& vector : z) op_.explain_non_finite(vector);
    throw NumericalError(0, symmetry.error,
                         "a product with a random vector is not finite: weights or activations are too large");
  }
  // The same numbers on all ranks. Where there is next to no curvature, the products are rounding alone.
  if (symmetry.error > kGrossAsymmetry && symmetry.curvature_scale > kNoCurvature)
    throw InputError("products are not symmetric (relative error " + number(symmetry.error) +
                     "): an op of the model has a wrong second derivative, or the model is not deterministic");
  if (group_.leads()) line_.symmetry(symmetry.error, symmetry.curvature_scale);
  for (int i = 0; i < 2; ++i) {
    const TraceSample sample = trace_sample(op_, goals_.layers, first + i, z[i], hz[i]);
    if (group_.leads()) line_.sample(sample, tally());
  }
}

void Worker::run() {
  try {
    for (Assignment next = next_task(); next.task.kind != Task::Kind::kDone; next = next_task()) work_on(next);
  } catch (const Stopped&) {
    active_.clear();
    if (group_.leads()) line_.stopping(tally());
  }
}

Assignment Worker::next_task() {
  std::string text;
  if (group_.leads()) text = to_text(line_.next(lock_step_, tally()));
  return assignment_from(comm_.broadcast_bytes(text));
}

void Worker::work_on(const Assignment& assignment) {
  try {
    perform(assignment);
  } catch (const NumericalError&) {  // of numbers that came out of a collective: every rank of the group is here
    op_.explain_non_finite(probe(static_cast<std::int64_t>(kTraceProbes)));
    throw;
  }
}

void Worker::perform(const Assignment& assignment) {
  switch (assignment.task.kind) {
    case Task::Kind::kWait: return wait();
    case Task::Kind::kLanczos: return lanczos(assignment);
    case Task::Kind::kTrace: return trace_products(assignment.task.probes);
    case Task::Kind::kRebuild: return rebuild(assignment);
    case Task::Kind::kCorrect: return correct(assignment.samples);
    case Task::Kind::kEigenvalues: return own_eigenvalues();
    case Task::Kind::kOwnTrace: return own_trace();
    case Task::Kind::kDiagonal: return write_diagonal();
    case Task::Kind::kDone: return;
  }
}

/// Other groups are at work, and their results may bring something to do; a signal may come meanwhile.
void Worker::wait() {
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  between_products();
}

/// Before or after each product: tells the dealer, hears whether to stop, writes checkpoints. Collective over the
/// group.
void Worker::between_products() {
  enum Request : std::int64_t { kGoOn, kWrite, kStop };
  Request mine = kGoOn;
  if (group_.leads()) {
    if (clock_.checkpoint_every_s > 0 && since_checkpoint_.elapsed_s() > clock_.checkpoint_every_s) mine = kWrite;
    if (clock_.stop_after_s > 0 && clock_.since_start.elapsed_s() > clock_.stop_after_s) mine = kStop;
    if (since_report_.elapsed_s() > kReportEvery_s) {
      if (line_.progress(tally())) mine = kStop;
      since_report_.reset();
    }
  }
  if (signal_.received()) mine = kStop;
  const std::int64_t request = comm_.max(mine);
  if (request == kGoOn) return;
  const bool stop = request == kStop;
  try {
    if (deflating_) checkpoint_.save(0, *deflating_);
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

/// A vector whole, on the group's first rank; empty elsewhere. Collective over the group.
at::Tensor Worker::gathered(const at::Tensor& local) const {
  at::Tensor full = agreed(comm_, [&] { return at::empty({op_.shard().padded()}, local.options()); });
  comm_.all_gather(local, full);
  return group_.leads() ? full.narrow(0, 0, op_.shard().n).cpu() : at::Tensor();
}

/// Writes vectors [chunk] each under the parameters' names, made one at a time. Collective over the group.
void Worker::write_vectors(const std::string& path, VectorsInfo info, std::size_t count,
                           const VectorSource& vectors) const {
  std::unique_ptr<VectorsFile> file;
  info.parts = names_.parts;
  info.run_id = names_.run_id;
  agree(comm_, [&] {
    if (group_.leads()) file = std::make_unique<VectorsFile>(path, info);
  });
  for (std::size_t i = 0; i < count; ++i) {
    const at::Tensor whole = gathered(vectors(i));
    agree(comm_, [&] {
      if (!file) return;
      const auto entries = static_cast<std::size_t>(whole.numel());
      const auto at = static_cast<std::int64_t>(i);
      if (whole.scalar_type() == at::kFloat)
        file->write(at, std::span(whole.const_data_ptr<float>(), entries));
      else
        file->write(at, std::span(whole.const_data_ptr<double>(), entries));
    });
  }
  agree(comm_, [&] {
    if (file) file->commit();
  });
}

}  // namespace hesspect
