// Writing: HDF5's core driver keeps the file in memory, so that no call here meets a disk.
//
// A byte that changes later must show when the file is read, and not end the reader. So texts have a fixed length:
// where HDF5 keeps those of variable length has no checksum, and the library trusts it. Arrays are chunked, for only
// chunks can have checksums, and the file has the format of HDF5 1.10, whose headers, groups and indices have them too.
// Attributes keep texts of variable length: h5py gives these as str and others as bytes, and hesspect reads none of
// them.
#include <hdf5_hl.h>

#include <algorithm>

#include "hdf5_image.h"
#include "hdf5_tree.h"
#include "hesspect/core/errors.h"

namespace hesspect::hdf5 {
namespace {

constexpr std::size_t kGrowBytes = 1 << 20;
constexpr hsize_t kMostChunkBytes = 1 << 20;
constexpr unsigned kMostListed = 100;
// Room for so many names of so many letters is made with a group's header: it grows by a piece for each name otherwise.
constexpr unsigned kUsuallyListed = 24, kUsualName = 16;

/// Every id and status of HDF5 is negative on failure.
template <class Value>
Value check(Value value, const std::string& what) {
  if (value < 0) throw Error(ExitCode::kInternal, "HDF5 could not make " + what + ": " + last_error());
  return value;
}

Type string_type(std::size_t size) {
  Type type(check(H5Tcopy(H5T_C_S1), "a string type"));
  check(H5Tset_size(type.get(), size), "a string type");
  check(H5Tset_cset(type.get(), H5T_CSET_UTF8), "a string type");
  if (size != H5T_VARIABLE) check(H5Tset_strpad(type.get(), H5T_STR_NULLPAD), "a string type");
  return type;
}

/// Texts side by side, each filled up with zeros to the length of the longest.
struct Texts {
  std::size_t length = 1;  // HDF5 has no strings of length 0
  std::string bytes;
};

Texts side_by_side(const std::vector<std::string>& values) {
  Texts texts;
  for (const auto& value : values) texts.length = std::max(texts.length, value.size());
  texts.bytes.reserve(texts.length * values.size());
  for (const auto& value : values) texts.bytes.append(value).append(texts.length - value.size(), '\0');
  return texts;
}

/// Of texts of any length, as attributes have them. A file has hundreds of these.
const Type& attribute_type() {
  static const Type type = string_type(H5T_VARIABLE);
  return type;
}

/// How an array lies in the file: in chunks of about a megabyte, each with its checksum. A scalar can have none.
PropertyList layout_of(const std::vector<hsize_t>& dims, hid_t file_type) {
  PropertyList creation(check(H5Pcreate(H5P_DATASET_CREATE), "a layout"));
  std::vector<hsize_t> chunk = dims;
  hsize_t bytes = H5Tget_size(file_type);
  for (const hsize_t size : chunk) bytes *= size;
  for (hsize_t& size : chunk) {
    const hsize_t parts = std::min(size, (bytes + kMostChunkBytes - 1) / kMostChunkBytes);
    bytes = bytes / size * ((size + parts - 1) / parts);
    size = (size + parts - 1) / parts;
  }
  check(H5Pset_chunk(creation.get(), static_cast<int>(chunk.size()), chunk.data()), "a layout");
  check(H5Pset_fletcher32(creation.get()), "a layout");
  return creation;
}

Space space_of(const std::vector<hsize_t>& dims) {
  if (dims.empty()) return Space(check(H5Screate(H5S_SCALAR), "a scalar"));
  return Space(check(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr), "an array"));
}

std::vector<const char*> pointers(const std::vector<std::string>& values) {
  std::vector<const char*> all;
  all.reserve(values.size());
  for (const auto& value : values) all.push_back(value.c_str());
  return all;
}

Dataset put_values(hid_t group, const std::string& name, hid_t file_type, hid_t memory_type, const void* values,
                   const std::vector<hsize_t>& dims, const Label& label) {
  const Space space = space_of(dims);
  const bool has_chunks = !dims.empty() && std::find(dims.begin(), dims.end(), hsize_t{0}) == dims.end();
  const PropertyList layout = has_chunks ? layout_of(dims, file_type) : PropertyList();
  Dataset dataset(check(H5Dcreate2(group, name.c_str(), file_type, space.get(), H5P_DEFAULT,
                                   has_chunks ? layout.get() : H5P_DEFAULT, H5P_DEFAULT),
                        name));
  if (H5Sget_simple_extent_npoints(space.get()) > 0)
    check(H5Dwrite(dataset.get(), memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), name);
  put_attribute(dataset.get(), "long_name", label.long_name);
  put_attribute(dataset.get(), "units", label.units);
  return dataset;
}

}  // namespace

MemoryFile::MemoryFile() {
  const PropertyList access(check(H5Pcreate(H5P_FILE_ACCESS), "a file in memory"));
  check(H5Pset_fapl_core(access.get(), kGrowBytes, /*backing_store=*/0), "a file in memory");
  set_format(access.get());
  file_ = File(check(H5Fcreate("hesspect-result", H5F_ACC_TRUNC, H5P_DEFAULT, access.get()), "a file in memory"));
}

void set_format(hid_t access) {
  check(H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110), "a file's format");
}

std::vector<std::byte> MemoryFile::bytes() {
  check(H5Fflush(file_.get(), H5F_SCOPE_GLOBAL), "the file's image");
  std::vector<std::byte> image(check(H5Fget_file_image(file_.get(), nullptr, 0), "the file's image"));
  check(H5Fget_file_image(file_.get(), image.data(), image.size()), "the file's image");
  check(file_.reset(), "the file's image");
  mend_superblock(image);
  return image;
}

Group make_group(hid_t parent, const std::string& name, const std::string& nx_class) {
  const PropertyList creation(check(H5Pcreate(H5P_GROUP_CREATE), "a group"));
  // As many names lie in a group's own header: a list is faster to write than an index of few.
  check(H5Pset_link_phase_change(creation.get(), kMostListed, kMostListed / 2), "a group");
  check(H5Pset_est_link_info(creation.get(), kUsuallyListed, kUsualName), "a group");
  Group group(check(H5Gcreate2(parent, name.c_str(), H5P_DEFAULT, creation.get(), H5P_DEFAULT), name));
  put_attribute(group.get(), "NX_class", nx_class);
  return group;
}

void put_attribute(hid_t object, const std::string& name, const std::string& value) {
  const Type& type = attribute_type();
  const Space space = space_of({});
  const Attribute attribute(
      check(H5Acreate2(object, name.c_str(), type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT), name));
  const char* text = value.c_str();
  check(H5Awrite(attribute.get(), type.get(), &text), name);
}

void put_attribute(hid_t object, const std::string& name, const std::vector<std::string>& values) {
  const Type& type = attribute_type();
  const Space space = space_of({values.size()});
  const Attribute attribute(
      check(H5Acreate2(object, name.c_str(), type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT), name));
  check(H5Awrite(attribute.get(), type.get(), pointers(values).data()), name);
}

void put_attribute(hid_t object, const std::string& name, std::int64_t value) {
  const Space space = space_of({});
  const Attribute attribute(
      check(H5Acreate2(object, name.c_str(), H5T_STD_I64LE, space.get(), H5P_DEFAULT, H5P_DEFAULT), name));
  check(H5Awrite(attribute.get(), H5T_NATIVE_INT64, &value), name);
}

Dataset put(hid_t group, const std::string& name, const std::vector<double>& values, const std::vector<hsize_t>& dims,
            const Label& label) {
  return put_values(group, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, values.data(), dims, label);
}

Dataset put(hid_t group, const std::string& name, const std::vector<std::int64_t>& values,
            const std::vector<hsize_t>& dims, const Label& label) {
  return put_values(group, name, H5T_STD_I64LE, H5T_NATIVE_INT64, values.data(), dims, label);
}

Dataset put(hid_t group, const std::string& name, const std::vector<bool>& values, const std::vector<hsize_t>& dims,
            const Label& label) {
  const std::vector<std::uint8_t> bytes(values.begin(), values.end());
  return put_values(group, name, H5T_STD_U8LE, H5T_NATIVE_UINT8, bytes.data(), dims, label);
}

Dataset put(hid_t group, const std::string& name, const std::vector<std::string>& values,
            const std::vector<hsize_t>& dims, const Label& label) {
  const Texts texts = side_by_side(values);
  const Type type = string_type(texts.length);
  return put_values(group, name, type.get(), type.get(), texts.bytes.data(), dims, label);
}

Dataset put(hid_t group, const std::string& name, std::uint64_t value, const Label& label) {
  return put_values(group, name, H5T_STD_U64LE, H5T_NATIVE_UINT64, &value, {}, label);
}

void attach_scale(const Dataset& scale, const Dataset& array, unsigned axis) {
  const std::string what = "a dimension scale";
  if (H5DSis_scale(scale.get()) <= 0) {
    std::string name(static_cast<std::size_t>(check(H5Iget_name(scale.get(), nullptr, 0), what)), '\0');
    check(H5Iget_name(scale.get(), name.data(), name.size() + 1), what);
    check(H5DSset_scale(scale.get(), name.substr(name.rfind('/') + 1).c_str()), what);
  }
  check(H5DSattach_scale(array.get(), scale.get(), axis), what);
}

}  // namespace hesspect::hdf5
