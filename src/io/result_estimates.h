// The groups of a result file that hold what was computed: density, cumulative density, eigenvalues, trace, layers,
// quadrature.
#pragma once

#include <string>

#include "hdf5_tree.h"
#include "hesspect/io/result_file.h"

namespace hesspect {

/// @param what  the matrix, for titles
void write_estimates(hid_t entry, const RunResult& result, const std::string& what);

/// What is not there stays as it is. @throws InputError where parts don't fit together
void read_estimates(const hdf5::ReadFile& file, RunResult& result);

}  // namespace hesspect
