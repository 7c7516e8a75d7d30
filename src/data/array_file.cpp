#include <ATen/ATen.h>

#include <array>
#include <fstream>
#include <limits>

#include "array_formats.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/hdf5_handle.h"
#include "hesspect/core/mapped_file.h"
#include "hesspect/core/text.h"

namespace hesspect {
namespace {

bool has_safetensors_start(const std::filesystem::path& path) {
  std::array<char, 9> start{};
  std::ifstream in(path, std::ios::binary);
  return in.read(start.data(), start.size()) && start[8] == '{';
}

}  // namespace

std::unique_ptr<ArrayFile> ArrayFile::open(const std::filesystem::path& path) {
  check_input_file(path);
  const hdf5::QuietErrors quiet;
  if (H5Fis_hdf5(path.c_str()) > 0) return open_hdf5_arrays(path);
  if (has_safetensors_start(path)) return open_safetensors_arrays(path);
  throw InputError(quote(path.string()) + " is neither an HDF5 nor a safetensors file (or was cut short)");
}

const ArrayInfo& ArrayFile::info(const std::string& name) const {
  const std::string plain = !name.empty() && name.front() == '/' ? name.substr(1) : name;
  std::vector<std::string> names;
  for (const ArrayInfo& array : arrays()) {
    if (array.name == plain) return array;
    names.push_back(array.name);
  }
  const std::string near = did_you_mean(plain, names);
  const std::string known = names.empty() ? "it holds no numeric array" : "it holds " + format_names(names);
  throw InputError(quote(path().string()) + " holds no numeric array " + quote(name) +
                   (near.empty() ? "; " + known : near));
}

at::Tensor ArrayFile::read_rows(const std::string& name, std::int64_t begin, std::int64_t end, std::int64_t dim) const {
  return read_slab(name, dim, begin, end).movedim(dim, 0).contiguous();
}

std::string array_in(const ArrayFile& file, const std::string& name) {
  return "array " + quote(name) + " in " + quote(file.path().string());
}

at::Tensor empty_slab(const ArrayFile& file, const ArrayInfo& info, std::int64_t dim, std::int64_t begin,
                      std::int64_t end) {
  const std::string what = array_in(file, info.name);
  if (info.shape.empty()) throw InputError(what + " is a scalar: it has no rows");
  const auto d = static_cast<std::size_t>(dim);
  if (dim < 0 || d >= info.shape.size())
    throw InputError(what + " has shape " + format_shape(info.shape) + ", and no dimension " + std::to_string(dim) +
                     " along which its rows could lie");
  if (begin < 0 || begin > end || end > info.shape[d])
    throw InputError(what + " has " + format_count(info.shape[d]) + " rows; rows " + std::to_string(begin) + " to " +
                     std::to_string(end) + " were asked for");
  std::vector<std::int64_t> shape = info.shape;
  shape[d] = end - begin;
  auto bytes = static_cast<std::int64_t>(c10::elementSize(info.dtype));
  bool fits = true;
  for (const std::int64_t size : shape) {
    fits = fits && (size == 0 || bytes <= std::numeric_limits<std::int64_t>::max() / size);
    bytes = fits ? bytes * size : bytes;
  }
  const auto too_large = [&] {
    const std::string needed = fits ? format_bytes(bytes) : "over 2^63 bytes";
    return MemoryError(bytes, -1, what + ": its rows need " + needed + " of memory, which cannot be had");
  };
  if (!fits) throw too_large();
  try {
    return at::empty(shape, at::TensorOptions(info.dtype));
  } catch (const c10::Error&) {
    throw too_large();
  }
}

at::Tensor empty_block(const ArrayFile& file, const ArrayInfo& info, std::int64_t at, std::int64_t begin,
                       std::int64_t end) {
  if (info.shape.size() < 2 || at < 0 || at >= info.shape[0])
    throw InputError(array_in(file, info.name) + " has shape " + format_shape(info.shape) + ", and no entry " +
                     std::to_string(at) + " with rows of its own");
  ArrayInfo one = info;
  one.shape.erase(one.shape.begin());
  return empty_slab(file, one, 0, begin, end);
}

void normalise_bool(const at::Tensor& tensor) {
  auto* bytes = static_cast<unsigned char*>(tensor.data_ptr());
  for (std::int64_t i = 0; i < tensor.numel(); ++i) bytes[i] = bytes[i] != 0 ? 1 : 0;
}

}  // namespace hesspect
