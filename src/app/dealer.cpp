#include "dealer.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "hesspect/core/errors.h"

namespace hesspect {
namespace {

using nlohmann::json;

json to_json(const Tally& t) { return {t.products, t.product_s, t.communication_s}; }
Tally tally_from(const json& j) { return {j.at(0), j.at(1), j.at(2)}; }

const std::string kGoOn = "go on", kStop = "stop";
/// States are written at once for finished probes, else no more often: groups may have their checkpoints all together.
/// Where checkpoints are asked for more often than that, states are too.
constexpr double kWriteEvery_s = 1;

}  // namespace

std::string to_text(const Assignment& assignment) {
  json samples = json::array();
  for (const TraceSample& sample : assignment.samples) samples.push_back(to_text(sample));
  return json{static_cast<int>(assignment.task.kind), assignment.task.probes, samples}.dump();
}

Assignment assignment_from(const std::string& text) {
  const json j = json::parse(text);
  Assignment assignment{{static_cast<Task::Kind>(j.at(0).get<int>()), j.at(1)}, {}};
  for (const json& sample : j.at(2)) assignment.samples.push_back(trace_sample_from(sample));
  return assignment;
}

Dealer::Dealer(RunState state, const Goals& goals, std::int64_t n, CheckpointFolder& folder,
               const SourceHashing& hashing, const Timer& since_start, int groups, double checkpoints_s)
    : state_(std::move(state)),
      schedule_(goals, n, groups),
      folder_(folder),
      hashing_(hashing),
      progress_(goals.command, schedule_.expected_products(state_), state_.products),
      since_start_(since_start),
      tallies_(static_cast<std::size_t>(groups)),
      deflates_(goals.trace == TraceMethod::kDeflated),
      write_every_s_(checkpoints_s > 0 ? std::min(kWriteEvery_s, checkpoints_s) : kWriteEvery_s) {}

std::string Dealer::answer(int, const std::string& question) {
  try {
    return reply_to(question);
  } catch (...) {  // it may be the desk's thread that is here, from which nothing can be thrown
    if (!failure_) failure_ = current_failure();
    stop_ = true;
    const bool asks = json::parse(question, nullptr, false).value("verb", "") == "next";
    return asks ? to_text(Assignment{{Task::Kind::kDone, {}}, {}}) : kStop;
  }
}

std::string Dealer::reply_to(const std::string& question) {
  const json q = json::parse(question);
  const std::string verb = q.at("verb");
  if (q.contains("tally")) tallies_.at(q.at("group")) = tally_from(q.at("tally"));
  take_in(verb, q);
  Assignment next;
  if (verb == "next") {
    const int group = q.at("group");
    next.task = stop_ ? Task{Task::Kind::kDone, {}} : schedule_.next(state_, group, q.at("together"));
    const Task& task = next.task;
    const bool first = std::ranges::find(task.probes, 0) != task.probes.end();
    for (const TraceSample& sample : state_.samples) {
      const std::int64_t trace_number = sample.probe - static_cast<std::int64_t>(kTraceProbes);
      if (std::ranges::find(task.probes, sample.probe) != task.probes.end() ||
          (first && trace_number >= 0 && trace_number < kSymmetryProbes))
        next.samples.push_back(sample);
    }
  }
  if (dirty_ && (urgent_ || since_written_.elapsed_s() > write_every_s_)) {
    try {
      save();
    } catch (const InputError& error) {
      dirty_ = urgent_ = false;  // until something new is there to be written
      if (!warned_) log_warning(std::string("no checkpoint: ") + error.what());
      warned_ = true;
    }
  }
  if (verb == "next") progress_.set_total(std::max(products(), schedule_.expected_products(state_)));
  progress_.update(products());
  if (verb == "next") return to_text(next);
  return stop_ ? kStop : kGoOn;
}

/// What a report brings in.
void Dealer::take_in(const std::string& verb, const json& q) {
  if (verb == "finished") {
    state_.finished.push_back(finished_probe_from(q.at("probe")));
    const std::int64_t probe = state_.finished.back().quadrature.probe;
    // Probe 0's vectors are what the trace's samples are corrected by, to the end.
    if (probe != 0 || !deflates_) written_.push_back(probe);
    dirty_ = urgent_ = true;
  } else if (verb == "sample") {
    TraceSample sample = trace_sample_from(q.at("sample"));
    std::erase_if(state_.samples, [&](const TraceSample& one) { return one.probe == sample.probe; });
    state_.samples.push_back(std::move(sample));
    dirty_ = true;
  } else if (verb == "deflated") {
    for (const json& text : q.at("samples")) state_.deflated.push_back(deflated_sample_from(text));
    dirty_ = true;
  } else if (verb == "deflation") {
    DeflationState now = deflation_state_from(q.at("state"));
    // Another space than an earlier start's, where its vectors were lost: samples are corrected by one space alone.
    if (state_.deflation && (now.rank != state_.deflation->rank || now.captured != state_.deflation->captured))
      state_.deflated.clear();
    state_.deflation = std::move(now);
    schedule_.deflation_is_there();
    dirty_ = true;
  } else if (verb == "trace") {
    state_.trace = trace_estimate_from(q.at("estimate"));
    dirty_ = urgent_ = true;
  } else if (verb == "eigenvalues") {
    state_.eigenvalues = eigen_result_from(q.at("result"));
    dirty_ = urgent_ = true;
  } else if (verb == "diagonal") {
    schedule_.diagonal_is_written();
  } else if (verb == "checkpointed") {
    dirty_ = true;
  } else if (verb == "symmetry") {
    state_.symmetry_error = q.at("error");
    state_.curvature_scale = q.at("scale");
    dirty_ = true;
  } else if (verb == "stopping") {
    stop_ = true;
  } else if (verb == "failed") {
    if (!failure_) failure_ = Failure{q.at("code"), q.at("message")};
    stop_ = true;
  } else if (verb == "say") {
    log_info(q.at("text").get<std::string>());
  } else if (verb == "warn") {
    log_warning(q.at("text").get<std::string>());
  }
}

std::int64_t Dealer::products() const {
  std::int64_t total = state_.products;
  for (const Tally& tally : tallies_) total += tally.products;
  return total;
}

RunState Dealer::state() const {
  RunState total = state_;
  for (const Tally& tally : tallies_) {
    total.products += tally.products;
    total.product_s += tally.product_s;
    total.communication_s += tally.communication_s;
  }
  total.elapsed_s += since_start_.elapsed_s();
  return total;
}

void Dealer::save() {
  const auto& digests = hashing_.sources();
  const bool hashed = digests.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  const Sources& files = hashed ? digests.get() : hashing_.unhashed();
  state_.model = files.model;
  state_.weights = files.weights;
  state_.data = files.data;
  folder_.write_run(state());
  since_written_.reset();
  dirty_ = urgent_ = warned_ = false;
  for (const std::int64_t probe : written_) folder_.remove_probe(probe);
  written_.clear();
}

void Dealer::write_last() {
  hashing_.sources().wait();
  save();
}

std::string Line::ask(const char* verb, json fields) {
  fields["verb"] = verb;
  fields["group"] = group_;
  // A message of the system's may hold bytes that are no UTF-8, which JSON would refuse.
  return desk_.ask(fields.dump(-1, ' ', false, json::error_handler_t::replace));
}

Assignment Line::next(std::int64_t together, const Tally& tally) {
  return assignment_from(ask("next", {{"together", together}, {"tally", to_json(tally)}}));
}

bool Line::progress(const Tally& tally) { return ask("progress", {{"tally", to_json(tally)}}) == kStop; }

bool Line::finished(const FinishedProbe& probe, const Tally& tally) {
  return ask("finished", {{"probe", to_text(probe)}, {"tally", to_json(tally)}}) == kStop;
}

void Line::checkpointed(const Tally& tally) { ask("checkpointed", {{"tally", to_json(tally)}}); }

void Line::symmetry(double error, double curvature_scale) {
  ask("symmetry", {{"error", error}, {"scale", curvature_scale}});
}

void Line::sample(const TraceSample& sample, const Tally& tally) {
  ask("sample", {{"sample", to_text(sample)}, {"tally", to_json(tally)}});
}

void Line::deflated(const std::vector<DeflatedSample>& samples) {
  json texts = json::array();
  for (const DeflatedSample& sample : samples) texts.push_back(to_text(sample));
  ask("deflated", {{"samples", texts}});
}

void Line::deflation(const DeflationState& state) { ask("deflation", {{"state", to_text(state)}}); }

void Line::trace(const TraceEstimate& estimate, const Tally& tally) {
  ask("trace", {{"estimate", to_text(estimate)}, {"tally", to_json(tally)}});
}

void Line::eigenvalues(const EigenResult& result, const Tally& tally) {
  ask("eigenvalues", {{"result", to_text(result)}, {"tally", to_json(tally)}});
}

void Line::diagonal_written() { ask("diagonal", json::object()); }

void Line::stopping(const Tally& tally) { ask("stopping", {{"tally", to_json(tally)}}); }

void Line::failed(const Failure& failure) {
  ask("failed", {{"code", failure.exit_code}, {"message", failure.message}});
}

void Line::say(const std::string& text) { ask("say", {{"text", text}}); }

void Line::warn(const std::string& text) { ask("warn", {{"text", text}}); }

}  // namespace hesspect
