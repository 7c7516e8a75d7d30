#include "cuda_devices.h"

#include <cuda_runtime_api.h>

#include <span>

#include "hesspect/core/errors.h"
#include "hesspect/core/hex.h"
#include "hesspect/core/host.h"

namespace hesspect {

int count_devices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();  // no driver is no error here, and must not surface in a later call
    return 0;
  }
  return count;
}

int cuda_compute_capability(int index) {
  int major = 0, minor = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index);
  return 10 * major + minor;
}

std::string cuda_device_identity(int index) {
  cudaDeviceProp properties{};
  const cudaError_t rc = cudaGetDeviceProperties(&properties, index);
  if (rc != cudaSuccess)
    throw InputError("CUDA device " + std::to_string(index) + " can't be used: " + cudaGetErrorString(rc));
  const std::string uuid = to_hex(std::as_bytes(std::span(properties.uuid.bytes)));
  if (uuid.find_first_not_of('0') != std::string::npos) return "GPU-" + uuid;
  char bus[32] = "";
  cudaDeviceGetPCIBusId(bus, sizeof bus, index);
  return host_name() + "/" + bus;
}

}  // namespace hesspect
