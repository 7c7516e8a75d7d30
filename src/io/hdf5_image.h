// The bytes of a file that HDF5 keeps in memory, made a file that can be opened.
#pragma once

#include <cstddef>
#include <span>

namespace hesspect::hdf5 {

/// Makes the superblock's checksum right: H5Fget_file_image clears its flag "open for writing" and leaves the checksum
/// as it was with it (HDF5 1.10), so that nothing opens the file. Other formats than versions 2 and 3 have no checksum.
/// @param image  the whole file
void mend_superblock(std::span<std::byte> image);

}  // namespace hesspect::hdf5
