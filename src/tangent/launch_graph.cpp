#include "hesspect/tangent/launch_graph.h"

#include "hesspect/core/gpu_support.h"

namespace hesspect {

std::unique_ptr<LaunchRecorder> launch_recorder(c10::Device device) {
  const GpuSupport* const gpu = gpu_library().support;
  if (!device.is_cuda() || gpu == nullptr) return nullptr;
  return gpu->launch_recorder(device.has_index() ? device.index() : -1);
}

}  // namespace hesspect
