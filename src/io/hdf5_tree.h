// Named values in HDF5 groups: what the result's writer and reader are made of.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "hesspect/core/hdf5_handle.h"

namespace hesspect::hdf5 {

/// What every dataset says of itself.
struct Label {
  std::string long_name;
  std::string units = {};  // "" where it has none
  int since = 1;           // the layout of results from which on all have it
};

/// A file laid out in memory. Failures (of memory, or a slip of this program) throw Error with ExitCode::kInternal.
class MemoryFile {
 public:
  MemoryFile();
  hid_t root() const { return file_.get(); }
  /// The file's bytes. The object is closed by it.
  std::vector<std::byte> bytes();

 private:
  QuietErrors quiet_;
  File file_;
};

/// Of the file that will be made with this access list: that of HDF5 1.10, with checksums.
void set_format(hid_t access);

Group make_group(hid_t parent, const std::string& name, const std::string& nx_class);
void put_attribute(hid_t object, const std::string& name, const std::string& value);
void put_attribute(hid_t object, const std::string& name, const std::vector<std::string>& values);
void put_attribute(hid_t object, const std::string& name, std::int64_t value);

Dataset put(hid_t group, const std::string& name, const std::vector<double>& values, const std::vector<hsize_t>& dims,
            const Label& label);
Dataset put(hid_t group, const std::string& name, const std::vector<std::int64_t>& values,
            const std::vector<hsize_t>& dims, const Label& label);
Dataset put(hid_t group, const std::string& name, const std::vector<bool>& values, const std::vector<hsize_t>& dims,
            const Label& label);
Dataset put(hid_t group, const std::string& name, const std::vector<std::string>& values,
            const std::vector<hsize_t>& dims, const Label& label);
Dataset put(hid_t group, const std::string& name, std::uint64_t value, const Label& label);
/// A scalar of one of the types above.
template <class T>
Dataset put(hid_t group, const std::string& name, const T& value, const Label& label) {
  return put(group, name, std::vector<T>{value}, {}, label);
}

/// Makes `scale` the coordinate of dimension `axis` of an array, as HDF5's dimension scales say it (xarray reads them).
void attach_scale(const Dataset& scale, const Dataset& array, unsigned axis);

/// A file opened for reading. Everything missing or of another kind throws InputError naming file and dataset.
class ReadFile {
 public:
  explicit ReadFile(const std::filesystem::path& path);

  bool has(const std::string& name) const;
  std::optional<std::int64_t> root_attribute(const std::string& name) const;
  std::vector<hsize_t> dims(const std::string& name) const;
  /// The entries of a dataset of doubles, std::int64_t, std::uint64_t, bools or texts.
  template <class T>
  std::vector<T> values(const std::string& name) const;
  /// Its only entry.
  template <class T>
  T value(const std::string& name) const {
    const auto all = values<T>(name);
    if (all.size() != 1) fail(name, std::same_as<T, std::string> ? "is not a single text" : "is not a single number");
    return all[0];
  }

 private:
  [[noreturn]] void fail(const std::string& name, const std::string& why) const;
  /// Elements of a dataset. @throws InputError where so many of `bytes` each cannot be in a file of this size
  std::size_t count(const std::string& name, hid_t space, std::size_t bytes) const;
  Dataset open(const std::string& name) const;
  template <class T>
  std::vector<T> numbers(const std::string& name, hid_t type, H5T_class_t kind) const;

  QuietErrors quiet_;
  std::filesystem::path path_;
  std::uintmax_t most_bytes_ = 0;  // that a dataset may take in memory
  File file_;
};

template <>
std::vector<double> ReadFile::values(const std::string& name) const;
template <>
std::vector<std::int64_t> ReadFile::values(const std::string& name) const;
template <>
std::vector<std::uint64_t> ReadFile::values(const std::string& name) const;
template <>
std::vector<bool> ReadFile::values(const std::string& name) const;
template <>
std::vector<std::string> ReadFile::values(const std::string& name) const;

}  // namespace hesspect::hdf5
