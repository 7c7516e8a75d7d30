#include "hdf5_tree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/mapped_file.h"

namespace hesspect::hdf5 {
namespace {

constexpr hssize_t kMostValues = hssize_t{1} << 28;  // a result's arrays are small: more is a broken file

}  // namespace

ReadFile::ReadFile(const std::filesystem::path& path) : path_(path) {
  check_input_file(path);
  const PropertyList access(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_file_locking(access.get(), false, true);  // a result may lie where locks do not work
  file_ = File(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()));
  if (!file_) throw InputError("'" + path.string() + "' cannot be read as HDF5: " + last_error());
}

void ReadFile::fail(const std::string& name, const std::string& why) const {
  throw InputError("'" + path_.string() + "': " + name + " " + why);
}

bool ReadFile::has(const std::string& name) const {
  for (std::size_t slash = name.find('/', 1);; slash = name.find('/', slash + 1)) {
    if (H5Lexists(file_.get(), name.substr(0, slash).c_str(), H5P_DEFAULT) <= 0) return false;
    if (slash == std::string::npos) return true;
  }
}

std::optional<std::int64_t> ReadFile::root_attribute(const std::string& name) const {
  if (H5Aexists(file_.get(), name.c_str()) <= 0) return std::nullopt;
  const Attribute attribute(H5Aopen(file_.get(), name.c_str(), H5P_DEFAULT));
  const Space space(H5Aget_space(attribute.get()));
  std::int64_t value = 0;
  if (H5Sget_simple_extent_npoints(space.get()) != 1 || H5Aread(attribute.get(), H5T_NATIVE_INT64, &value) < 0)
    return std::nullopt;
  return value;
}

Dataset ReadFile::open(const std::string& name) const {
  if (!has(name)) fail(name, "is missing");
  Dataset dataset(H5Dopen2(file_.get(), name.c_str(), H5P_DEFAULT));
  if (!dataset) fail(name, "is not a dataset");
  return dataset;
}

std::vector<hsize_t> ReadFile::dims(const std::string& name) const {
  const Dataset dataset = open(name);
  const Space space(H5Dget_space(dataset.get()));
  const int rank = H5Sget_simple_extent_ndims(space.get());
  if (rank < 0) fail(name, "has no shape");
  std::vector<hsize_t> sizes(static_cast<std::size_t>(rank));
  if (rank > 0) H5Sget_simple_extent_dims(space.get(), sizes.data(), nullptr);
  return sizes;
}

template <class T>
std::vector<T> ReadFile::numbers(const std::string& name, hid_t type, H5T_class_t kind) const {
  const Dataset dataset = open(name);
  const Type stored(H5Dget_type(dataset.get()));
  if (H5Tget_class(stored.get()) != kind) fail(name, "has another type than expected");
  const Space space(H5Dget_space(dataset.get()));
  const hssize_t count = H5Sget_simple_extent_npoints(space.get());
  if (count < 0 || count > kMostValues) fail(name, "has an impossible size");
  std::vector<T> values(static_cast<std::size_t>(count));
  if (count > 0 && H5Dread(dataset.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0)
    fail(name, "cannot be read: " + last_error());
  return values;
}

std::vector<double> ReadFile::doubles(const std::string& name) const {
  return numbers<double>(name, H5T_NATIVE_DOUBLE, H5T_FLOAT);
}

std::vector<std::int64_t> ReadFile::integers(const std::string& name) const {
  return numbers<std::int64_t>(name, H5T_NATIVE_INT64, H5T_INTEGER);
}

std::vector<std::string> ReadFile::strings(const std::string& name) const {
  const Dataset dataset = open(name);
  const Type stored(H5Dget_type(dataset.get()));
  if (H5Tis_variable_str(stored.get()) <= 0) fail(name, "has another type than expected");
  const Space space(H5Dget_space(dataset.get()));
  const hssize_t count = H5Sget_simple_extent_npoints(space.get());
  if (count < 0 || count > kMostValues) fail(name, "has an impossible size");
  std::vector<char*> pointers(static_cast<std::size_t>(count), nullptr);
  std::vector<std::string> values;
  if (count == 0) return values;
  const Type type(H5Tcopy(stored.get()));
  if (H5Dread(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, pointers.data()) < 0)
    fail(name, "cannot be read: " + last_error());
  for (const char* text : pointers) values.emplace_back(text == nullptr ? "" : text);
  H5Dvlen_reclaim(type.get(), space.get(), H5P_DEFAULT, pointers.data());
  return values;
}

double ReadFile::real(const std::string& name) const {
  const auto values = doubles(name);
  if (values.size() != 1) fail(name, "is not a single number");
  return values[0];
}

std::int64_t ReadFile::integer(const std::string& name) const {
  const auto values = integers(name);
  if (values.size() != 1) fail(name, "is not a single number");
  return values[0];
}

std::uint64_t ReadFile::unsigned_integer(const std::string& name) const {
  const auto values = numbers<std::uint64_t>(name, H5T_NATIVE_UINT64, H5T_INTEGER);
  if (values.size() != 1) fail(name, "is not a single number");
  return values[0];
}

std::string ReadFile::text(const std::string& name) const {
  const auto values = strings(name);
  if (values.size() != 1) fail(name, "is not a single text");
  return values[0];
}

}  // namespace hesspect::hdf5
