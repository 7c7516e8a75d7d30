// The commands that compute: analyze, density, eigs and trace, from the configuration to the result file.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/config/options.h"
#include "hesspect/core/stop_signal.h"

namespace hesspect {

class ResidentProblem;  // resident.h
struct RunResult;       // hesspect/io/result_file.h

/// Collective over world, the communicator of all ranks.
/// @param argv      for the record
/// @param start_vectors  a file of eigenvectors of nearby weights, from which the search for eigenvalues begins; empty:
///                       none, and all is found from random vectors
/// @param resident  what stays from run to run, taken and given back; nullptr: all is read anew
/// @param taken     is given the result on rank 0 when it has been written; not where an earlier start had written it
/// @return the exit code: done, finished but not converged, or stopped with a checkpoint
int run_spectrum(const Invocation& run, const std::vector<std::string>& argv, const StopSignal& signal,
                 Communicator& world, ResidentProblem* resident = nullptr, const std::string& start_vectors = "",
                 const std::function<void(const RunResult&)>& taken = {});

}  // namespace hesspect
