// What MPI's collectives cost between the ranks of this machine: seconds of an all-gather of some sizes, the best of
// several, and from these latency and bandwidth by least squares. Prints a line of JSON.
//
//   mpicc -O2 -o ping ping.c && mpirun -n 2 ./ping > links.json
//
// An all-gather to `size` bytes takes call + (ranks - 1) (latency + size / ranks / bandwidth): the call's share can't be
// told from the steps', and is in `latency`.
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

enum { kSizes = 7, kTrials = 30 };

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int ranks, rank;
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  double x[kSizes], y[kSizes];  // bytes of a rank's own, seconds of a step
  int size = 1 << 10;
  for (int s = 0; s < kSizes; ++s, size *= 8) {
    const int bytes = size > (1 << 26) ? 1 << 26 : size;
    char* own = calloc((size_t)bytes, 1);
    char* all = calloc((size_t)bytes * (size_t)ranks, 1);
    double best = 1e9;
    for (int t = 0; t < kTrials; ++t) {
      MPI_Barrier(MPI_COMM_WORLD);
      const double begin = MPI_Wtime();
      MPI_Allgather(own, bytes, MPI_BYTE, all, bytes, MPI_BYTE, MPI_COMM_WORLD);
      double took = MPI_Wtime() - begin, longest = 0;
      MPI_Allreduce(&took, &longest, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
      if (longest < best) best = longest;
    }
    x[s] = bytes;
    y[s] = best / (ranks > 1 ? ranks - 1 : 1);
    free(own);
    free(all);
  }
  // Of relative errors, so that small messages count as much as large ones.
  double a = 0, b = 0, c = 0, d = 0, e = 0;
  for (int s = 0; s < kSizes; ++s) {
    const double w = 1 / (y[s] * y[s]);
    a += w;
    b += w * x[s];
    c += w * x[s] * x[s];
    d += w * y[s];
    e += w * x[s] * y[s];
  }
  const double slope = (a * e - b * d) / (a * c - b * b), latency = (d - slope * b) / a;
  if (rank == 0) printf("{\"ranks\": %d, \"latency\": %.3g, \"bandwidth\": %.4g}\n", ranks, latency, 1 / slope);
  MPI_Finalize();
  return 0;
}
