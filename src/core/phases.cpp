#include "hesspect/core/phases.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

namespace hesspect {
namespace {

/// Ops fill a timeline quickly; phases are few, and go on being recorded after that.
constexpr std::size_t kMostEvents = 200'000;
constexpr std::size_t kMostOps = 180'000;

struct Label {
  const char* name;
  const char* description;
};

/// In the enum's order.
constexpr std::array<Label, kPhases> kLabels = {
    {{"start", "Wall time before the first product: checks, trials, plan, first gradient"},
     {"files", "Wall time in files, read and written"},
     {"collectives", "Wall time in messages between a group's ranks, waiting for the slowest included"},
     {"krylov", "Wall time on vectors between products: Lanczos, small matrices, random vectors"},
     {"values", "Wall time of products in values, made again where they are not kept"},
     {"tangents", "Wall time of products in tangents"},
     {"adjoints", "Wall time of products in adjoints, made again where they are not kept"},
     {"adjoint_tangents", "Wall time of products in the tangents of adjoints"},
     {"products", "Wall time of products beside their sweeps: all of it by autograd; on a GPU waiting for it too"}}};

const Label& label_of(Phase phase) { return kLabels[static_cast<std::size_t>(phase)]; }

double microseconds(Timeline::Clock::duration time) { return std::chrono::duration<double, std::micro>(time).count(); }

}  // namespace

std::string name_of(Phase phase) { return label_of(phase).name; }
std::string description_of(Phase phase) { return label_of(phase).description; }

std::array<Phase, kPhases> all_phases() {
  std::array<Phase, kPhases> all{};
  for (std::size_t i = 0; i < kPhases; ++i) all[i] = static_cast<Phase>(i);
  return all;
}

double PhaseSeconds::total() const { return std::accumulate(of.begin(), of.end(), 0.0); }

void Timeline::add(const std::string& name, const std::string& kind, Clock::time_point begin, Clock::time_point end) {
  if (events_.size() >= (kind == "phase" ? kMostEvents : kMostOps)) {
    ++left_out_;
    return;
  }
  events_.push_back({name, kind, microseconds(begin - start_), microseconds(end - begin)});
}

std::string Timeline::as_json() const {
  std::string text = "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n";
  text += R"({"name": "process_name", "ph": "M", "pid": 0, "args": {"name": "hesspect, rank 0"}})";
  for (const Event& e : events_)
    text += fmt::format(R"(,{}{{"name": {}, "cat": {}, "ph": "X", "pid": 0, "tid": 0, "ts": {:.3f}, "dur": {:.3f}}})",
                        '\n', nlohmann::json(e.name).dump(), nlohmann::json(e.kind).dump(), e.begin_us, e.duration_us);
  text += "\n]";
  if (left_out_ > 0) text += fmt::format(", \"note\": \"{} later events are left out\"", left_out_);
  return text + "}\n";
}

PhaseSeconds Phases::seconds() {
  change(now_);
  return seconds_;
}

void Phases::move(Phase from, Phase to, double seconds) {
  seconds_[from] -= seconds;
  seconds_[to] += seconds;
}

Phase Phases::change(Phase to) {
  const auto now = Timeline::Clock::now();
  seconds_[now_] += std::chrono::duration<double>(now - since_).count();
  since_ = now;
  return std::exchange(now_, to);
}

PhaseTimer::PhaseTimer(Phases* phases, Phase phase, const char* name) : phases_(phases), name_(name), phase_(phase) {
  if (phases_ == nullptr) return;
  outer_ = phases_->change(phase);
  begin_ = phases_->since_;
}

PhaseTimer::~PhaseTimer() {
  if (phases_ == nullptr) return;
  phases_->change(outer_);
  if (Timeline* timeline = phases_->timeline())
    timeline->add(*name_ != '\0' ? name_ : name_of(phase_), "phase", begin_, phases_->since_);
}

}  // namespace hesspect
