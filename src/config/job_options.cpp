#include "hesspect/config/job_options.h"

#include <charconv>
#include <sstream>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "ini.h"

namespace hesspect {

RunConfig config_of_job(const std::string& text, const std::string& name);  // options.cpp

namespace {

constexpr std::size_t kLongestName = 200;

bool is_job_command(Command command) {
  return command == Command::kAnalyze || command == Command::kDensity || command == Command::kEigs ||
         command == Command::kTrace;
}

Command job_command(const std::string& name, const std::string& where) {
  static const std::vector<std::string> kNames = {"analyze", "density", "eigs", "trace"};
  for (const std::string& each : kNames)
    if (name == each) return command_from(each);
  throw UsageError(where + "a job's command is analyze, density, eigs or trace, not '" + one_line(name) + "'" +
                   did_you_mean(name, kNames));
}

template <class Number>
Number number_of(const IniEntry& entry, const std::string& where) {
  Number value{};
  const char* const end = entry.value.data() + entry.value.size();
  const auto [read, error] = std::from_chars(entry.value.data(), end, value);
  if (error != std::errc() || read != end)
    throw UsageError(where + entry.key + " = " + one_line(entry.value) + ": expected a number");
  return value;
}

/// The lines of [job], and the others; each with empty lines in the other's places, so that lines keep their numbers.
struct Parts {
  std::string job, options;
};

Parts parts_of(const std::string& text) {
  Parts parts;
  bool in_job = false;
  std::istringstream lines(text.starts_with("\xEF\xBB\xBF") ? text.substr(3) : text);
  for (std::string line; std::getline(lines, line);) {
    const auto first = line.find_first_not_of(" \t");
    const bool is_heading = first != std::string::npos && line[first] == '[' && line.find(']') != std::string::npos;
    if (is_heading) in_job = line.substr(first, line.find(']') - first + 1) == "[job]";
    (in_job ? parts.job : parts.options) += line;
    parts.job += '\n';
    parts.options += '\n';
  }
  return parts;
}

JobHead head_of(const std::string& lines, const std::string& name) {
  JobHead head;
  for (const IniEntry& entry : parse_ini(lines, name)) {
    const std::string where = name + ":" + std::to_string(entry.line) + ": ";
    if (entry.key == "name") {
      head.name = one_line(entry.value).substr(0, kLongestName);
    } else if (entry.key == "priority") {
      head.priority = number_of<std::int64_t>(entry, where);
    } else if (entry.key == "command") {
      head.command = job_command(entry.value, where);
    } else if (entry.key == "submitted") {
      head.submitted = number_of<double>(entry, where);
    } else {
      throw UsageError(where + "[job] has no '" + one_line(entry.key) + "'" +
                       did_you_mean(entry.key, {"name", "priority", "command", "submitted"}) +
                       ": name, priority, command; options of the run stand under another heading");
    }
  }
  return head;
}

Invocation invocation_of_job(const std::vector<std::string>& args, const Environment& environment) {
  std::vector<std::string> words = args;
  words.emplace_back("--print-config");  // which may lack the output
  Environment of_run = environment;
  of_run.erase("HESSPECT_SPOOL");
  Invocation run = parse_command_line(words, of_run);
  run.print_config = false;
  if (run.help || run.version) throw UsageError("'submit' takes a job, not --help or --version of its command");
  return run;
}

}  // namespace

JobHead parse_job_head(const std::string& text, const std::string& name) { return head_of(parts_of(text).job, name); }

JobOptions parse_job(const std::string& text, const std::string& name) {
  const Parts parts = parts_of(text);
  JobOptions job;
  job.head = head_of(parts.job, name);
  job.run.command = job.head.command;
  job.run.config = config_of_job(parts.options, name);
  if (!job.run.config.output.from.empty())
    throw UsageError(name + ": --from smooths an earlier result again: that is no job");
  return job;
}

JobOptions jobs_of_series_from_arguments(const std::vector<std::string>& args, const Environment& environment) {
  JobOptions job;
  job.run = invocation_of_job(args, environment);
  RunConfig& c = job.run.config;
  const SeriesConfig& series = c.series;
  const SeriesConfig usual;
  if (series.checkpoints.empty())
    throw UsageError("'submit series' needs --checkpoints: a pattern, a folder or a list of checkpoints");
  if (series.follow || series.every != usual.every || series.until != usual.until || !series.marker.empty() ||
      !series.end_marker.empty() || !series.learning_rate.empty() || series.retry_failed ||
      !series.watch.metrics_file.empty() || series.watch.metrics_port != 0 || !c.output.output.empty())
    throw UsageError(
        "'submit series' makes a job for each checkpoint that is there, side by side and with a result each: "
        "--checkpoints, --order and --results say which and where; a series file, --follow, --every, --marker, "
        "--learning-rate and --metrics-... belong to a series in one process");
  if (!c.model.weights.empty()) throw UsageError("'submit series' takes weights from --checkpoints, not --weights");
  job.run.command = job.head.command = Command::kAnalyze;
  return job;
}

JobOptions job_from_arguments(const std::vector<std::string>& args, const Environment& environment) {
  JobOptions job;
  job.run = invocation_of_job(args, environment);
  if (!is_job_command(job.run.command)) job_command(to_string(job.run.command), "");
  if (!job.run.config.output.from.empty()) throw UsageError("--from smooths an earlier result again: that is no job");
  job.head.command = job.run.command;
  return job;
}

std::string job_text(const JobOptions& job) {
  std::ostringstream text;
  text.precision(17);
  text << "[job]\n";
  if (!job.head.name.empty()) text << "name = " << ini_value(job.head.name) << "\n";
  text << "priority = " << job.head.priority << "\ncommand = " << to_string(job.head.command) << "\n";
  if (job.head.submitted > 0) text << "submitted = " << job.head.submitted << "\n";
  text << "\n[options]\n" << to_ini(job.run.config);
  return text.str();
}

void for_each_input(RunConfig& c, const EachPath& each) {
  const auto one = [&](const std::string& option, std::string& path) {
    if (!path.empty()) each(option, path);
  };
  one("model", c.model.model);
  for (std::string& weights : c.model.weights) one("weights", weights);
  one("data", c.data.data);
  one("initial-weights", c.model.initial_weights);
  one("second-moments", c.sharpness.second_moments);
  one("other-data", c.sharpness.other_data);
  one("vectors-from", c.landscape.vectors_from);
  if (c.features.from != "auto") one("features", c.features.from);
}

void for_each_output(RunConfig& c, const EachPath& each) {
  const auto one = [&](const std::string& option, std::string& path) {
    if (!path.empty()) each(option, path);
  };
  one("output", c.output.output);
  one("eigenvectors", c.eigs.eigenvectors);
  one("diagonal", c.trace.diagonal);
  one("trace-json", c.output.trace_json);
  one("checkpoint", c.checkpoint.checkpoint);
  one("directions-file", c.landscape.directions_file);
}

}  // namespace hesspect
