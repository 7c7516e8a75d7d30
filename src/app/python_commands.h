// The commands that live in the Python package, so that users meet one `hesspect`.
#pragma once

namespace hesspect {

/// Where the first argument names one of them: goes over to `python -m hesspect` with the same arguments, in the same
/// process, and returns only where that can't be: the exit code, after one line on stderr. Else -1. Before MPI starts.
/// The interpreter is $HESSPECT_PYTHON, or the one that this was built with, or python3.
int go_over_to_python(int argc, char** argv);

}  // namespace hesspect
