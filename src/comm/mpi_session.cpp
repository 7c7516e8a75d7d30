#include "hesspect/comm/mpi_session.h"

#include <mpi.h>
#include <sys/stat.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>

#include "hesspect/core/errors.h"

namespace hesspect {
namespace {

bool started_by_launcher() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_FD", "PMI_PORT", "MPIRUN_RANK"})
    if (std::getenv(name) != nullptr) return true;
  return false;
}

/// Between processes of one host Open MPI needs no network, but loads all that it knows of: libpsm2 alone sleeps for
/// 0.2 s as it is loaded, to measure the clock. What the user has chosen stays.
void leave_networks_out(const char* transports) {
  for (const char* name : {"OMPI_MCA_pml", "OMPI_MCA_mtl", "OMPI_MCA_btl"})
    if (std::getenv(name) != nullptr) return;
  setenv("OMPI_MCA_pml", "ob1", 0);
  setenv("OMPI_MCA_btl", transports, 0);
}

/// Whether mpirun says that all ranks are on this host.
bool all_on_this_host() {
  const char* here = std::getenv("OMPI_COMM_WORLD_LOCAL_SIZE");
  const char* all = std::getenv("OMPI_COMM_WORLD_SIZE");
  return here != nullptr && all != nullptr && std::strcmp(here, all) == 0;
}

}  // namespace

void keep_folder_of_sessions() {
  if (const char* folder = std::getenv("OMPI_MCA_orte_top_session_dir"))
    mkdir((std::string(folder) + "/kept_for_hesspect").c_str(), S_IRWXU);  // is there already, or can't be: as before
}

MpiSession::MpiSession(int& argc, char**& argv) : exceptions_(std::uncaught_exceptions()) {
  int initialised = 0;
  MPI_Initialized(&initialised);
  if (initialised == 0) {
    // Alone, Open MPI would start a daemon for processes that might be spawned later (0.2 s); hesspect spawns none. And
    // all such processes of a user would share one session folder, where they get in each other's way.
    if (!started_by_launcher()) {
      setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
      setenv("OMPI_MCA_orte_create_session_dirs", "0", 0);
      leave_networks_out("self");
    } else if (all_on_this_host()) {
      leave_networks_out("self,vader,tcp");
    }
    int provided = 0;
    const int rc = MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
    if (rc != MPI_SUCCESS)
      throw CommError("MPI_Init_thread", -1, "MPI_Init_thread failed with code " + std::to_string(rc));
    owned_ = true;
  }
  keep_folder_of_sessions();
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
  MPI_Comm_size(MPI_COMM_WORLD, &size_);
  const char* tasks = std::getenv("SLURM_STEP_NUM_TASKS");
  if (size_ == 1 && tasks != nullptr && std::atoi(tasks) > 1 && std::getenv("OMPI_COMM_WORLD_SIZE") == nullptr) {
    if (owned_) MPI_Finalize();  // this constructor throws: the destructor will not run
    throw UsageError("srun started " + std::string(tasks) + " tasks but MPI sees one: use srun --mpi=pmix or mpirun");
  }
}

MpiSession::~MpiSession() {
  if (!owned_ || std::uncaught_exceptions() > exceptions_) return;
  int finalised = 0;
  MPI_Finalized(&finalised);
  if (finalised == 0) MPI_Finalize();
}

}  // namespace hesspect
