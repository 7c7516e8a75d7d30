#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <limits>
#include <optional>

#include "array_formats.h"
#include "hesspect/core/element_type_torch.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/hdf5_handle.h"
#include "hesspect/core/text.h"

namespace hesspect {
namespace {

std::vector<std::string> member_names(hid_t type) {
  std::vector<std::string> names;
  for (int member = 0; member < H5Tget_nmembers(type); ++member) {
    char* name = H5Tget_member_name(type, static_cast<unsigned>(member));
    names.emplace_back(name != nullptr ? name : "");
    H5free_memory(name);
  }
  return names;
}

/// The names that h5py gives to numpy's bool: an enumeration of FALSE = 0 and TRUE = 1.
bool is_bool_enum(hid_t type) {
  std::vector<std::string> names = member_names(type);
  for (std::string& name : names)
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::toupper(c); });
  return names == std::vector<std::string>{"FALSE", "TRUE"};
}

/// The pair of a real and an imaginary part that h5py makes of a complex number.
bool is_complex_pair(hid_t type) {
  return member_names(type) == std::vector<std::string>{"r", "i"} && H5Tget_member_class(type, 0) == H5T_FLOAT &&
         H5Tget_member_class(type, 1) == H5T_FLOAT;
}

/// That pair in memory, of complex64 or complex128.
hdf5::Type complex_in_memory(ElementType type) {
  const hid_t part = type == ElementType::kC64 ? H5T_NATIVE_FLOAT : H5T_NATIVE_DOUBLE;
  hdf5::Type pair(H5Tcreate(H5T_COMPOUND, element_size(type)));
  H5Tinsert(pair.get(), "r", 0, part);
  H5Tinsert(pair.get(), "i", element_size(type) / 2, part);
  return pair;
}

/// What an HDF5 type is read as: the narrowest of our types that holds all its values. float16 is widened to float32,
/// unsigned integers beyond 8 bits to the next signed ones.
std::optional<ElementType> element_type_of(hid_t type) {
  const std::size_t size = H5Tget_size(type);
  switch (H5Tget_class(type)) {
    case H5T_FLOAT: return size <= 4 ? ElementType::kF32 : ElementType::kF64;
    case H5T_INTEGER: {
      const bool is_signed = H5Tget_sign(type) != H5T_SGN_NONE;
      if (size == 1) return is_signed ? ElementType::kI8 : ElementType::kU8;
      if (size == 2) return is_signed ? ElementType::kI16 : ElementType::kI32;
      if (size == 4) return is_signed ? ElementType::kI32 : ElementType::kI64;
      if (size == 8) return ElementType::kI64;
      return std::nullopt;
    }
    case H5T_ENUM: {
      if (is_bool_enum(type)) return ElementType::kBool;
      const hdf5::Type base(H5Tget_super(type));
      return base ? element_type_of(base.get()) : std::nullopt;
    }
    case H5T_COMPOUND:
      if (!is_complex_pair(type)) return std::nullopt;
      return size <= element_size(ElementType::kC64) ? ElementType::kC64 : ElementType::kC128;
    default: return std::nullopt;
  }
}

hid_t memory_type(ElementType type) {
  switch (type) {
    case ElementType::kBool:
    case ElementType::kI8: return H5T_NATIVE_INT8;
    case ElementType::kU8: return H5T_NATIVE_UINT8;
    case ElementType::kI16: return H5T_NATIVE_INT16;
    case ElementType::kI32: return H5T_NATIVE_INT32;
    case ElementType::kI64: return H5T_NATIVE_INT64;
    case ElementType::kF32: return H5T_NATIVE_FLOAT;
    case ElementType::kF64: return H5T_NATIVE_DOUBLE;
    default: return H5I_INVALID_HID;  // complex_in_memory has the complex ones, element_type_of gives no others
  }
}

/// Name, type and shape of a dataset; nothing for what holds no numbers.
std::optional<ArrayInfo> describe(hid_t dataset, const std::string& name) {
  const hdf5::Type type(H5Dget_type(dataset));
  const hdf5::Space space(H5Dget_space(dataset));
  if (!type || !space || H5Sget_simple_extent_type(space.get()) == H5S_NULL) return std::nullopt;
  const auto element = element_type_of(type.get());
  const int rank = H5Sget_simple_extent_ndims(space.get());
  if (!element || rank < 0) return std::nullopt;
  std::array<hsize_t, H5S_MAX_RANK> sizes{};
  H5Sget_simple_extent_dims(space.get(), sizes.data(), nullptr);
  ArrayInfo info{name, to_scalar_type(*element), {}};
  for (std::size_t i = 0; i < static_cast<std::size_t>(rank); ++i) {
    if (sizes[i] > static_cast<hsize_t>(std::numeric_limits<std::int64_t>::max())) return std::nullopt;
    info.shape.push_back(static_cast<std::int64_t>(sizes[i]));
  }
  return info;
}

/// HDF5's callback for each link. Links into other files are not followed.
herr_t add_link(hid_t root, const char* name, const H5L_info_t* link, void* out) {
  if (link->type != H5L_TYPE_HARD && link->type != H5L_TYPE_SOFT) return 0;
  try {
    const hdf5::Object object(H5Oopen(root, name, H5P_DEFAULT));
    if (!object || H5Iget_type(object.get()) != H5I_DATASET) return 0;
    if (auto info = describe(object.get(), name))
      static_cast<std::vector<ArrayInfo>*>(out)->push_back(std::move(*info));
  } catch (...) {
    return -1;  // no exception may cross the C library
  }
  return 0;
}

/// 64-bit unsigned values beyond int64 are clipped by HDF5, to the largest int64.
bool may_clip(hid_t dataset) {
  const hdf5::Type type(H5Dget_type(dataset));
  return H5Tget_class(type.get()) == H5T_INTEGER && H5Tget_size(type.get()) == 8 &&
         H5Tget_sign(type.get()) == H5T_SGN_NONE;
}

class Hdf5Arrays final : public ArrayFile {
 public:
  explicit Hdf5Arrays(const std::filesystem::path& path) : ArrayFile(path) {
    const hdf5::QuietErrors quiet;
    const hdf5::PropertyList access(H5Pcreate(H5P_FILE_ACCESS));
#if H5_VERSION_GE(1, 10, 7)
    // Readers need no lock, and parallel file systems often have none.
    H5Pset_file_locking(access.get(), false, true);
#endif
    file_ = hdf5::File(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()));
    if (!file_) fail("cannot be opened as HDF5");
    if (H5Lvisit(file_.get(), H5_INDEX_NAME, H5_ITER_NATIVE, add_link, &arrays_) < 0)
      fail("its contents cannot be listed");
    std::sort(arrays_.begin(), arrays_.end(), [](const ArrayInfo& a, const ArrayInfo& b) { return a.name < b.name; });
  }

  std::string format() const override { return "HDF5"; }

  at::Tensor read_slab(const std::string& name, std::int64_t dim, std::int64_t begin, std::int64_t end) const override {
    const ArrayInfo& array = info(name);
    const at::Tensor rows = empty_slab(*this, array, dim, begin, end);
    std::vector<hsize_t> start(array.shape.size(), 0), count(array.shape.begin(), array.shape.end());
    start[static_cast<std::size_t>(dim)] = static_cast<hsize_t>(begin);
    count[static_cast<std::size_t>(dim)] = static_cast<hsize_t>(end - begin);
    read(array, start, count, "rows " + std::to_string(begin) + " to " + std::to_string(end), rows);
    return rows;
  }

  at::Tensor read_block(const std::string& name, std::int64_t at, std::int64_t begin, std::int64_t end) const override {
    const ArrayInfo& array = info(name);
    const at::Tensor block = empty_block(*this, array, at, begin, end);
    std::vector<hsize_t> start(array.shape.size(), 0), count(array.shape.begin(), array.shape.end());
    start[0] = static_cast<hsize_t>(at);
    count[0] = 1;
    start[1] = static_cast<hsize_t>(begin);
    count[1] = static_cast<hsize_t>(end - begin);
    read(array, start, count, "entry " + std::to_string(at), block);
    return block;
  }

 private:
  /// Into `to`, which is contiguous and as large as what is read of the array.
  /// @param what  for messages
  void read(const ArrayInfo& array, const std::vector<hsize_t>& start, const std::vector<hsize_t>& count,
            const std::string& what, const at::Tensor& to) const {
    if (to.numel() == 0) return;
    const hdf5::QuietErrors quiet;
    const hdf5::Dataset dataset(H5Dopen2(file_.get(), array.name.c_str(), H5P_DEFAULT));
    if (!dataset) fail("array " + quote(array.name) + " cannot be opened");
    const hdf5::Space in_file(H5Dget_space(dataset.get()));
    const hdf5::Space in_memory(H5Screate_simple(static_cast<int>(count.size()), count.data(), nullptr));
    const ElementType element = *from_scalar_type(array.dtype);
    const hdf5::Type pair = is_complex(element) ? complex_in_memory(element) : hdf5::Type();
    const hid_t type = is_complex(element) ? pair.get() : memory_type(element);
    if (!in_file || !in_memory ||
        H5Sselect_hyperslab(in_file.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr) < 0 ||
        H5Dread(dataset.get(), type, in_memory.get(), in_file.get(), H5P_DEFAULT, to.data_ptr()) < 0)
      fail(what + " of array " + quote(array.name) + " cannot be read");
    if (array.dtype == at::kBool) normalise_bool(to);
    if (may_clip(dataset.get()) && to.eq(std::numeric_limits<std::int64_t>::max()).any().item<bool>())
      throw InputError(array_in(*this, array.name) + " holds an unsigned value that does not fit int64");
  }

  [[noreturn]] void fail(const std::string& what) const {
    const std::string why = hdf5::last_error();
    throw InputError(quote(path_.string()) + ": " + what + (why.empty() ? "" : " (" + one_line(why) + ")"));
  }

  hdf5::File file_;
};

}  // namespace

std::unique_ptr<ArrayFile> open_hdf5_arrays(const std::filesystem::path& path) {
  return std::make_unique<Hdf5Arrays>(path);
}

}  // namespace hesspect
