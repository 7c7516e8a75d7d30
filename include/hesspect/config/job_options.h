// A job of `hesspect serve`: an ini file of a run's options, with a section of its own.
//
//   [job]
//   name = step 400
//   priority = 5
//   command = analyze
//
//   [options]
//   model = M.pt2
//   …
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "hesspect/config/options.h"

namespace hesspect {

/// The section [job].
struct JobHead {
  std::string name;
  std::int64_t priority = 0;  // higher ones come first
  Command command = Command::kAnalyze;
  double submitted = 0;  // unix seconds; 0: not said
};

struct JobOptions {
  JobHead head;
  Invocation run;  // not looked at as a whole yet: the output may be missing (check_whole)
};

/// @param name  for messages
/// @throws UsageError naming the line: a key that is none of these, a value that can't be read, a command that is no
///         job (analyze, density, eigs and trace are)
JobHead parse_job_head(const std::string& text, const std::string& name);
JobOptions parse_job(const std::string& text, const std::string& name);

/// A job from a command line: a command and its options, which may come from --config and the environment too.
/// @throws UsageError as parse_command_line; the output may be missing
JobOptions job_from_arguments(const std::vector<std::string>& args, const Environment& environment);

/// The same of a series, which is to become a job for each of its checkpoints: `series` and its options, less what
/// tells how one process goes through them. The job has their options, and no weights of its own.
/// @throws UsageError for such an option, too
JobOptions jobs_of_series_from_arguments(const std::vector<std::string>& args, const Environment& environment);

/// Text that parse_job reads back to the same.
std::string job_text(const JobOptions& job);

/// Calls `each` with the option and the path of every file that a run reads, or writes; it may change the path. Those
/// that are not given are passed over.
using EachPath = std::function<void(const std::string& option, std::string& path)>;
void for_each_input(RunConfig& config, const EachPath& each);
void for_each_output(RunConfig& config, const EachPath& each);

}  // namespace hesspect
