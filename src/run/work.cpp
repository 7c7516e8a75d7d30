// The order in which a run's parts stand and fall is right for this reason: every group's ranks leave their last task
// together, in order or with an error that all of the group share; then all ranks meet at a barrier, after which nobody
// asks the desk any more, so that rank 0 may close it. Only an error of one rank alone does not come to the barrier: it
// goes up to `main`, which ends the job.
#include "hesspect/run/work.h"

#include <chrono>
#include <thread>

#include "context.h"
#include "dealer.h"
#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/probe_numbers.h"

namespace hesspect {
namespace {

/// Collective over the group.
void carry_out(Context& context, const Task& task) {
  try {
    std::visit([&](const auto& one) { perform(context, one); }, task);
  } catch (const NumericalError&) {  // of numbers that came out of a collective: every rank of the group is here
    context.op.explain_non_finite(context.probe(trace_probe(0)));
    throw;
  }
}

/// @param unchecked  no earlier start has checked that products are symmetric
void work_in_group(Context& context, bool unchecked) {
  try {
    if (unchecked) check_symmetry(context);
    while (true) {
      const Task task = context.next_task();
      if (std::holds_alternative<Done>(task)) return;
      carry_out(context, task);
    }
  } catch (const Stopped&) {
    context.active.clear();
    context.report(Stopping{});
  }
}

bool is_checked(const LedgerState& state) {
  std::int64_t samples = 0;
  for (const TraceSample& sample : state.samples)
    for (std::int64_t i = 0; i < kSymmetryProbes; ++i) samples += sample.probe == trace_probe(i);
  return state.curvature_scale > 0 && samples == kSymmetryProbes;
}

/// The last state, and what went wrong. Rank 0. @return whether there is a state
bool end(Dealer& dealer) {
  dealer.finish_progress();
  bool is_saved = false;
  try {
    is_saved = dealer.write_last();
  } catch (const InputError& error) {
    if (dealer.unfinished() && !dealer.failure())
      throw InputError(std::string(error.what()) + "; the checkpoint before is as it was");
    log_warning(std::string("no checkpoint: ") + error.what());
  }
  if (dealer.failure()) throw Error(static_cast<ExitCode>(dealer.failure()->exit_code), dealer.failure()->message);
  return is_saved;
}

}  // namespace

void perform(Context&, const Done&) {}

/// Other groups are at work, and their results may bring something to do; a signal may come meanwhile.
void perform(Context& context, const Wait&) {
  const PhaseTimer timer(context.phases, Phase::kCollectives, "nothing to do yet");
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  context.between_products();
}

WorkDone work(const WorkContext& run, LedgerState state, Communicator& world) {
  const bool first = world.rank() == 0;
  const bool unchecked = world.any(first && !is_checked(state)) && run.group.number == 0;
  std::unique_ptr<Dealer> dealer;
  agree(world, [&] {
    if (first)
      dealer = std::make_unique<Dealer>(std::move(state), run.goals, run.plan, run.folder, run.hashing,
                                        run.clock.since_start, run.clock.checkpoint_every_s);
  });
  {
    Desk desk(world, [&](int rank, const std::string& question) { return dealer->answer(rank, question); });
    Context context(run, desk);
    FailureMeeting meeting(run.group.number);
    try {
      work_in_group(context, unchecked);
    } catch (...) {
      // An error that the whole group shares stops the other groups at their next product, with a checkpoint.
      Failure failure = current_failure();
      if (!meeting.all_failed(failure.exit_code, kMeetAtMost_s)) throw;
      context.report(GroupFailed{failure.exit_code, failure.message});
    }
    world.barrier();  // nobody asks any more
  }
  run.hashing.gather(world);  // the last state has the digests
  WorkDone done;
  agree(world, [&] {
    if (first) done.is_saved = end(*dealer);
  });
  done.stopped = world.any(first && dealer->unfinished());
  if (first) done.ledger = std::make_unique<Ledger>(dealer->take_ledger());
  return done;
}

}  // namespace hesspect
