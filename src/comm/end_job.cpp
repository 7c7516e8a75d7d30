#include "hesspect/comm/end_job.h"

#include <dlfcn.h>
#include <mpi.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace hesspect {
namespace {

/// Of the type that Open MPI 4 has (opal/util/show_help.h).
using ShowHelp = int (*)(const char* file, const char* topic, bool with_header, ...);

int show_nothing(const char*, const char*, bool, ...) { return 0; }

/// Where Open MPI 4 keeps its function; none in others. In Open MPI 5 the name is a function's, and must not be written
/// to.
ShowHelp* show_help() {
  char version[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  if (MPI_Get_library_version(version, &length) != MPI_SUCCESS) return nullptr;
  if (!std::string_view(version).starts_with("Open MPI v4.")) return nullptr;
  return static_cast<ShowHelp*>(dlsym(RTLD_DEFAULT, "opal_show_help"));
}

}  // namespace

bool can_end_silently() { return std::getenv("OMPI_COMMAND") != nullptr && show_help() != nullptr; }

void abort_job(int exit_code) {
  std::fflush(nullptr);
  if (can_end_silently()) *show_help() = show_nothing;
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  _exit(exit_code);  // MPI_Abort does not come back
}

void end_job(int exit_code, int rank) {
  if (exit_code == 0 || !can_end_silently()) return;
  if (rank == 0) abort_job(exit_code);
  std::signal(SIGTERM, SIG_DFL);  // by which mpirun ends the others: nothing is left to save
}

}  // namespace hesspect
