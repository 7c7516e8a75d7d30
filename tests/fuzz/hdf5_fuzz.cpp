// The reader of results over sound HDF5 files of arbitrary content: each of its calls on each of their objects.
#include "../../src/io/hdf5_tree.h"
#include "harness.h"
#include "hdf5_builder.h"
#include "hesspect/io/result_file.h"

using namespace hesspect;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  static const std::string path = fuzz::on_disk("").string();
  const std::vector<std::string> names = fuzz::Hdf5Builder(input).build(path);
  (void)is_result(path);
  fuzz::reads([&] { (void)read_result(path); });
  fuzz::reads([&] {
    const hdf5::ReadFile file(path);
    for (const std::string& name : names) {
      fuzz::reads([&] { (void)file.has(name); });
      fuzz::reads([&] { (void)file.root_attribute(name); });
      fuzz::reads([&] { (void)file.dims(name); });
      fuzz::reads([&] { (void)file.values<double>(name); });
      fuzz::reads([&] { (void)file.values<std::int64_t>(name); });
      fuzz::reads([&] { (void)file.value<std::uint64_t>(name); });
      fuzz::reads([&] { (void)file.value<std::string>(name); });
    }
  });
  return 0;
}
