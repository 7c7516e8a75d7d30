// What the program does on GPUs, by a library of its own (`libhesspect_gpu.so`, room `gpu`) that is loaded where a
// driver is: CUDA's and LibTorch's libraries for GPUs take half a second of a process's start and 400 MB that a run on
// CPUs has no use for.
//
//   if (const GpuSupport* gpu = gpu_library().support) devices = gpu->device_count();
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace hesspect {

class Communicator;
class LaunchRecorder;

/// The library's functions. Devices are CUDA's indices.
struct GpuSupport {
  /// Devices that this process sees; 0 where the driver finds none.
  int (*device_count)();
  /// A name that no other GPU has, on any host: its UUID, or where there is none, host name and PCI address.
  /// @throws InputError where the device can't be used
  std::string (*device_identity)(int device);
  /// 10 · major + minor of the compute capability; 0 where it is not known.
  int (*compute_capability)(int device);
  /// The NCCL backend of hesspect/comm/communicator.h. Collective over host.
  std::unique_ptr<Communicator> (*make_nccl_communicator)(int device, std::unique_ptr<Communicator> host);
  /// Records on that device, or on the current one where it is negative.
  std::unique_ptr<LaunchRecorder> (*launch_recorder)(int device);
  /// Launches a kernel of hesspect/tangent/kernels.h on the current stream, one block of threads to a unit at a time.
  void (*run_kernel)(const char* kernel, bool in_double, const void* arguments, std::int64_t units,
                     std::int64_t columns, int device);
};

struct GpuLibrary {
  const GpuSupport* support = nullptr;  // nullptr: no GPU can be used
  std::string lack;                     // why not
  bool is_broken = false;               // there is a driver, but the library can't be loaded
};

/// Loads the library at the first call, where there is a driver. To be called before LibTorch is asked of GPUs, which
/// remembers its answer.
const GpuLibrary& gpu_library();

}  // namespace hesspect
