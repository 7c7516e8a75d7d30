// hesspect-try-hdf5 FILE: reads an HDF5 file as hesspect will, so that a crash or an endless loop of the library over a
// damaged one ends this process instead (hesspect/core/hdf5_trial.h). Exit code 0 whatever HDF5 says of the file: the
// reader that comes after meets the same error and tells it.
//
// A result is read by hesspect's own reader. Of any other file every link is followed, and of every dataset its type
// and shape are read, all of its index, and all of its values where they are few, else its first and last row.
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <vector>

#include "hesspect/core/errors.h"
#include "hesspect/core/hdf5_handle.h"
#include "hesspect/io/result_file.h"

namespace {

using namespace hesspect;

constexpr hsize_t kMostBytes = hsize_t{4} << 20;         // of values read at a time
constexpr hsize_t kLargestChunk = hsize_t{64} << 20;     // a compressed chunk is read as a whole
constexpr rlim_t kMostMemory = rlim_t{8} << 30;          // of addresses
constexpr rlim_t kLeastSeconds = 2, kMostSeconds = 120;  // of processor time: a sound result takes milliseconds
constexpr off_t kBytesPerSecond = off_t{2} << 20;
constexpr unsigned kWallSeconds = 300;  // a file system that does not answer

/// More time for larger files, which may have more datasets.
void set_limits(const char* path) {
  struct stat info {};
  if (::stat(path, &info) != 0) info.st_size = 0;
  const rlim_t seconds = std::min(kMostSeconds, kLeastSeconds + static_cast<rlim_t>(info.st_size / kBytesPerSecond));
  const rlimit no_core{0, 0}, processor{seconds, seconds + 1};
  ::setrlimit(RLIMIT_CORE, &no_core);
  ::setrlimit(RLIMIT_CPU, &processor);
#ifndef __SANITIZE_ADDRESS__
  const rlimit memory{kMostMemory, kMostMemory};
  ::setrlimit(RLIMIT_AS, &memory);
#endif
  ::alarm(kWallSeconds);
}

/// The type that values are read as; none for what hesspect does not read from data: texts, for one.
hid_t memory_type(hid_t stored) {
  switch (H5Tget_class(stored)) {
    case H5T_FLOAT: return H5T_NATIVE_DOUBLE;
    case H5T_INTEGER:
    case H5T_ENUM: return H5T_NATIVE_INT64;
    case H5T_COMPOUND:  // complex numbers, as h5py writes them
      return H5Tdetect_class(stored, H5T_VLEN) > 0 ? H5I_INVALID_HID : stored;
    default: return H5I_INVALID_HID;
  }
}

void read_rows(hid_t dataset, hid_t type, const std::vector<hsize_t>& dims, hsize_t first, hsize_t rows) {
  const hdf5::Space in_file(H5Dget_space(dataset));
  std::vector<hsize_t> start(dims.size(), 0), count(dims);
  hsize_t bytes = H5Tget_size(type);
  if (!dims.empty()) {
    start[0] = first;
    count[0] = rows;
    H5Sselect_hyperslab(in_file.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr);
  }
  for (const hsize_t size : count) {
    if (size == 0 || bytes > kMostBytes / size) return;
    bytes *= size;
  }
  const hdf5::Space in_memory(count.empty() ? H5Screate(H5S_SCALAR)
                                            : H5Screate_simple(static_cast<int>(count.size()), count.data(), nullptr));
  std::vector<char> values(bytes);
  H5Dread(dataset, type, in_memory.get(), in_file.get(), H5P_DEFAULT, values.data());
}

/// False where one chunk would take more memory than a trial is worth.
bool visit_chunks(hid_t dataset) {
  const hdf5::PropertyList creation(H5Dget_create_plist(dataset));
  if (H5Pget_layout(creation.get()) != H5D_CHUNKED) return true;
  std::array<hsize_t, H5S_MAX_RANK> sizes{};
  const int rank = H5Pget_chunk(creation.get(), H5S_MAX_RANK, sizes.data());
  const hdf5::Type type(H5Dget_type(dataset));
  hsize_t bytes = std::max<std::size_t>(H5Tget_size(type.get()), 1);
  for (int d = 0; d < rank; ++d) {
    const hsize_t size = sizes[static_cast<std::size_t>(d)];
    if (size == 0 || bytes > kLargestChunk / size) return false;
    bytes *= size;
  }
#if H5_VERSION_GE(1, 10, 5)
  const hdf5::Space space(H5Dget_space(dataset));
  hsize_t chunks = 0;
  H5Dget_num_chunks(dataset, space.get(), &chunks);
#endif
  return true;
}

void read_dataset(hid_t dataset) {
  const hdf5::Type stored(H5Dget_type(dataset));
  const hdf5::Space space(H5Dget_space(dataset));
  const int rank = H5Sget_simple_extent_ndims(space.get());
  if (!stored || rank < 0 || H5Sget_simple_extent_type(space.get()) == H5S_NULL) return;
  const int members = H5Tget_class(stored.get()) == H5T_ENUM ? std::min(H5Tget_nmembers(stored.get()), 2) : 0;
  for (int member = 0; member < members; ++member)
    H5free_memory(H5Tget_member_name(stored.get(), static_cast<unsigned>(member)));
  std::vector<hsize_t> dims(static_cast<std::size_t>(rank));
  if (rank > 0) H5Sget_simple_extent_dims(space.get(), dims.data(), nullptr);
  const hid_t type = memory_type(stored.get());
  if (type < 0 || !visit_chunks(dataset)) return;
  const hsize_t rows = dims.empty() ? 1 : dims[0];
  hsize_t row_bytes = std::max<std::size_t>(H5Tget_size(type), 1);
  for (std::size_t d = 1; d < dims.size(); ++d) {
    if (dims[d] == 0 || row_bytes > kMostBytes / dims[d]) return;
    row_bytes *= dims[d];
  }
  if (rows <= kMostBytes / row_bytes) {
    read_rows(dataset, type, dims, 0, rows);
  } else {
    read_rows(dataset, type, dims, 0, 1);
    read_rows(dataset, type, dims, rows - 1, 1);
  }
}

herr_t visit(hid_t root, const char* name, const H5L_info_t* link, void*) {
  if (link->type != H5L_TYPE_HARD && link->type != H5L_TYPE_SOFT) return 0;
  const hdf5::Object object(H5Oopen(root, name, H5P_DEFAULT));
  if (object && H5Iget_type(object.get()) == H5I_DATASET) read_dataset(object.get());
  return 0;
}

void read_links(const char* path) {
  const hdf5::PropertyList access(H5Pcreate(H5P_FILE_ACCESS));
#if H5_VERSION_GE(1, 10, 7)
  H5Pset_file_locking(access.get(), false, true);
#endif
  const hdf5::File file(H5Fopen(path, H5F_ACC_RDONLY, access.get()));
  if (file) H5Lvisit(file.get(), H5_INDEX_NAME, H5_ITER_NATIVE, visit, nullptr);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return static_cast<int>(ExitCode::kUsage);
  set_limits(argv[1]);
  const hdf5::QuietErrors quiet;
  try {
    if (is_result(argv[1]))
      (void)read_result(argv[1]);
    else
      read_links(argv[1]);
  } catch (const std::exception&) {  // for the reader that comes after
  }
  return 0;
}
