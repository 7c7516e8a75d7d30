#include "hesspect/config/service_options.h"

#include <algorithm>

#include "command_words.h"
#include "hesspect/core/errors.h"
#include "option_groups.h"

namespace hesspect {
namespace {

constexpr double kLongest_s = 1e9;

void add_spool(OptionGroup& group, std::string& spool) {
  group.text("spool", spool, "FOLDER", "the folder of the queue; default: the variable HESSPECT_SPOOL");
}

OptionGroup serve_options(ServeConfig& c) {
  OptionGroup group{"Service", {}};
  add_spool(group, c.spool);
  group.texts("allow", c.allow, "FOLDER",
              "jobs may read and write files in here alone (repeatable); default: the spool and the working directory");
  group.flag("until-empty", c.until_empty, "end when no job is left");
  group.real("poll", c.poll_s, 0, kLongest_s, false,
             "seconds between two looks at the folder where nothing tells of news");
  group.integer("max-jobs", c.max_jobs, 0, 1'000'000'000, "end after so many jobs; 0: no limit");
  group.text("only", c.only, "ID", "run this job of Slurm's or Flux's alone, then end: what submit --slurm starts");
  group.real("lost-after", c.lost_after_s, 0, kLongest_s, true, "seconds until a silent rank counts as lost; 0: never");
  add_watch_options(group, c.watch);
  group.flag("quiet", c.quiet, "print nothing but errors");
  group.flag("verbose", c.verbose, "print more");
  group.flag("help", c.help, "print this help, and stop");
  return group;
}

OptionGroup queue_options(std::string_view command, QueueConfig& c) {
  OptionGroup group{"Queue", {}};
  add_spool(group, c.spool);
  if (command == "submit") {
    group.text("name", c.name, "TEXT", "what people call the job");
    group.integer("priority", c.priority, -1'000'000, 1'000'000, "higher ones come first");
    group.flag("slurm", c.slurm, "a job of Slurm's, by sbatch, instead of one for a service");
    group.flag("flux", c.flux, "a job of Flux's, by flux batch");
    group.text("batch-options", c.batch_options, "TEXT", "more options of sbatch's or flux's, separated by blanks");
  }
  if (command == "queue") group.flag("all", c.all, "all jobs that have ended, not the last 20 alone");
  if (command == "wait")
    group.real("timeout", c.timeout_s, 0, kLongest_s, true, "seconds to wait at most; 0: no limit");
  if (command == "log") group.flag("follow", c.follow, "go on until the job has ended");
  if (command != "log") group.flag("json", c.json, "print JSON");
  group.flag("help", c.help, "print this help, and stop");
  return group;
}

void find_spool(std::string& spool, std::string_view command, const Environment& environment) {
  if (const auto found = environment.find("HESSPECT_SPOOL"); spool.empty() && found != environment.end())
    spool = found->second;
  if (spool.empty())
    throw UsageError("'" + std::string(command) + "' needs --spool, the folder of the queue (or HESSPECT_SPOOL)");
}

OptionTopic service_group_topic(const OptionGroup& group) {
  OptionTopic topic{group.title, {}};
  for (const Option& option : group.options)
    topic.options.push_back({option.name, option.value_name, option.help, option.get(), option.repeatable});
  return topic;
}

constexpr std::string_view kQueueCommands[] = {"submit", "queue", "cancel", "wait", "log"};

}  // namespace

ServeConfig parse_serve(const std::vector<std::string>& args, const Environment& environment) {
  ServeConfig config;
  const OptionTable table{{serve_options(config)}};
  const std::vector<std::string> words = read_words({"serve", false, {}, {}}, table, args);
  if (config.help) return config;
  if (!words.empty()) throw UsageError("unexpected argument '" + words.front() + "': jobs are handed in by 'submit'");
  if (config.quiet && config.verbose) throw UsageError("--quiet and --verbose contradict each other");
  find_spool(config.spool, "serve", environment);
  return config;
}

bool is_queue_command(std::string_view name) {
  return std::ranges::find(kQueueCommands, name) != std::end(kQueueCommands);
}

QueueConfig parse_queue_command(std::string_view command, const std::vector<std::string>& args,
                                const Environment& environment) {
  QueueConfig config;
  const OptionTable table{{queue_options(command, config)}};
  config.words = read_words({std::string(command), command == "submit", {}, {}}, table, args);
  if (config.help) return config;
  find_spool(config.spool, command, environment);
  const std::string name(command);
  if (command == "submit" && config.words.empty())
    throw UsageError("'submit' needs a job: hesspect submit JOB.ini, or hesspect submit analyze --model M.pt2 ...");
  if (config.slurm && config.flux) throw UsageError("--slurm and --flux name two queues: give one of them");
  if (!config.batch_options.empty() && !config.slurm && !config.flux)
    throw UsageError("--batch-options belongs to --slurm and --flux");
  if ((command == "cancel" || command == "wait" || command == "log") && config.words.empty())
    throw UsageError("'" + name + "' needs the id of a job; 'hesspect queue' lists them");
  if (command == "log" && config.words.size() > 1) throw UsageError("'log' shows one job's log, not several");
  return config;
}

OptionTopic service_topic(std::string_view command) {
  ServeConfig serve;
  QueueConfig queue;
  return service_group_topic(command == "serve" ? serve_options(serve) : queue_options(command, queue));
}

std::string service_help(std::string_view command) {
  std::string text = "usage: hesspect ";
  if (command == "serve")
    text +=
        "serve --spool FOLDER [options]\n       hesspect run --ranks N serve --spool FOLDER [options]\n\n"
        "Runs the jobs that lie in FOLDER/incoming, by priority and arrival, and waits for more. A job that fails "
        "fails\nalone. SIGTERM and SIGUSR1 put the job at work back into the queue, with its checkpoint (exit 75).\n";
  else if (command == "submit")
    text +=
        "submit [options] JOB.ini\n       hesspect submit [options] analyze|density|eigs|trace|series [the command's "
        "options]\n\nHands a job in, and prints its id; of a series, a job for each checkpoint. Without --output the "
        "result is\nFOLDER/done/ID.h5.\n";
  else if (command == "queue")
    text += "queue [options] [ID ...]\n\nWhich jobs wait, run and have ended.\n";
  else if (command == "cancel")
    text +=
        "cancel [options] ID ...\n\nTakes jobs out of the queue; one at work ends after the product that it is at.\n";
  else if (command == "wait")
    text +=
        "wait [options] ID ...\n\nWaits until the jobs have ended, and ends with the exit code of the first that did "
        "not\nend with 0 (75: one is cancelled, or the time is up).\n";
  else
    text += "log [options] ID\n\nPrints what a job has said.\n";
  return text + help_block(service_topic(command));
}

}  // namespace hesspect
