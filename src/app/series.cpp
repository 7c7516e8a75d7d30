#include "series.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <thread>

#include "build_info.h"
#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"
#include "hesspect/core/safetensors.h"
#include "hesspect/core/text.h"
#include "hesspect/core/timer.h"
#include "hesspect/io/fields.h"
#include "hesspect/io/result_file.h"
#include "hesspect/run/products_kept.h"
#include "hesspect/series/series_book.h"
#include "hesspect/spectrum/cumulative.h"
#include "hesspect/spectrum/probe.h"
#include "hesspect/watch/shown.h"
#include "one_run.h"
#include "resident.h"
#include "run_metrics.h"
#include "spectrum.h"

namespace hesspect {

// In this namespace, where FieldWriter finds it.
static constexpr SeriesStep::Kind kStepKinds[] = {SeriesStep::Kind::kTake, SeriesStep::Kind::kWait,
                                                  SeriesStep::Kind::kEnd};
static std::string to_string(SeriesStep::Kind kind) {
  return kind == SeriesStep::Kind::kTake ? "take" : kind == SeriesStep::Kind::kWait ? "wait" : "end";
}
static void fields(auto& v, Is<SeriesStep> auto& step) {
  v.choice("kind", step.kind, std::span<const SeriesStep::Kind>(kStepKinds));
  v("checkpoint", step.checkpoint, "name", step.name, "result", step.result, "resumes", step.resumes, "anew", step.anew,
    "last", step.last, "number", step.number, "known", step.known);
}

namespace {

/// Between looks of waiting ranks at whether to go on: all sleep meanwhile, for a rank that waits in a message takes a
/// whole core from the training.
constexpr double kNap_s = 0.25;

constexpr int kResubmit = static_cast<int>(ExitCode::kResubmit);

/// How a checkpoint's run has ended.
struct Ended {
  int code = 0;
  std::optional<std::string> error;  // of rank 0
};

/// What a run takes over from the one of the checkpoint before.
struct Beginning {
  std::string vectors;     // file of eigenvectors; "": it begins afresh
  std::int64_t steps = 0;  // of its Lanczos runs, at least; 0: as configured
};

/// Eigenvectors of a result, for the next checkpoint's run; those of earlier ones are removed.
std::string vectors_of(const std::string& result) { return result + ".vectors.safetensors"; }

/// The fewest steps by which the last run's first probe would have met its density's bound, and a few more: as many a
/// nearby spectrum may be expected to take. 0: more than the configuration asks for anyway.
std::int64_t first_guess(const RunResult& last, const RunConfig& config) {
  constexpr std::int64_t kFewest = 16, kStride = 4;
  if (config.accuracy.density_w1 <= 0 || last.quadrature.empty()) return 0;
  const ProbeQuadrature& probe = last.quadrature.front();
  const std::int64_t n = last.diagnostics.parameters_in_use;
  for (std::int64_t q = kFewest; q < std::min(std::ssize(probe.alpha), config.quadrature.steps); q += kStride) {
    Tridiagonal t;
    t.n = n;
    t.start_norm_sq = probe.norm_sq;
    for (std::int64_t i = 0; i < q; ++i) {
      const auto at = static_cast<std::size_t>(i);
      t.add_step(probe.alpha[at], probe.beta[at], std::hypot(probe.alpha[at], probe.beta[at]), false);
    }
    const ProbeQuadrature some = quadrature_of(t, 0);
    const double width = some.ritz.back() - some.ritz.front();
    if (quadrature_w1(some, n) <= config.accuracy.density_w1 / 2 * width) return q + kStride;
  }
  return 0;
}

/// Mean squared cosine between the spaces of the first `count` vectors of two files: 1 where they are the same, count /
/// n of random ones.
double overlap_of(const std::string& before, const std::string& now, std::int64_t count) {
  const SafetensorsFile a(before), b(now);
  at::Tensor cosines = at::zeros({count, count}, at::kDouble);
  const auto first_of = [&](const SafetensorsEntry& entry) {
    const at::Tensor rows = at::empty(entry.shape, entry.type == ElementType::kF64 ? at::kDouble : at::kFloat);
    std::memcpy(rows.data_ptr(), entry.data, rows.nbytes());
    return rows.narrow(0, 0, count).reshape({count, -1}).to(at::kDouble);
  };
  for (const SafetensorsEntry& entry : a.entries()) {
    const SafetensorsEntry* const same = b.find(entry.name);
    if (same == nullptr || same->shape != entry.shape || entry.shape.empty() || entry.shape[0] < count)
      return SeriesRow::kNotKnown;
    cosines += at::matmul(first_of(entry), first_of(*same).t());
  }
  return cosines.square().sum().item<double>() / static_cast<double>(count);
}

class SeriesRun {
 public:
  SeriesRun(const Invocation& run, const std::vector<std::string>& argv, const StopSignal& signal, Communicator& world)
      : run_(run), argv_(argv), signal_(signal), world_(world) {}

  int go() {
    agree(world_, [&] {
      if (!first()) return;
      book_ = std::make_unique<SeriesBook>(run_.config, build_info().version, [](const std::string& result) {
        return products_kept(CheckpointFolder(result + ".checkpoint"));
      });
      const WatchConfig& watch = run_.config.series.watch;
      if (!watch.metrics_file.empty() || watch.metrics_port > 0) shown_ = std::make_unique<Shown>(watch);
    });
    for (;;) {
      if (is_to_stop()) return stopped();
      const SeriesStep step = next();
      if (step.kind == SeriesStep::Kind::kEnd) break;
      if (step.kind == SeriesStep::Kind::kWait) {
        wait();
        continue;
      }
      if (take(step) == kResubmit) return stopped();
    }
    if (first()) log_info("the series has ended: " + book_->summary() + "; " + quote(run_.config.output.output));
    return world_.of_rank0(first() ? book_->exit_code() : 0);
  }

 private:
  bool first() const { return world_.rank() == 0; }

  /// Rank 0's, for those who look from outside.
  void show() {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    if (shown_) set_series_metrics(shown_->metrics(), book_->ledger(), std::chrono::duration<double>(now).count());
  }

  double hours_left() const { return run_.config.checkpoint.max_hours - timer_.elapsed_s() / 3600; }

  bool is_to_stop() {
    return world_.any(signal_.received() || (run_.config.checkpoint.max_hours > 0 && hours_left() <= 0));
  }

  int stopped() {
    if (first())
      log_info("stopped: " + book_->summary() + "; the same command goes on from " +
               quote(run_.config.output.output + ".ledger.json"));
    return kResubmit;
  }

  SeriesStep next() {
    std::string text;
    agree(world_, [&] {
      if (!first()) return;
      text = FieldWriter::text(book_->next());
      show();
    });
    return FieldReader::from<SeriesStep>(world_.broadcast_bytes(text), "step of a series");
  }

  void wait() {
    if (first())
      book_->wait(kNap_s);
    else
      std::this_thread::sleep_for(std::chrono::duration<double>(kNap_s));
  }

  bool wants_vectors() const {
    const EigsConfig& eigs = run_.config.eigs;
    return run_.config.series.warm && eigs.top + eigs.bottom + eigs.magnitude > 0 &&
           eigs.method == EigenMethod::kLanczos && run_.config.quadrature.reorthogonalize;
  }

  /// What the run of a checkpoint begins with. Collective.
  Beginning beginning_of(const SeriesStep& step) {
    Beginning begin;
    std::string vectors;
    std::int64_t steps = 0;
    agree(world_, [&] {
      if (!first() || step.last.empty() || !wants_vectors()) return;
      std::error_code error;
      if (!std::filesystem::exists(vectors_of(step.last), error)) return;
      vectors = vectors_of(step.last);
      // Steps that the user has asked for are taken in any case.
      RunConfig usual;
      usual.preset = run_.config.preset;
      apply_preset(usual);
      if (run_.config.quadrature.steps == usual.quadrature.steps)
        steps = first_guess(read_result(step.last), run_.config);
    });
    begin.vectors = world_.broadcast_bytes(vectors);
    begin.steps = world_.of_rank0(steps);
    return begin;
  }

  Invocation run_of(const SeriesStep& step, const Beginning& begin) const {
    Invocation one = run_;
    one.command = Command::kAnalyze;
    RunConfig& config = one.config;
    config.model.weights.push_back(step.checkpoint);
    config.output.output = step.result;
    config.output.force = true;  // of a checkpoint that is taken again
    if (wants_vectors()) config.eigs.eigenvectors = vectors_of(step.result);
    if (begin.steps > 0) config.quadrature.steps = begin.steps;
    config.checkpoint.resume = !step.anew;
    if (config.checkpoint.max_hours > 0) config.checkpoint.max_hours = std::max(hours_left(), 1e-9);
    config.series = {};
    return one;
  }

  /// A run whose failure is that checkpoint's own.
  Ended contained(const Invocation& one, const std::string& start_vectors) {
    const RunEnd end = run_contained(world_, [&](Communicator& world) {
      return run_spectrum(one, argv_, signal_, world, &resident_, start_vectors);
    });
    if (shown_) set_resident_bytes(shown_->metrics(), end.resident_bytes);
    if (end.line.empty()) return {end.exit_code, std::nullopt};
    resident_ = {};  // a rank that failed may hold something else than the others
    return {end.exit_code, end.line};
  }

  /// Rank 0's.
  double overlap(const SeriesStep& step) const {
    std::error_code error;
    if (!wants_vectors() || step.last.empty() || !std::filesystem::exists(vectors_of(step.last), error) ||
        !std::filesystem::exists(vectors_of(step.result), error))
      return SeriesRow::kNotKnown;
    const EigsConfig& eigs = run_.config.eigs;
    const std::int64_t count = std::max(eigs.top, eigs.magnitude);
    return count > 0 ? overlap_of(vectors_of(step.last), vectors_of(step.result), count) : SeriesRow::kNotKnown;
  }

  /// @return the run's exit code
  int take(const SeriesStep& step) {
    if (first())
      log_info("checkpoint " + format_count(step.number) + " of " + format_count(step.known) + ": " + step.name +
               (step.resumes ? ", begun by an earlier start" : ""));
    Beginning begin = beginning_of(step);
    Ended ended = contained(run_of(step, begin), begin.vectors);
    std::int64_t products_before = 0;
    if (!ended.error && ended.code == static_cast<int>(ExitCode::kNotConverged) && !begin.vectors.empty()) {
      // What the last one has found may have been in the way: as a run of its own it has its full number of steps.
      bool again = false;
      agree(world_, [&] {
        if (!first()) return;
        const RunResult result = read_result(step.result);
        again = result.eigenvalues && !result.eigenvalues->converged;
        if (!again) return;
        products_before = result.diagnostics.products;
        std::filesystem::remove(step.result);
        log_info("not all eigenvalues of " + step.name + " have converged: it is taken afresh");
      });
      if (world_.of_rank0(again)) {
        begin = {};
        ended = contained(run_of(step, begin), begin.vectors);
      }
    }
    agree(world_, [&] {
      if (!first()) return;
      if (ended.error) {
        book_->failed(ended.code, *ended.error);
      } else if (ended.code == kResubmit) {
        book_->stopped();
      } else {
        book_->done(ended.code, begin.vectors.empty(), overlap(step), products_before);
        if (shown_) {
          const RunResult result = read_result(step.result);
          add_phase_seconds(shown_->metrics(), result);
          set_figures(shown_->metrics(), result);
        }
        std::error_code error;
        if (!step.last.empty() && step.last != step.result) std::filesystem::remove(vectors_of(step.last), error);
      }
    });
    // What is wrong with the command is wrong for all.
    if (ended.error && ended.code == static_cast<int>(ExitCode::kUsage)) throw UsageError(*ended.error);
    return ended.code;
  }

  const Invocation& run_;
  const std::vector<std::string>& argv_;
  const StopSignal& signal_;
  Communicator& world_;
  const Timer timer_;
  ResidentProblem resident_;
  std::unique_ptr<SeriesBook> book_;  // rank 0's, as is the next
  std::unique_ptr<Shown> shown_;      // nullptr: nobody asked
};

}  // namespace

int run_series(const Invocation& run, const std::vector<std::string>& argv, const StopSignal& signal,
               Communicator& world) {
  return SeriesRun(run, argv, signal, world).go();
}

}  // namespace hesspect
