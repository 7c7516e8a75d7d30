// HDF5 makes the file's layout alone: contiguous datasets, allocated at once and not filled, whose places in the file
// it tells. The entries are then written by plain pwrite(): a full disk is one failing call, and no library holds a
// file that it can't close.
#include <algorithm>
#include <cstdlib>

#include "hdf5_tree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "result_schema.h"
#include "vectors_layout.h"

namespace hesspect {
namespace {

/// HDF5 tells the system's reason within a text of several lines.
[[noreturn]] void fail_to_write(const TemporaryFile& file) {
  const std::string why = hdf5::last_error();
  const std::string mark = "errno = ";
  if (const auto at = why.find(mark); at != std::string::npos) file.fail(std::atoi(why.c_str() + at + mark.size()));
  throw InputError("cannot write '" + file.name().string() + "' as HDF5: " + one_line(why));
}

template <class Value>
Value checked(Value value, const TemporaryFile& file) {
  if (value < 0) fail_to_write(file);
  return value;
}

/// An array without its entries. @return where they go
std::int64_t make_array(hid_t group, const VectorPart& part, const VectorsInfo& info, const TemporaryFile& file) {
  const hdf5::PropertyList link(checked(H5Pcreate(H5P_LINK_CREATE), file));
  checked(H5Pset_create_intermediate_group(link.get(), 1), file);
  const hdf5::PropertyList creation(checked(H5Pcreate(H5P_DATASET_CREATE), file));
  checked(H5Pset_layout(creation.get(), H5D_CONTIGUOUS), file);
  checked(H5Pset_alloc_time(creation.get(), H5D_ALLOC_TIME_EARLY), file);
  checked(H5Pset_fill_time(creation.get(), H5D_FILL_TIME_NEVER), file);
  const auto shape = shape_of(part, info);
  const std::vector<hsize_t> dims(shape.begin(), shape.end());
  const hdf5::Space space(checked(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr), file));
  const hid_t type = info.float64 ? H5T_IEEE_F64LE : H5T_IEEE_F32LE;
  const hdf5::Dataset array(
      checked(H5Dcreate2(group, part.name.c_str(), type, space.get(), link.get(), creation.get(), H5P_DEFAULT), file));
  hdf5::put_attribute(array.get(), "long_name", info.quantity + ": " + part.name);
  hdf5::put_attribute(array.get(), "units", info.units);
  const haddr_t offset = H5Dget_offset(array.get());
  if (offset == HADDR_UNDEF && bytes_of(part, info) > 0) fail_to_write(file);
  return static_cast<std::int64_t>(offset);
}

}  // namespace

std::int64_t layout_bytes_hdf5(const VectorsInfo& info) {
  std::int64_t bytes = 65536 + 8 * static_cast<std::int64_t>(info.values.size());
  for (const auto& part : info.parts) bytes += 4096 + 4 * static_cast<std::int64_t>(part.name.size());
  return bytes;
}

std::vector<std::int64_t> lay_out_hdf5(TemporaryFile& file, const VectorsInfo& info) {
  const hdf5::QuietErrors quiet;
  const hdf5::PropertyList access(checked(H5Pcreate(H5P_FILE_ACCESS), file));
  hdf5::set_format(access.get());
  hdf5::File h5(checked(H5Fcreate(file.name().c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()), file));
  const hid_t root = h5.get();
  hdf5::put_attribute(root, "NX_class", "NXroot");
  hdf5::put_attribute(root, "creator", "hesspect");
  hdf5::put(root, "quantity", info.quantity, {"What the vectors are", ""});
  hdf5::put(root, "run_id", info.run_id, {"The run that they are of, as in its result", ""});
  hdf5::put(root, "values", info.values, {info.values.size()}, {"One number for each vector", schema::kCurvature});
  std::vector<std::int64_t> offsets;
  std::int64_t end = 0;
  {
    const hdf5::Group group = hdf5::make_group(root, "vectors", "NXcollection");
    for (const auto& part : info.parts) {
      offsets.push_back(make_array(group.get(), part, info, file));
      if (bytes_of(part, info) > 0) end = std::max(end, offsets.back() + bytes_of(part, info));
    }
  }
  checked(h5.reset(), file);
  file.reserve(end);  // HDF5 has cut the file that the space was reserved for
  return offsets;
}

}  // namespace hesspect
