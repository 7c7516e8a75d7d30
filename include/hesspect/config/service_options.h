// What `hesspect serve` and the commands of its queue take: submit, queue, cancel, wait, log. Room `service` and
// src/app/serve.cpp carry them out.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "hesspect/config/option_list.h"
#include "hesspect/config/options.h"
#include "hesspect/config/watch_config.h"

namespace hesspect {

struct ServeConfig {
  std::string spool;               // folder
  std::vector<std::string> allow;  // folders that jobs' files may lie in; none: the spool and the working directory
  bool until_empty = false;
  double poll_s = 2;
  std::int64_t max_jobs = 0;  // then it ends; 0: no limit
  std::string only;           // the id of the one job of Slurm's that this service is for; empty: the queue
  double lost_after_s = 20;
  WatchConfig watch;
  bool quiet = false;
  bool verbose = false;
  bool help = false;
};

/// @param args         what follows `serve`
/// @param environment  HESSPECT_SPOOL names the folder where --spool is not given
/// @throws UsageError: an unknown option, a value that can't be read, no spool
ServeConfig parse_serve(const std::vector<std::string>& args, const Environment& environment);

struct QueueConfig {
  std::string spool;
  bool json = false;
  bool all = false;           // queue: ended jobs too
  std::string name;           // submit
  std::int64_t priority = 0;  // submit
  bool slurm = false;         // submit: as a job of Slurm's
  bool flux = false;          // submit: as a job of Flux's
  std::string batch_options;  // submit: more options of sbatch's or flux's, separated by blanks
  bool follow = false;        // log
  double timeout_s = 0;       // wait; 0: no limit
  bool help = false;
  std::vector<std::string> words;  // jobs' ids; of submit the ini file, or a command and its options
};

/// Whether it is one of the commands of the queue.
bool is_queue_command(std::string_view name);

/// @throws UsageError: an unknown option, a value that can't be read, no spool, no job where one is needed
QueueConfig parse_queue_command(std::string_view command, const std::vector<std::string>& args,
                                const Environment& environment);

/// The options of `serve`, or of a command of the queue.
OptionTopic service_topic(std::string_view command);

/// The help text of `serve`, or of a command of the queue.
std::string service_help(std::string_view command);

}  // namespace hesspect
