// Data files: every array that is listed can be read, or refused, by rows. The first byte says whether the rest is a
// safetensors file or what a sound HDF5 file is made of.
#include <ATen/ATen.h>

#include "harness.h"
#include "hdf5_builder.h"
#include "hesspect/data/dataset.h"

using namespace hesspect;

namespace {

constexpr std::int64_t kMostRead = 1 << 20;  // bytes: what is larger is left alone, for any shape may be true

void read_all(const std::filesystem::path& path) {
  const auto file = ArrayFile::open(path);
  for (const ArrayInfo& array : file->arrays()) {
    std::int64_t bytes = static_cast<std::int64_t>(c10::elementSize(array.dtype));
    for (const std::int64_t size : array.shape)
      bytes = size > kMostRead || bytes > kMostRead ? kMostRead + 1 : bytes * size;
    const std::int64_t rows = array.shape.empty() ? 0 : array.shape[0];
    fuzz::reads([&] { (void)file->read_rows(array.name, 0, 0); });
    fuzz::reads([&] { (void)file->read_rows(array.name, rows, rows + 1); });
    if (bytes <= kMostRead)
      fuzz::reads([&] {
        const at::Tensor values = file->read_rows(array.name, rows / 2, rows);
        fuzz::require(values.size(0) == rows - rows / 2, "another number of rows than was asked for");
      });
    if (bytes <= kMostRead) fuzz::reads([&] { (void)load_shard(*file, {path, {array.name}, "", 0}, 2, 1); });
  }
  fuzz::reads([&] { (void)file->info("absent"); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  if (data[0] % 4 == 0) {
    const auto path = fuzz::on_disk(fuzz::text_of(data + 1, size - 1), "data.safetensors");
    fuzz::reads([&] { read_all(path); });
    return 0;
  }
  FuzzedDataProvider input(data + 1, size - 1);
  static const std::string path = fuzz::on_disk("", "data.h5").string();
  fuzz::Hdf5Builder(input).build(path);
  fuzz::reads([&] { read_all(path); });
  return 0;
}
