// Slurm or Flux as the queue: each job is one of theirs, which starts a service for that job alone
// (`serve --only ID`), so that all that holds for a service's jobs holds for these.
#pragma once

#include <string>
#include <vector>

#include "hesspect/config/service_options.h"
#include "hesspect/service/spool.h"

namespace hesspect {

/// Hands jobs that lie in the folder `slurm` over, several as an array, and notes their numbers there.
/// @throws UsageError where sbatch (flux) or the script is not there, or Flux is to take several; InputError with what
///         it says. The jobs are then gone from the folder
void submit_to_batch(const Spool& spool, const std::vector<std::string>& ids, const QueueConfig& config);

/// What Slurm or Flux says of the job `service` ("slurm 123"): "PENDING", "RUNNING", …; empty where it is not known
/// there any more, or they are not on the PATH.
std::string batch_state(const std::string& service);

/// Takes it out of their queue. Says nothing where it is not there any more.
void cancel_in_batch(const std::string& service);

}  // namespace hesspect
