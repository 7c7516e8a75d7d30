// Loads the kernels onto each GPU at first use, and launches them on the current stream.
#include "kernel_launch.h"

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include "hesspect/tangent/gpu_kernels.h"

namespace hesspect {
namespace {

void check(cudaError_t result, const char* call) {
  if (result != cudaSuccess) throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(result));
}

/// The kernels of one GPU. Libraries stay loaded: unloading at exit would race with the driver's own end.
class GpuKernels {
 public:
  explicit GpuKernels(int device) {
    int major = 0, minor = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
    check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cudaDeviceGetAttribute");
    const std::string image = fused::gpu_image(10 * major + minor, fused::gpu_cache_folder());
    check(cudaLibraryLoadData(&library_, image.data(), nullptr, nullptr, 0, nullptr, nullptr, 0),
          "cudaLibraryLoadData");
    for (const char* name : fused::gpu_kernel_names()) add(name, "_float"), add(name, "_double");
  }

  const void* get(const char* name, bool in_double) const { return kernels_.at({name, in_double}); }

 private:
  void add(const std::string& name, const std::string& type) {
    cudaKernel_t kernel = nullptr;
    check(cudaLibraryGetKernel(&kernel, library_, (name + type).c_str()), "cudaLibraryGetKernel");
    kernels_[{name, type == "_double"}] = kernel;
  }

  cudaLibrary_t library_ = nullptr;
  std::map<std::pair<std::string, bool>, const void*> kernels_;
};

const GpuKernels& kernels_of(int device) {
  static std::mutex mutex;
  static std::map<int, GpuKernels> loaded;
  const std::lock_guard lock(mutex);
  const auto found = loaded.find(device);
  return found != loaded.end() ? found->second : loaded.emplace(device, device).first->second;
}

/// A warp takes 128 columns, a block has up to 512 threads.
unsigned threads_for(std::int64_t columns) {
  const std::int64_t warps = (columns + 127) / 128;
  return static_cast<unsigned>(32 * std::clamp<std::int64_t>(warps, 1, columns > 16384 ? 16 : 8));
}

}  // namespace

void launch_kernel(const char* kernel, bool in_double, const void* arguments, std::int64_t units, std::int64_t columns,
                   int device) {
  const auto index = static_cast<c10::DeviceIndex>(device);
  const c10::cuda::CUDAGuard guard(index);
  const void* function = kernels_of(device).get(kernel, in_double);
  constexpr std::int64_t kBlocks = 1 << 20;
  const dim3 grid(static_cast<unsigned>(std::min(units, kBlocks))), block(threads_for(columns));
  void* parameters[] = {const_cast<void*>(arguments), &units};
  check(cudaLaunchKernel(function, grid, block, parameters, 0, c10::cuda::getCurrentCUDAStream(index).stream()),
        kernel);
}

}  // namespace hesspect
