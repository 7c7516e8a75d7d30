// What this program was built from and with.
#pragma once

#include <string>

namespace hesspect {

struct BuildInfo {
  std::string version, git_revision, build_type, torch, hdf5, mpi;
  bool cuda = false;  // CUDA and NCCL are compiled in
};

BuildInfo build_info();
/// For --version, several lines.
std::string version_text();

}  // namespace hesspect
