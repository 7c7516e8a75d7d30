#include "hesspect/service/job_info.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"

namespace hesspect {
namespace {

using nlohmann::json;

json number(double value) { return std::isfinite(value) ? json(value) : json(nullptr); }

JobState state_from(const std::string& name) {
  for (const JobState state :
       {JobState::kQueued, JobState::kRunning, JobState::kDone, JobState::kFailed, JobState::kCancelled})
    if (to_string(state) == name) return state;
  throw InputError("a job has no state " + quote(name));
}

}  // namespace

std::string to_string(JobState state) {
  switch (state) {
    case JobState::kQueued: return "queued";
    case JobState::kRunning: return "running";
    case JobState::kDone: return "done";
    case JobState::kFailed: return "failed";
    case JobState::kCancelled: return "cancelled";
  }
  return "unknown";
}

std::string to_json(const JobInfo& job) {
  const json all = {{"id", job.id},
                    {"name", job.name},
                    {"command", job.command},
                    {"state", to_string(job.state)},
                    {"priority", job.priority},
                    {"submitted", job.submitted},
                    {"started", job.started},
                    {"ended", job.ended},
                    {"starts", job.starts},
                    {"exit_code", job.exit_code},
                    {"line", job.line},
                    {"output", job.output},
                    {"service", job.service},
                    {"seconds", job.seconds},
                    {"products", job.products},
                    {"lambda1", number(job.lambda1)},
                    {"trace", number(job.trace)}};
  return all.dump(-1, ' ', false, json::error_handler_t::replace);
}

JobInfo job_info_from_json(const std::string& text) {
  JobInfo job;
  try {
    const json all = json::parse(text);
    const auto real = [&](const char* name) {
      const json& value = all.at(name);
      return value.is_null() ? JobInfo::kUnknown : value.get<double>();
    };
    job.id = all.at("id").get<std::string>();
    job.name = all.at("name").get<std::string>();
    job.command = all.at("command").get<std::string>();
    job.state = state_from(all.at("state").get<std::string>());
    job.priority = all.at("priority").get<std::int64_t>();
    job.submitted = all.at("submitted").get<double>();
    job.started = all.at("started").get<double>();
    job.ended = all.at("ended").get<double>();
    job.starts = all.at("starts").get<std::int64_t>();
    job.exit_code = all.at("exit_code").get<int>();
    job.line = all.at("line").get<std::string>();
    job.output = all.at("output").get<std::string>();
    job.service = all.at("service").get<std::string>();
    job.seconds = all.at("seconds").get<double>();
    job.products = all.at("products").get<std::int64_t>();
    job.lambda1 = real("lambda1");
    job.trace = real("trace");
  } catch (const json::exception& error) {
    throw InputError(std::string("the record of a job can't be read: ") + error.what());
  }
  return job;
}

}  // namespace hesspect
