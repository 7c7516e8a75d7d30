// The two formats of data files, each behind ArrayFile; opened by ArrayFile::open, which tells them apart.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "hesspect/core/element_type.h"
#include "hesspect/data/dataset.h"

namespace hesspect {

/// @throws InputError if HDF5 cannot open or list it
std::unique_ptr<ArrayFile> open_hdf5_arrays(const std::filesystem::path& path);
/// @throws InputError as SafetensorsFile does
std::unique_ptr<ArrayFile> open_safetensors_arrays(const std::filesystem::path& path);

/// "array 'x' in 'data.h5'"
std::string array_in(const ArrayFile& file, const std::string& name);

/// An uninitialised CPU tensor for entries [begin, end) of dimension `dim` of an array.
/// @throws InputError if [begin, end) is not within the array's rows (or it has no such dimension); MemoryError
at::Tensor empty_slab(const ArrayFile& file, const ArrayInfo& info, std::int64_t dim, std::int64_t begin,
                      std::int64_t end);

/// For read_block, its bounds checked.
at::Tensor empty_block(const ArrayFile& file, const ArrayInfo& info, std::int64_t at, std::int64_t begin,
                       std::int64_t end);

/// Makes every byte of a boolean tensor 0 or 1; C++ allows no other.
void normalise_bool(const at::Tensor& tensor);

}  // namespace hesspect
