#include "build_info.h"

#include <hdf5.h>
#include <mpi.h>
#include <torch/csrc/api/include/torch/version.h>

#include "git_revision.h"

namespace hesspect {

BuildInfo build_info() {
  BuildInfo info;
  info.version = HESSPECT_VERSION;
  info.git_revision = HESSPECT_GIT_REVISION;
  info.build_type = HESSPECT_BUILD_TYPE;
  info.torch = TORCH_VERSION;
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  info.hdf5 = std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(release);
  char mpi[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  MPI_Get_library_version(mpi, &length);
  info.mpi = std::string(mpi, static_cast<std::size_t>(length)).substr(0, std::string(mpi).find(','));
#ifdef HESSPECT_HAVE_CUDA
  info.cuda = true;
#endif
  return info;
}

std::string version_text() {
  const BuildInfo b = build_info();
  return "hesspect " + b.version + " (" + b.git_revision + ", " + b.build_type + ")\n" + "LibTorch " + b.torch + "\n" +
         "HDF5 " + b.hdf5 + "\n" + b.mpi + "\n" + "CUDA and NCCL: " + (b.cuda ? "compiled in" : "not compiled in") +
         "\n";
}

}  // namespace hesspect
