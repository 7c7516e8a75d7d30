// Sound HDF5 files of arbitrary content: a fuzz target's input as the calls that make one. Damaged ones are another
// matter (src/app/try_hdf5.cpp): libhdf5 itself ends the process over some of them.
#pragma once

#include <fuzzer/FuzzedDataProvider.h>
#include <hdf5.h>

#include <string>
#include <vector>

#include "hesspect/core/hdf5_handle.h"

namespace hesspect::fuzz {

/// Bytes of values are given again and again: a file of small size, whatever the shape.
class Hdf5Builder {
 public:
  explicit Hdf5Builder(FuzzedDataProvider& input) : input_(input) {}

  /// Makes the file at `path`. @return the names of its objects
  std::vector<std::string> build(const std::string& path) {
    const hdf5::QuietErrors quiet;
    const hdf5::PropertyList access(H5Pcreate(H5P_FILE_ACCESS));
    if (input_.ConsumeBool()) H5Pset_libver_bounds(access.get(), H5F_LIBVER_V110, H5F_LIBVER_V110);
    const hdf5::File file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()));
    std::vector<std::string> names;
    const int objects = input_.ConsumeIntegralInRange<int>(0, 6);
    for (int i = 0; i < objects; ++i) {
      const std::string name = (i % 2 == 0 ? "/entry/a" : "b") + std::to_string(i);
      add(file.get(), name);
      names.push_back(name);
    }
    names.insert(names.end(), {"/entry", "absent", "/entry/a0/inside", ""});
    attribute(file.get());
    return names;
  }

 private:
  hdf5::Type a_type() {
    const int kind = input_.ConsumeIntegralInRange<int>(0, 11);
    hdf5::Type type;
    switch (kind) {
      case 0:
      case 1: {
        static const std::vector<hid_t> kNumbers{H5T_STD_I8LE,   H5T_STD_U8LE,   H5T_STD_I16BE, H5T_STD_U16LE,
                                                 H5T_STD_I32LE,  H5T_STD_U32BE,  H5T_STD_I64LE, H5T_STD_U64LE,
                                                 H5T_IEEE_F32LE, H5T_IEEE_F64LE, H5T_IEEE_F64BE};
        return hdf5::Type(H5Tcopy(kNumbers[input_.ConsumeIntegralInRange<std::size_t>(0, kNumbers.size() - 1)]));
      }
      case 2:
      case 3: {
        type = hdf5::Type(H5Tcopy(H5T_C_S1));
        H5Tset_size(type.get(), input_.ConsumeIntegralInRange<std::size_t>(1, 9));
        H5Tset_strpad(type.get(), static_cast<H5T_str_t>(input_.ConsumeIntegralInRange<int>(0, 2)));
        return type;
      }
      case 4:
        type = hdf5::Type(H5Tcopy(H5T_C_S1));
        H5Tset_size(type.get(), H5T_VARIABLE);
        return type;
      case 5: {
        type = hdf5::Type(H5Tenum_create(input_.ConsumeBool() ? H5T_STD_I8LE : H5T_STD_I32LE));
        const bool is_bool = input_.ConsumeBool();
        const int no = 0, yes = 1;
        H5Tenum_insert(type.get(), is_bool ? "FALSE" : "red", &no);
        H5Tenum_insert(type.get(), is_bool ? "TRUE" : "blue", &yes);
        return type;
      }
      case 6:
        type = hdf5::Type(H5Tcreate(H5T_COMPOUND, 16));
        H5Tinsert(type.get(), "r", 0, H5T_NATIVE_DOUBLE);
        H5Tinsert(type.get(), "i", 8, H5T_NATIVE_DOUBLE);
        return type;
      case 7: {
        const hsize_t length = 3;
        return hdf5::Type(H5Tarray_create2(H5T_NATIVE_INT, 1, &length));
      }
      case 8: return hdf5::Type(H5Tcreate(H5T_OPAQUE, input_.ConsumeIntegralInRange<std::size_t>(1, 32)));
      case 9: {  // a float of an odd form
        type = hdf5::Type(H5Tcopy(H5T_IEEE_F32LE));
        H5Tset_fields(type.get(), 15, 10, 5, 0, 10);
        H5Tset_size(type.get(), 2);
        H5Tset_ebias(type.get(), 15);
        return type;
      }
      case 10: {  // an integer of an odd size
        type = hdf5::Type(H5Tcopy(H5T_STD_I64LE));
        H5Tset_precision(type.get(), input_.ConsumeIntegralInRange<std::size_t>(1, 64));
        H5Tset_size(type.get(), input_.ConsumeIntegralInRange<std::size_t>(1, 16));
        return type;
      }
      default: return hdf5::Type(H5Tvlen_create(H5T_NATIVE_INT));
    }
  }

  std::vector<hsize_t> a_shape() {
    std::vector<hsize_t> dims(input_.ConsumeIntegralInRange<std::size_t>(0, 4));
    for (hsize_t& size : dims)
      size = input_.ConsumeIntegralInRange<int>(0, 15) == 0 ? input_.ConsumeIntegral<std::uint64_t>()
                                                            : input_.ConsumeIntegralInRange<hsize_t>(0, 5);
    return dims;
  }

  void add(hid_t file, const std::string& name) {
    const hdf5::PropertyList link(H5Pcreate(H5P_LINK_CREATE));
    H5Pset_create_intermediate_group(link.get(), 1);
    switch (input_.ConsumeIntegralInRange<int>(0, 15)) {
      case 0: H5Gclose(H5Gcreate2(file, name.c_str(), link.get(), H5P_DEFAULT, H5P_DEFAULT)); return;
      case 1:
        H5Lcreate_soft(input_.ConsumeBool() ? "/entry" : name.c_str(), file, name.c_str(), link.get(), H5P_DEFAULT);
        return;
      case 2: H5Lcreate_external("other.h5", "/x", file, name.c_str(), link.get(), H5P_DEFAULT); return;
      case 3: H5Lcreate_hard(file, "/", file, name.c_str(), link.get(), H5P_DEFAULT); return;  // a cycle
      default: break;
    }
    const hdf5::Type type = a_type();
    const std::vector<hsize_t> dims = a_shape();
    const hdf5::PropertyList creation(H5Pcreate(H5P_DATASET_CREATE));
    hsize_t elements = 1;
    for (const hsize_t size : dims) elements = size > 1000 || elements > 1000 ? 100000 : elements * size;
    // What is large is chunked, of which nothing is there: else the file itself would be large.
    if (!dims.empty() && elements > 0 && (input_.ConsumeBool() || elements > 1000)) {
      std::vector<hsize_t> chunk(dims.size());
      for (hsize_t& size : chunk) size = input_.ConsumeIntegralInRange<hsize_t>(1, 4);
      H5Pset_chunk(creation.get(), static_cast<int>(chunk.size()), chunk.data());
      if (input_.ConsumeBool()) H5Pset_fletcher32(creation.get());
      if (input_.ConsumeBool()) H5Pset_deflate(creation.get(), 1);
    }
    const hdf5::Space space(input_.ConsumeIntegralInRange<int>(0, 15) == 0 ? H5Screate(H5S_NULL)
                            : dims.empty()                                 ? H5Screate(H5S_SCALAR)
                                           : H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr));
    const hdf5::Dataset dataset(
        H5Dcreate2(file, name.c_str(), type.get(), space.get(), link.get(), creation.get(), H5P_DEFAULT));
    if (!dataset || elements > 1000 || H5Tdetect_class(type.get(), H5T_VLEN) > 0) return;
    if (H5Tis_variable_str(type.get()) > 0) {
      const std::string text = input_.ConsumeRandomLengthString(8);
      const std::vector<const char*> pointers(elements, input_.ConsumeBool() ? text.c_str() : nullptr);
      H5Dwrite(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, pointers.data());
      return;
    }
    std::vector<std::uint8_t> pattern =
        input_.ConsumeBytes<std::uint8_t>(input_.ConsumeIntegralInRange<std::size_t>(0, 32));
    pattern.push_back(0);
    std::vector<std::uint8_t> values(elements * H5Tget_size(type.get()));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = pattern[i % pattern.size()];
    if (!values.empty()) H5Dwrite(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
  }

  void attribute(hid_t file) {
    if (input_.ConsumeBool()) return;
    const hdf5::Type type = a_type();
    std::vector<hsize_t> dims = a_shape();
    for (hsize_t& size : dims) size %= 8;  // HDF5 writes an attribute as a whole
    const hdf5::Space space(dims.empty() ? H5Screate(H5S_SCALAR)
                                         : H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr));
    const hdf5::Attribute mark(H5Acreate2(file, "hesspect_schema", type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT));
    const std::int64_t value = input_.ConsumeIntegral<std::int64_t>();
    if (mark && dims.empty() && H5Tget_class(type.get()) == H5T_INTEGER) H5Awrite(mark.get(), H5T_NATIVE_INT64, &value);
  }

  FuzzedDataProvider& input_;
};

}  // namespace hesspect::fuzz
