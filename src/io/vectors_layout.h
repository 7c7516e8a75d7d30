// A file of vectors as it stands before the first one is written: everything but the entries.
#pragma once

#include <cstdint>
#include <vector>

#include "hesspect/io/vectors_file.h"
#include "temporary_file.h"

namespace hesspect {

/// Bytes of all entries of one part, k vectors.
std::int64_t bytes_of(const VectorPart& part, const VectorsInfo& info);
/// [k, shape of the parameter]
std::vector<std::int64_t> shape_of(const VectorPart& part, const VectorsInfo& info);

/// Bytes beside the entries, at most.
std::int64_t layout_bytes_hdf5(const VectorsInfo& info);

/// Writes all but the entries. Little-endian, row-major.
/// @return [parts]: where in the file each part's entries start, vector after vector; any number for a part of none
std::vector<std::int64_t> lay_out_hdf5(TemporaryFile& file, const VectorsInfo& info);
std::vector<std::int64_t> lay_out_safetensors(TemporaryFile& file, const VectorsInfo& info);

}  // namespace hesspect
