// The program's own kernels, as they are compiled for GPUs, run by an emulation of thread blocks.
#pragma once

#include <cstddef>
#include <cstdint>

namespace simulated_gpu {

struct Kernel {
  const char* name;  // as NVRTC's image has it
  std::size_t argument_bytes;
  void (*run)(const void* arguments, std::int64_t units);
};

/// nullptr where there is none of that name.
const Kernel* find_kernel(const char* name);

/// Runs a grid of blocks, one after the other. Ends the program where the threads of a block wait at different places.
/// @param arguments  of the kernel, with addresses that the host can use
void run_grid(const Kernel& kernel, const void* arguments, std::int64_t units, unsigned blocks, unsigned threads);

}  // namespace simulated_gpu
