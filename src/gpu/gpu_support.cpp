// The library's one entry.
#include "hesspect/core/gpu_support.h"

#include "cuda_devices.h"
#include "hesspect/comm/communicator.h"
#include "hesspect/tangent/launch_graph.h"
#include "kernel_launch.h"
#include "launch_graph.h"
#include "nccl_communicator.h"

extern "C" __attribute__((visibility("default"))) const hesspect::GpuSupport* hesspect_gpu_support() {
  static const hesspect::GpuSupport support{
      .device_count = hesspect::count_devices,
      .device_identity = hesspect::cuda_device_identity,
      .compute_capability = hesspect::cuda_compute_capability,
      .make_nccl_communicator = hesspect::make_nccl_communicator,
      .launch_recorder = hesspect::make_launch_recorder,
      .run_kernel = hesspect::launch_kernel,
  };
  return &support;
}
