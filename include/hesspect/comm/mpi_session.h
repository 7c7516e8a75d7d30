// MPI's lifetime as an object.
#pragma once

namespace hesspect {

/// After MPI_Init, under Open MPI's mpirun; else it does nothing. All mpirun of a user on a host share a folder, which
/// each makes at its start and removes at its end where it is empty: one that ends while another starts can take it
/// from under it ("unable to create the desired directory", exit code 1). What this leaves in it keeps it from being
/// empty.
void keep_folder_of_sessions();

/// Initialises MPI, and finalises it when destroyed. Works under mpirun, srun, or with no launcher (one rank).
///
/// While an exception unwinds it does not finalise: the other ranks may be inside a collective that this one will never
/// join, and MPI_Finalize would wait for them. The process then leaves without finalising, and the launcher ends the
/// rest. Where MPI is already initialised it does nothing.
class MpiSession {
 public:
  /// @throws CommError{"MPI_Init_thread"}
  MpiSession(int& argc, char**& argv);
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }

 private:
  bool owned_ = false;
  int exceptions_ = 0;  // in flight when it was made
  int rank_ = 0;
  int size_ = 1;
};

}  // namespace hesspect
