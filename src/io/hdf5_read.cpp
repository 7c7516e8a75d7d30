#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "hdf5_tree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/mapped_file.h"

namespace hesspect::hdf5 {
namespace {

// A damaged file may claim any size. A sound one holds its values, or compresses them where it was packed again.
constexpr std::uintmax_t kMostTimesTheFile = 10;
constexpr std::uintmax_t kAlwaysAllowedBytes = 16 << 20;

/// A text of fixed length without what fills it up.
std::string stripped(std::string_view text, H5T_str_t padding) {
  if (padding == H5T_STR_NULLTERM) return std::string(text.substr(0, text.find('\0')));
  const std::size_t last = text.find_last_not_of(padding == H5T_STR_SPACEPAD ? ' ' : '\0');
  return std::string(text.substr(0, last == std::string_view::npos ? 0 : last + 1));
}

}  // namespace

ReadFile::ReadFile(const std::filesystem::path& path) : path_(path) {
  check_input_file(path);
  const PropertyList access(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_file_locking(access.get(), false, true);  // a result may lie where locks do not work
  file_ = File(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()));
  if (!file_) throw InputError("'" + path.string() + "' cannot be read as HDF5: " + last_error());
  std::error_code error;
  const std::uintmax_t bytes = std::filesystem::file_size(path, error);
  most_bytes_ = kAlwaysAllowedBytes + (error ? 0 : kMostTimesTheFile * bytes);
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

std::size_t ReadFile::count(const std::string& name, hid_t space, std::size_t bytes) const {
  std::array<hsize_t, H5S_MAX_RANK> sizes{};
  const int rank = H5Sget_simple_extent_dims(space, sizes.data(), nullptr);
  if (rank < 0) fail(name, "has no shape");
  std::uintmax_t number = H5Sget_simple_extent_type(space) == H5S_NULL ? 0 : 1;
  for (std::size_t d = 0; d < static_cast<std::size_t>(rank); ++d) {
    if (sizes[d] > most_bytes_ || number * sizes[d] > most_bytes_ / std::max<std::size_t>(bytes, 1))
      fail(name, "has more entries than a file of this size can hold: it is damaged");
    number *= sizes[d];
  }
  return static_cast<std::size_t>(number);
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
  std::vector<T> values(count(name, space.get(), std::max(sizeof(T), H5Tget_size(stored.get()))));
  if (!values.empty() && H5Dread(dataset.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0)
    fail(name, "cannot be read: " + last_error());
  return values;
}

template <>
std::vector<double> ReadFile::values(const std::string& name) const {
  return numbers<double>(name, H5T_NATIVE_DOUBLE, H5T_FLOAT);
}

template <>
std::vector<std::int64_t> ReadFile::values(const std::string& name) const {
  return numbers<std::int64_t>(name, H5T_NATIVE_INT64, H5T_INTEGER);
}

template <>
std::vector<std::uint64_t> ReadFile::values(const std::string& name) const {
  return numbers<std::uint64_t>(name, H5T_NATIVE_UINT64, H5T_INTEGER);
}

template <>
std::vector<bool> ReadFile::values(const std::string& name) const {
  std::vector<bool> bits;
  for (const std::int64_t number : values<std::int64_t>(name)) bits.push_back(number != 0);
  return bits;
}

template <>
std::vector<std::string> ReadFile::values(const std::string& name) const {
  const Dataset dataset = open(name);
  const Type stored(H5Dget_type(dataset.get()));
  if (H5Tget_class(stored.get()) != H5T_STRING) fail(name, "has another type than expected");
  const Space space(H5Dget_space(dataset.get()));
  const bool variable = H5Tis_variable_str(stored.get()) > 0;  // in results of layouts 1 and 2
  const std::size_t length = variable ? sizeof(char*) : H5Tget_size(stored.get());
  const std::size_t number = count(name, space.get(), std::max<std::size_t>(length, sizeof(std::string)));
  std::vector<std::string> values;
  if (number == 0) return values;
  values.reserve(number);
  std::string bytes(number * length, '\0');
  if (H5Dread(dataset.get(), stored.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()) < 0)
    fail(name, "cannot be read: " + last_error());
  for (std::size_t i = 0; i < number; ++i) {
    if (!variable) {
      values.push_back(stripped({bytes.data() + i * length, length}, H5Tget_strpad(stored.get())));
      continue;
    }
    const char* text = nullptr;
    std::memcpy(&text, bytes.data() + i * length, length);
    values.emplace_back(text == nullptr ? "" : text);
  }
  if (variable) H5Dvlen_reclaim(stored.get(), space.get(), H5P_DEFAULT, bytes.data());
  return values;
}

}  // namespace hesspect::hdf5
