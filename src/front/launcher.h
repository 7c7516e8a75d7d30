// The command line of mpirun or srun for a number of ranks, with the flags that hesspect wants. launch/mpirun.sh has
// the same flags for other programs; tests/app/front.py compares.
#pragma once

#include "hesspect/config/launch.h"
#include "supervise.h"

namespace hesspect {

/// How many ranks: as asked for, else as Slurm or --hosts says. @throws UsageError where nobody says
std::int64_t ranks_of(const LaunchConfig& config);

/// @param program  with its arguments
/// @throws UsageError where there is no such launcher, or an option that it does not have
LauncherCommand launcher_command(const LaunchConfig& config, std::int64_t ranks,
                                 const std::vector<std::string>& program);

/// Whether rank 0 will run on this host, and see the files that this process sees.
bool starts_here(const LaunchConfig& config);

}  // namespace hesspect
