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
constexpr double kWriteEvery_s = 1;

}  // namespace

Dealer::Dealer(RunState state, std::deque<std::int64_t> probes, CheckpointFolder& folder, const SourceHashing& hashing,
               const Timer& since_start, std::string label, std::int64_t expected, int groups)
    : state_(std::move(state)),
      left_(std::move(probes)),
      folder_(folder),
      hashing_(hashing),
      progress_(std::move(label), expected, state_.products),
      since_start_(since_start),
      tallies_(static_cast<std::size_t>(groups)),
      probes_(state_.finished.size() + left_.size()) {}

std::string Dealer::answer(int, const std::string& question) {
  try {
    return reply_to(question);
  } catch (...) {  // it may be the desk's thread that is here, from which nothing can be thrown
    if (!failure_) failure_ = current_failure();
    stop_ = true;
    return json::parse(question, nullptr, false).value("verb", "") == "next" ? "[]" : kStop;
  }
}

std::string Dealer::reply_to(const std::string& question) {
  const json q = json::parse(question);
  const std::string verb = q.at("verb");
  if (q.contains("tally")) tallies_.at(q.at("group")) = tally_from(q.at("tally"));
  json reply = json::array();
  if (verb == "next") {
    // No more than its share of the last ones, that no group goes without.
    const auto share = static_cast<std::int64_t>((left_.size() + tallies_.size() - 1) / tallies_.size());
    for (auto count = std::min(q.at("count").get<std::int64_t>(), share); count > 0 && !left_.empty() && !stop_;
         --count) {
      reply.push_back(left_.front());
      left_.pop_front();
    }
  } else if (verb == "finished") {
    state_.finished.push_back(finished_probe_from(q.at("probe")));
    written_.push_back(state_.finished.back().quadrature.probe);
    dirty_ = urgent_ = true;
  } else if (verb == "checkpointed") {
    dirty_ = true;
  } else if (verb == "symmetry") {
    state_.symmetry_error = q.at("error");
    state_.curvature_scale = q.at("scale");
    dirty_ = true;
  } else if (verb == "ended") {
    ended_.insert(q.at("group").get<int>());
  } else if (verb == "stopping") {
    stop_ = true;
  } else if (verb == "failed") {
    if (!failure_) failure_ = Failure{q.at("code"), q.at("message")};
    ended_.insert(q.at("group").get<int>());
    stop_ = true;
  } else if (verb == "say") {
    log_info(q.at("text").get<std::string>());
  } else if (verb == "warn") {
    log_warning(q.at("text").get<std::string>());
  }
  if (dirty_ && (urgent_ || since_written_.elapsed_s() > kWriteEvery_s)) {
    try {
      save();
    } catch (const InputError& error) {
      dirty_ = urgent_ = false;  // until something new is there to be written
      if (!warned_) log_warning(std::string("no checkpoint: ") + error.what());
      warned_ = true;
    }
  }
  progress_.update(products());
  if (verb == "next") return reply.dump();
  if (verb == "ended") return ended_.size() == tallies_.size() ? kStop : kGoOn;
  return stop_ ? kStop : kGoOn;
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

std::vector<std::int64_t> Line::next(std::int64_t count, const Tally& tally) {
  return json::parse(ask("next", {{"count", count}, {"tally", to_json(tally)}})).get<std::vector<std::int64_t>>();
}

bool Line::progress(const Tally& tally) { return ask("progress", {{"tally", to_json(tally)}}) == kStop; }

bool Line::finished(const FinishedProbe& probe, const Tally& tally) {
  return ask("finished", {{"probe", to_text(probe)}, {"tally", to_json(tally)}}) == kStop;
}

void Line::checkpointed(const Tally& tally) { ask("checkpointed", {{"tally", to_json(tally)}}); }

void Line::symmetry(double error, double curvature_scale) {
  ask("symmetry", {{"error", error}, {"scale", curvature_scale}});
}

bool Line::ended() { return ask("ended", json::object()) == kStop; }

void Line::stopping(const Tally& tally) { ask("stopping", {{"tally", to_json(tally)}}); }

void Line::failed(const Failure& failure) {
  ask("failed", {{"code", failure.exit_code}, {"message", failure.message}});
}

void Line::say(const std::string& text) { ask("say", {{"text", text}}); }

void Line::warn(const std::string& text) { ask("warn", {{"text", text}}); }

}  // namespace hesspect
