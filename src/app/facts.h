// What a result records of a run beside what its ledger holds: the program, the problem, the machine.
#pragma once

#include <string>
#include <vector>

#include "hesspect/config/options.h"
#include "hesspect/report/assemble.h"
#include "hesspect/run/group.h"
#include "hesspect/run/sources.h"
#include "problem.h"

namespace hesspect {

/// What was run, by what, on what, but for the times.
ProcessInfo process_info(const Invocation& run, const std::vector<std::string>& argv, const Problem& problem,
                         const RunLayout& layout);

/// The files that went into the run, hashed.
void set_sources(ProcessInfo& process, const Sources& sources);

/// Warns of what is not in the ledger and not told yet. Collective over world and the group; of use on rank 0.
/// @param argv  for the record
RunFacts run_facts(const Invocation& run, const std::vector<std::string>& argv, const Problem& problem,
                   const RunLayout& layout, const Group& group, const std::string& start_time, Communicator& world);

}  // namespace hesspect
