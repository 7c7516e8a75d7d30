// heartbeat_program RANK LOST_AFTER_S: that rank stops (SIGSTOP) a little later, as a process on a dead host would; the
// others wait for it in a barrier. Who is told of a loss says so and ends.
#include <mpi.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "hesspect/comm/heartbeat.h"
#include "hesspect/comm/make_communicator.h"
#include "hesspect/comm/mpi_session.h"

int main(int argc, char** argv) {
  const hesspect::MpiSession session(argc, argv);
  int threads = MPI_THREAD_SINGLE;
  MPI_Query_thread(&threads);
  if (argc != 3 || threads != MPI_THREAD_MULTIPLE) return 1;
  const auto world = hesspect::make_host_communicator();
  const int me = world->rank();
  const hesspect::Heartbeat heartbeat(*world, std::atof(argv[2]), [&](int rank, const std::string& host, double) {
    char name[256] = "";
    gethostname(name, sizeof name - 1);
    std::printf("rank %d misses rank %d on %s host\n", me, rank, host == name ? "this" : "another");
    std::fflush(stdout);
    if (me != 0) std::this_thread::sleep_for(std::chrono::seconds(1));  // for the other one to notice too
    _exit(6);
  });
  if (me == std::atoi(argv[1])) {
    std::this_thread::sleep_for(std::chrono::seconds(1));
    raise(SIGSTOP);
  }
  world->barrier();
  std::printf("nobody was lost\n");
}
