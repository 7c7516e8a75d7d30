// HDF5 files from elsewhere are read by another process first: libhdf5 ends the process, or never comes back, over some
// damaged ones (a byte changed where it keeps variable-length strings is enough), and no check from outside it can tell
// which.
//
// That process is `hesspect-try-hdf5`, which lies beside `hesspect`, links no LibTorch (whose loading alone takes half
// a second) and does what hesspect will do with the file. It is spawned, not forked: MPI and CUDA forbid work in a
// fork.
#pragma once

#include <filesystem>

namespace hesspect {

/// Reads the file in the other process, if it is HDF5. Errors that HDF5 reports are left to the reader that comes
/// after. Where the process cannot be started, a warning says so, once, and the file is not tried.
/// @throws InputError if the library crashed, or did not come to an end
void try_hdf5_file(const std::filesystem::path& path);

}  // namespace hesspect
