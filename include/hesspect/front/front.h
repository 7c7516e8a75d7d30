// What `hesspect` does before MPI starts: `run`, `completion`, `man`.
#pragma once

namespace hesspect {

/// Where the first argument names one of these commands: carries it out. Errors are told here, in one line on stderr.
/// @return the exit code, or -1 where it is no such command
int run_front(int argc, char** argv);

/// Whether mpirun or a like launcher started this process beside others.
bool is_one_of_several_ranks();

}  // namespace hesspect
