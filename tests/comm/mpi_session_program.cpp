// Opens a session, sums over ranks, prints how many there were. With the argument `throw`, rank 1 throws instead of
// joining the sum, as a rank would whose error was not agreed on.
#include <cstdio>
#include <span>
#include <string>

#include "hesspect/comm/make_communicator.h"
#include "hesspect/comm/mpi_session.h"
#include "hesspect/core/errors.h"

int main(int argc, char** argv) {
  try {
    const hesspect::MpiSession session(argc, argv);
    const auto comm = hesspect::make_host_communicator();
    if (argc > 1 && std::string(argv[1]) == "throw" && comm->rank() == 1) throw hesspect::InputError("rank 1 alone");
    double one[1] = {1};
    comm->all_reduce_sum(std::span<double>(one));
    if (comm->rank() == 0) std::printf("%g ranks, %s\n", one[0], comm->backend().c_str());
    return 0;
  } catch (const hesspect::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return static_cast<int>(error.exit_code());
  }
}
