#include "hesspect/io/vectors_file.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <numeric>
#include <type_traits>

#include "hesspect/core/errors.h"
#include "vectors_layout.h"

namespace hesspect {
namespace {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "files of vectors are little-endian");

enum class Format { kNone, kHdf5, kSafetensors };

Format format_of(const fs::path& path) {
  const std::string suffix = path.extension().string();
  if (suffix == ".h5" || suffix == ".hdf5") return Format::kHdf5;
  return suffix == ".safetensors" ? Format::kSafetensors : Format::kNone;
}

std::int64_t bytes_per_element(const VectorsInfo& info) { return info.float64 ? 8 : 4; }

std::int64_t all_bytes(const VectorsInfo& info) {
  std::int64_t sum = 0;
  for (const auto& part : info.parts) sum += bytes_of(part, info);
  return sum;
}

void check_parts(const VectorsInfo& info) {
  for (const auto& part : info.parts) {
    const std::int64_t entries = entries_of(part);
    const std::int64_t held = part.rows ? entries / part.shape.front() * std::ssize(*part.rows) : entries;
    if (held != part.size || part.offset < 0)
      throw Error(ExitCode::kInternal, "the vectors' part '" + part.name + "' has another size than its shape says");
  }
}

std::vector<std::int64_t> lay_out(Format format, TemporaryFile& file, const VectorsInfo& info) {
  // A full disk shows here, not after the first hour of writing; nor within HDF5, which can't close a file whose writes
  // fail, and crashes over it when the program ends.
  const bool hdf5 = format == Format::kHdf5;
  file.reserve(all_bytes(info) + (hdf5 ? layout_bytes_hdf5(info) : 0));
  return hdf5 ? lay_out_hdf5(file, info) : lay_out_safetensors(file, info);
}

}  // namespace

std::int64_t entries_of(const VectorPart& part) {
  return std::accumulate(part.shape.begin(), part.shape.end(), std::int64_t{1}, std::multiplies<>());
}

std::int64_t bytes_of(const VectorPart& part, const VectorsInfo& info) {
  return static_cast<std::int64_t>(info.values.size()) * entries_of(part) * bytes_per_element(info);
}

std::vector<std::int64_t> shape_of(const VectorPart& part, const VectorsInfo& info) {
  std::vector<std::int64_t> shape{static_cast<std::int64_t>(info.values.size())};
  shape.insert(shape.end(), part.shape.begin(), part.shape.end());
  return shape;
}

struct VectorsFile::Impl {
  Impl(Format format, const fs::path& target, const VectorsInfo& what)
      : info(what), file(target), offset(lay_out(format, file, info)), written(info.values.size(), false) {}

  template <class T>
  void write(std::int64_t i, std::span<const T> flat);
  template <class T>
  void write_piece(std::int64_t i, std::int64_t begin, std::span<const T> entries);
  void write_unit(std::int64_t i, std::int64_t entry);
  void note(std::int64_t i);
  std::int64_t place(std::int64_t i, std::size_t p) const {
    return offset[p] + i * entries_of(info.parts[p]) * bytes_per_element(info);
  }
  template <class T>
  void write_part(std::int64_t i, std::size_t p, std::span<const T> entries) {
    const VectorPart& part = info.parts[p];
    if (!part.rows) return file.write_at(place(i, p), std::as_bytes(entries));
    const auto width = static_cast<std::size_t>(entries_of(part) / part.shape.front());
    const auto bytes = static_cast<std::int64_t>(width * sizeof(T));
    std::int64_t next = 0;  // row of the file
    for (std::size_t r = 0; r < part.rows->size(); ++r) {
      const std::int64_t row = (*part.rows)[r];
      write_zeros(place(i, p) + next * bytes, (row - next) * bytes);
      file.write_at(place(i, p) + row * bytes, std::as_bytes(entries.subspan(r * width, width)));
      next = row + 1;
    }
    write_zeros(place(i, p) + next * bytes, (part.shape.front() - next) * bytes);
  }
  void write_zeros(std::int64_t at, std::int64_t bytes) {
    static const std::vector<std::byte> zeros(std::size_t{1} << 20);
    for (std::int64_t done = 0; done < bytes; done += std::ssize(zeros))
      file.write_at(at + done,
                    std::span(zeros).first(static_cast<std::size_t>(std::min(bytes - done, std::ssize(zeros)))));
  }

  VectorsInfo info;
  TemporaryFile file;
  std::vector<std::int64_t> offset;
  std::vector<bool> written;
};

template <class T>
void VectorsFile::Impl::write(std::int64_t i, std::span<const T> flat) {
  using Other = std::conditional_t<std::is_same_v<T, float>, double, float>;
  note(i);
  for (std::size_t p = 0; p < info.parts.size(); ++p) {
    const VectorPart& part = info.parts[p];
    if (part.offset + part.size > static_cast<std::int64_t>(flat.size()))
      throw Error(ExitCode::kInternal, "the vectors' part '" + part.name + "' ends beyond the vector");
    const auto entries = flat.subspan(static_cast<std::size_t>(part.offset), static_cast<std::size_t>(part.size));
    if (info.float64 == std::is_same_v<T, double>) {
      write_part(i, p, entries);
    } else {
      const std::vector<Other> converted(entries.begin(), entries.end());
      write_part(i, p, std::span<const Other>(converted));
    }
  }
}

template <class T>
void VectorsFile::Impl::write_piece(std::int64_t i, std::int64_t begin, std::span<const T> entries) {
  using Other = std::conditional_t<std::is_same_v<T, float>, double, float>;
  note(i);
  const auto part = std::ranges::find_if(
      info.parts, [&](const VectorPart& one) { return one.offset <= begin && begin < one.offset + one.size; });
  const bool is_in_part = part != info.parts.end() && begin + std::ssize(entries) <= part->offset + part->size;
  const bool is_whole = is_in_part && begin == part->offset && std::ssize(entries) == part->size;
  if (!is_in_part || (part->rows && !is_whole))  // rows that the vector has lie apart in the file
    throw Error(ExitCode::kInternal, "a piece of a vector is not of one part");
  const auto p = static_cast<std::size_t>(part - info.parts.begin());
  const auto put = [&](auto of_file) {
    if (is_whole) return write_part(i, p, of_file);
    file.write_at(place(i, p) + (begin - part->offset) * bytes_per_element(info), std::as_bytes(of_file));
  };
  if (info.float64 == std::is_same_v<T, double>) return put(entries);
  const std::vector<Other> converted(entries.begin(), entries.end());
  put(std::span<const Other>(converted));
}

void VectorsFile::Impl::note(std::int64_t i) {
  if (i < 0 || i >= static_cast<std::int64_t>(written.size()))
    throw Error(ExitCode::kInternal, "vector " + std::to_string(i) + " of " + std::to_string(written.size()));
  written[static_cast<std::size_t>(i)] = true;
}

void VectorsFile::Impl::write_unit(std::int64_t i, std::int64_t entry) {
  note(i);
  for (std::size_t p = 0; p < info.parts.size(); ++p) {
    const std::int64_t entries = entries_of(info.parts[p]), bytes = bytes_per_element(info);
    write_zeros(place(i, p), entries * bytes);
    const float one = 1;
    const double one_double = 1;
    if (entry >= 0 && entry < entries)
      file.write_at(place(i, p) + entry * bytes,
                    info.float64 ? std::as_bytes(std::span(&one_double, 1)) : std::as_bytes(std::span(&one, 1)));
    entry -= entries;
  }
}

bool VectorsFile::is_known(const fs::path& path) { return format_of(path) != Format::kNone; }

VectorsFile::VectorsFile(const fs::path& path, const VectorsInfo& info) {
  if (!is_known(path))
    throw UsageError("'" + path.string() + "': expected a name that ends in .h5, .hdf5 or .safetensors");
  check_parts(info);
  impl_ = std::make_unique<Impl>(format_of(path), target_of(path), info);
}

VectorsFile::~VectorsFile() = default;

void VectorsFile::write(std::int64_t i, std::span<const float> flat) { impl_->write(i, flat); }
void VectorsFile::write(std::int64_t i, std::span<const double> flat) { impl_->write(i, flat); }
void VectorsFile::write_piece(std::int64_t i, std::int64_t begin, std::span<const float> entries) {
  impl_->write_piece(i, begin, entries);
}
void VectorsFile::write_piece(std::int64_t i, std::int64_t begin, std::span<const double> entries) {
  impl_->write_piece(i, begin, entries);
}
void VectorsFile::write_unit(std::int64_t i, std::int64_t entry) { impl_->write_unit(i, entry); }

void VectorsFile::commit() {
  for (std::size_t i = 0; i < impl_->written.size(); ++i)
    if (!impl_->written[i]) throw Error(ExitCode::kInternal, "vector " + std::to_string(i) + " was never written");
  impl_->file.sync_and_close();
  impl_->file.rename();
}

}  // namespace hesspect
