// Loads the kernels onto each GPU at first use, and launches them on the current stream.
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include "hesspect/tangent/gpu_kernels.h"
#include "launch.h"

namespace hesspect::fused {
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
    const std::string image = gpu_image(10 * major + minor, gpu_cache_folder());
    check(cudaLibraryLoadData(&library_, image.data(), nullptr, nullptr, 0, nullptr, nullptr, 0),
          "cudaLibraryLoadData");
#define HESSPECT_ADD(name, Arguments) add(#name, "_float"), add(#name, "_double");
    HESSPECT_FUSED_KERNELS(HESSPECT_ADD)
#undef HESSPECT_ADD
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
unsigned threads_for(Index columns) {
  const Index warps = (columns + 127) / 128;
  return static_cast<unsigned>(32 * std::clamp<Index>(warps, 1, columns > 16384 ? 16 : 8));
}

}  // namespace

void run_on_gpu(const char* kernel, bool in_double, const void* arguments, Index units, Index columns,
                c10::Device device) {
  const c10::cuda::CUDAGuard guard(device);
  const void* function = kernels_of(device.index()).get(kernel, in_double);
  constexpr Index kBlocks = 1 << 20;
  const dim3 grid(static_cast<unsigned>(std::min(units, kBlocks))), block(threads_for(columns));
  void* parameters[] = {const_cast<void*>(arguments), &units};
  check(
      cudaLaunchKernel(function, grid, block, parameters, 0, c10::cuda::getCurrentCUDAStream(device.index()).stream()),
      kernel);
}

}  // namespace hesspect::fused
