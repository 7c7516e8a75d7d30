// What a person wants to read at the end of a run.
#pragma once

#include <string>
#include <vector>

#include "hesspect/io/result_file.h"
#include "number.h"
#include "problem.h"
#include "run_start.h"

namespace hesspect {

/// One line on what is about to run.
std::string describe(const Problem& problem, const KeptLayout& layout, const Group& group);

/// A trace in one line, its interval with it.
std::string describe(const TraceEstimate& trace);

/// The result in a few lines.
std::vector<std::string> summary(const RunResult& result);

}  // namespace hesspect
