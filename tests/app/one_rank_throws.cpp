// Laid before MPI by LD_PRELOAD: in each of the first ONE_RANK_THROWS runs of a service one rank, another one each
// time, is out of memory at a message of the run, a later one each time. A run's messages begin with MPI_Iallreduce
// (comm/containment.h), which nothing else of hesspect calls; ranks wait in MPI_Ibarrier before and after each run.
#include <dlfcn.h>
#include <mpi.h>

#include <cstdlib>
#include <new>

namespace {

constexpr int kFirst = 3, kFurther = 4;

int barriers = 0, messages = 0;

}  // namespace

extern "C" int MPI_Ibarrier(MPI_Comm comm, MPI_Request* request) {
  static auto* const real = reinterpret_cast<int (*)(MPI_Comm, MPI_Request*)>(dlsym(RTLD_NEXT, "MPI_Ibarrier"));
  ++barriers;
  messages = 0;
  return real(comm, request);
}

extern "C" int MPI_Iallreduce(const void* from, void* to, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm,
                              MPI_Request* request) {
  using Real = int (*)(const void*, void*, int, MPI_Datatype, MPI_Op, MPI_Comm, MPI_Request*);
  static auto* const real = reinterpret_cast<Real>(dlsym(RTLD_NEXT, "MPI_Iallreduce"));
  static const int trials = std::atoi(std::getenv("ONE_RANK_THROWS"));
  const int run = barriers / 2;
  int rank = 0, size = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (++messages == kFirst + kFurther * run && run < trials && rank == run % size) throw std::bad_alloc();
  return real(from, to, count, type, op, comm, request);
}
