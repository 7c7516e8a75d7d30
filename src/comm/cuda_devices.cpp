#include "cuda_devices.h"

#include <cuda_runtime_api.h>
#include <unistd.h>

#include <cstdio>

#include "hesspect/core/errors.h"

namespace hesspect {

int visible_cuda_devices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();  // no driver is no error here, and must not surface in a later call
    return 0;
  }
  return count;
}

std::string cuda_device_identity(int index) {
  cudaDeviceProp properties{};
  const cudaError_t rc = cudaGetDeviceProperties(&properties, index);
  if (rc != cudaSuccess)
    throw InputError("CUDA device " + std::to_string(index) + " can't be used: " + cudaGetErrorString(rc));
  std::string uuid;
  bool any = false;
  for (const char byte : properties.uuid.bytes) {
    char text[3];
    std::snprintf(text, sizeof text, "%02x", static_cast<unsigned char>(byte));
    uuid += text;
    any = any || byte != 0;
  }
  if (any) return "GPU-" + uuid;
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  char bus[32] = "";
  cudaDeviceGetPCIBusId(bus, sizeof bus, index);
  return std::string(host) + "/" + bus;
}

}  // namespace hesspect
