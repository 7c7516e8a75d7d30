#include "dealer.h"

#include <algorithm>

#include "hesspect/core/errors.h"
#include "hesspect/core/overloaded.h"
#include "ledger_fields.h"

namespace hesspect {
namespace {

/// States are written at once for finished runs, else no more often, for groups may have their checkpoints all
/// together. Where checkpoints are asked for more often than that, states are too. A long state takes its time, and
/// groups wait meanwhile: no more than a twentieth of theirs.
constexpr double kWriteEvery_s = 1, kWritingShare = 20;

/// Until a run is so old it has no state: a short one would spend most of its time on states, and has little to lose.
constexpr double kYoung_s = 0.1;

}  // namespace

Dealer::Dealer(LedgerState state, const Goals& goals, const Plan& plan, CheckpointFolder& folder,
               SourceHashing& hashing, const Timer& since_start, double checkpoints_s)
    : ledger_(std::move(state), goals, plan.groups),
      schedule_(goals, plan),
      folder_(folder),
      hashing_(hashing),
      progress_(to_string(goals.command), ledger_.products() + ledger_.block_products()),
      since_start_(since_start),
      keeps_first_(goals.deflates()),
      write_every_s_(checkpoints_s > 0 ? std::min(kWriteEvery_s, checkpoints_s) : kWriteEvery_s) {}

std::string Dealer::answer(int, const std::string& question) {
  try {
    return to_text(reply_to(message_from(question)));
  } catch (...) {  // it may be the desk's thread that is here, from which nothing can be thrown
    if (!failure_) failure_ = current_failure();
    stop_ = true;
    return to_text(Reply{true, Wait{}});
  }
}

Reply Dealer::reply_to(Message message) {
  if (message.tally) ledger_.set_tally(message.group, *message.tally);
  take(message.report);
  const bool asks = std::holds_alternative<AskForTask>(message.report);
  Task task = Wait{};
  if (asks && !stop_) task = schedule_.next(ledger_, message.group);
  save_if_due();
  if (asks) {
    const ProductRange expected = schedule_.expected(ledger_);
    progress_.set_expected(expected.least, expected.most);
  }
  progress_.update(ledger_.products() + ledger_.block_products());
  if (schedule_.done(ledger_)) progress_.finish();
  return {stop_, std::move(task)};
}

void Dealer::take(Report& report) {
  const auto news = [this](bool urgent) {
    dirty_ = true;
    urgent_ = urgent_ || urgent;
  };
  std::visit(Overloaded{[](AskForTask&) {}, [](StillAtWork&) {},
                        [&](ProbeFinished& r) {
                          const std::int64_t probe = r.probe.quadrature.probe;
                          ledger_.add(std::move(r.probe));
                          if (probe != 0 || !keeps_first_) finished_.push_back(probe);
                          news(true);
                        },
                        [&](Sampled& r) {
                          ledger_.add(std::move(r.sample));
                          news(false);
                        },
                        [&](Corrected& r) {
                          for (DeflatedSample& sample : r.samples) ledger_.add(std::move(sample));
                          news(false);
                        },
                        [&](BasisReady& r) {
                          ledger_.set_deflation(std::move(r.deflation));
                          news(false);
                        },
                        [&](TraceEstimated& r) {
                          ledger_.set_trace(std::move(r.estimate));
                          news(true);
                        },
                        [&](EigenSolved& r) {
                          ledger_.set_eigenvalues(std::move(r.result));
                          news(true);
                        },
                        [&](BlockAnalysed& r) {
                          ledger_.add(std::move(r.block));
                          news(true);
                        },
                        [&](DiagonalWritten&) { ledger_.set_diagonal_written(); },
                        [&](SymmetryMeasured& r) {
                          ledger_.set_symmetry(r.error, r.curvature_scale);
                          news(false);
                        },
                        [&](Hashed& r) { hashing_.add(r.digests); }, [&](Checkpointed&) { news(false); },
                        [&](Stopping&) { stop_ = true; },
                        [&](GroupFailed& r) {
                          if (!failure_) failure_ = Failure{r.exit_code, r.message};
                          stop_ = true;
                        },
                        [](Said& r) { r.warning ? log_warning(r.text) : log_info(r.text); }},
             report);
}

void Dealer::save_if_due() {
  if (is_young() || !dirty_ || (!urgent_ && since_written_.elapsed_s() <= write_every_s_)) return;
  try {
    save();
  } catch (const InputError& error) {
    dirty_ = urgent_ = false;  // until something new is there to be written
    if (!warned_) log_warning(std::string("no checkpoint: ") + error.what());
    warned_ = true;
  }
}

void Dealer::save() {
  const Timer timer;
  know_sources();
  folder_.write_run(ledger_.state(since_start_.elapsed_s()));
  write_every_s_ = std::max(write_every_s_, kWritingShare * timer.elapsed_s());
  since_written_.reset();
  has_state_ = true;
  dirty_ = urgent_ = warned_ = false;
  for (const std::int64_t probe : finished_) folder_.remove_probe(probe);
  finished_.clear();
}

void Dealer::know_sources() {
  const Sources& files = hashing_.sources();
  ledger_.set_sources(files.model, files.weights, files.data);
}

bool Dealer::write_last() {
  know_sources();  // the result has them, too
  if (has_state_ || unfinished() || failure_ || !is_young()) save();
  return has_state_;
}

bool Dealer::is_young() const { return since_start_.elapsed_s() < kYoung_s; }

}  // namespace hesspect
