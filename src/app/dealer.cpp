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

}  // namespace

Dealer::Dealer(RunState state, std::deque<std::int64_t> probes, CheckpointFolder& folder,
               std::shared_future<Sources> sources, std::string label, std::int64_t expected, int groups)
    : state_(std::move(state)),
      left_(std::move(probes)),
      folder_(folder),
      sources_(std::move(sources)),
      progress_(std::move(label), expected, state_.products),
      tallies_(static_cast<std::size_t>(groups)) {}

std::string Dealer::answer(int, const std::string& question) {
  const json q = json::parse(question);
  const std::string verb = q.at("verb");
  if (q.contains("tally")) tallies_.at(q.at("group")) = tally_from(q.at("tally"));
  json reply = json::array();
  if (verb == "next") {
    for (std::int64_t count = q.at("count"); count > 0 && !left_.empty() && !stop_; --count) {
      reply.push_back(left_.front());
      left_.pop_front();
    }
  } else if (verb == "finished") {
    state_.finished.push_back(finished_probe_from(q.at("probe")));
    written_.push_back(state_.finished.back().quadrature.probe);
    dirty_ = true;
  } else if (verb == "checkpointed") {
    dirty_ = true;
  } else if (verb == "symmetry") {
    state_.symmetry_error = q.at("error");
    state_.curvature_scale = q.at("scale");
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
  save(/*wait=*/false);
  progress_.update(state().products);
  if (verb == "next") return reply.dump();
  return stop_ ? kStop : kGoOn;
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

void Dealer::save(bool wait) {
  if (!wait && (!dirty_ || sources_.wait_for(std::chrono::seconds(0)) != std::future_status::ready)) return;
  const Sources& files = sources_.get();
  state_.model = files.model;
  state_.weights = files.weights;
  state_.data = files.data;
  try {
    folder_.write_run(state());
    dirty_ = false;
    for (const std::int64_t probe : written_) folder_.remove_probe(probe);
    written_.clear();
  } catch (const InputError& error) {
    if (wait) throw;
    dirty_ = false;  // until something new is there to be written
    if (!warned_) log_warning(std::string("no checkpoint: ") + error.what());
    warned_ = true;
  }
}

void Dealer::write_stopped() { save(/*wait=*/true); }

std::vector<std::int64_t> Line::next(std::int64_t count, const Tally& tally) {
  const json question{{"verb", "next"}, {"group", group_}, {"count", count}, {"tally", to_json(tally)}};
  return json::parse(desk_.ask(question.dump())).get<std::vector<std::int64_t>>();
}

bool Line::progress(const Tally& tally) {
  return desk_.ask(json{{"verb", "progress"}, {"group", group_}, {"tally", to_json(tally)}}.dump()) == kStop;
}

bool Line::finished(const FinishedProbe& probe, const Tally& tally) {
  const json question{{"verb", "finished"}, {"group", group_}, {"probe", to_text(probe)}, {"tally", to_json(tally)}};
  return desk_.ask(question.dump()) == kStop;
}

void Line::checkpointed(const Tally& tally) {
  desk_.ask(json{{"verb", "checkpointed"}, {"group", group_}, {"tally", to_json(tally)}}.dump());
}

void Line::symmetry(double error, double curvature_scale) {
  desk_.ask(json{{"verb", "symmetry"}, {"error", error}, {"scale", curvature_scale}}.dump());
}

void Line::stopping(const Tally& tally) {
  desk_.ask(json{{"verb", "stopping"}, {"group", group_}, {"tally", to_json(tally)}}.dump());
}

void Line::failed(const Failure& failure) {
  // A message of the system's may hold bytes that are no UTF-8, which JSON would refuse.
  const json question{{"verb", "failed"}, {"code", failure.exit_code}, {"message", failure.message}};
  desk_.ask(question.dump(-1, ' ', false, json::error_handler_t::replace));
}

void Line::say(const std::string& text) {
  desk_.ask(json{{"verb", "say"}, {"text", text}}.dump(-1, ' ', false, json::error_handler_t::replace));
}

void Line::warn(const std::string& text) {
  desk_.ask(json{{"verb", "warn"}, {"text", text}}.dump(-1, ' ', false, json::error_handler_t::replace));
}

}  // namespace hesspect
