// How a job ends with an exit code that is not 0, without mpirun's own remarks on it.
//
// Open MPI's mpirun answers each such end with two frames of ten lines, in which the program's one line is lost, and
// MPI_Abort adds a third. mpirun leaves its own out where a rank has called MPI_Abort, and Open MPI 4 prints that one's
// through a pointer to a function, opal_show_help, which a program may set: so ranks end by an MPI_Abort that is
// silent. `mpirun --quiet` (OMPI_MCA_orte_execute_quiet=1) does the same from outside.
#pragma once

namespace hesspect {

/// Whether this process was started by mpirun of an Open MPI whose MPI_Abort can be silenced.
bool can_end_silently();

/// MPI_Abort of all ranks, silent where that can be. What this process has printed is on its way. Any thread.
[[noreturn]] void abort_job(int exit_code);

/// Ends the job with the code where all ranks have come to their end with it and have nothing left to do but to leave
/// MPI: rank 0 ends it, the others wait for that in MPI_Finalize. Returns where ranks are to leave in the usual way:
/// the code is 0, or this launcher has no remarks to make.
void end_job(int exit_code, int rank);

}  // namespace hesspect
