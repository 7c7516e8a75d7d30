// The fused kernels on a GPU.
#pragma once

#include <cstdint>

namespace hesspect {

/// On the current stream. @throws std::runtime_error with CUDA's or NVRTC's reason
void launch_kernel(const char* kernel, bool in_double, const void* arguments, std::int64_t units, std::int64_t columns,
                   int device);

}  // namespace hesspect
