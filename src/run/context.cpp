#include "context.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/run/solver_options.h"
#include "hesspect/run/write_vectors.h"
#include "hesspect/spectrum/probe.h"

namespace hesspect {
namespace {

constexpr double kReportEvery_s = 0.2;

}  // namespace

Context::Context(const WorkContext& work, Desk& desk)
    : goals(work.goals),
      plan(work.plan),
      op(*work.group.op),
      comm(*work.group.comm),
      checkpoint(work.folder, work.run_id, *work.group.comm),
      layers(work.goals.trace && work.goals.trace->layers ? work.parameters.offsets : LayerOffsets{}),
      start_vectors(work.start_vectors),
      phases(work.phases),
      work_(work),
      desk_(desk) {}

Tally Context::tally() const {
  const HessianStats& stats = op.stats();
  return {stats.products, stats.product_s, stats.communication_s, block_products};
}

bool Context::report(Report report) {
  if (!leads()) return false;
  return reply_from(desk_.ask(to_text(Message{work_.group.number, tally(), std::move(report)}))).stop;
}

Task Context::next_task() {
  Reply reply;
  if (leads()) reply = reply_from(desk_.ask(to_text(Message{work_.group.number, tally(), AskForTask{}})));
  reply = reply_from(comm.broadcast_bytes(to_text(reply)));
  if (!reply.stop) return reply.task;
  write_checkpoint(/*stop=*/true);
  throw Stopped{};
}

void Context::between_products() {
  bool stop = work_.signal.received(), write = false;
  if (leads()) {
    const WorkClock& clock = work_.clock;
    stop = stop || (clock.stop_after_s > 0 && clock.since_start.elapsed_s() > clock.stop_after_s);
    write = clock.checkpoint_every_s > 0 && since_checkpoint_.elapsed_s() > clock.checkpoint_every_s;
    if (since_report_.elapsed_s() > kReportEvery_s) {
      stop = report(StillAtWork{}) || stop;
      since_report_.reset();
    }
  }
  const bool hashed = !has_told_digests_ && work_.hashing.is_done();
  const std::vector<double> flags = comm.sum({stop ? 1.0 : 0.0, write ? 1.0 : 0.0, hashed ? 1.0 : 0.0});
  stop = flags[0] > 0;
  if (flags[2] == comm.size()) {
    report(Hashed{work_.hashing.of_group(comm)});
    has_told_digests_ = true;
  }
  if (!stop && flags[1] == 0) return;
  write_checkpoint(stop);
  if (stop) throw Stopped{};
}

void Context::write_checkpoint(bool stop) {
  const PhaseTimer timer(phases, Phase::kFiles, "checkpoint");
  try {
    if (deflation) checkpoint.save(0, *deflation->run, op.shard());
    for (const ActiveRun& one : active) checkpoint.save(one.probe, *one.run, op.shard());
    report(Checkpointed{});
    warned_ = false;
  } catch (const InputError& error) {
    if (stop) throw InputError(std::string(error.what()) + "; the checkpoint before is as it was");
    if (!warned_) say(std::string("no checkpoint: ") + error.what(), /*warning=*/true);
    warned_ = true;
  }
  since_checkpoint_.reset();
}

at::Tensor Context::probe(std::int64_t number) const {
  return probe_vector(op, goals.distribution, goals.seed, static_cast<std::uint64_t>(number));
}

LanczosOptions Context::lanczos_options() const { return hesspect::lanczos_options(goals, plan); }
EigenOptions Context::eigen_options() const { return hesspect::eigen_options(goals, plan); }

void Context::write_vectors(const std::string& path, VectorsInfo info,
                            std::span<const std::optional<std::size_t>> which, const VectorSource& vectors) const {
  const PhaseTimer timer(phases, Phase::kFiles, "vectors");
  info.parts = work_.parameters.tensors;
  info.run_id = work_.run_id;
  hesspect::write_vectors(op, path, std::move(info), which, vectors);
}

}  // namespace hesspect
