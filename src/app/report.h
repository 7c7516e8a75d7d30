// From finished probes and measurements to the result.
#pragma once

#include <string>
#include <vector>

#include "hesspect/config/options.h"
#include "hesspect/io/checkpoint.h"
#include "hesspect/io/result_file.h"
#include "problem.h"
#include "run_start.h"
#include "schedule.h"

namespace hesspect {

/// What every rank has to say at the end.
struct Measured {
  HessianStats stats;  // of rank 0's group
  double loss = 0, loss_terms = 0, gradient_norm = 0;
  std::int64_t peak_memory_bytes = 0, peak_device_bytes = 0;  // the largest of all ranks
};

/// Collective over world and the group.
Measured measure(const Group& group, Communicator& world);

/// All of a run that its result records.
struct RunRecord {
  const Invocation& run;
  const std::vector<std::string>& argv;
  const Problem& problem;
  const KeptLayout& layout;
  const Goals& goals;
  const Schedule& schedule;
  std::string start_time;
  double elapsed_s = 0;  // since this start
  double product_s = 0;  // in products since then, summed over groups
};

/// Draws eigenvalues, trace and density from the finished probes, and warns, in the result and on stderr, of what is
/// not as it should be. Rank 0.
RunResult make_result(const RunRecord& record, const RunState& state, const Measured& measured);

}  // namespace hesspect
