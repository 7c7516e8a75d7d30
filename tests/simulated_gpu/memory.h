// The memory of simulated GPUs. Each byte has two addresses: the one that the program is given, at which nothing can be
// read or written, so that code of the host that does so ends with a segmentation fault as on a machine with a GPU; and
// the one at which what runs "on the GPU" finds it.
#pragma once

#include <cstddef>

namespace simulated_gpu {

inline constexpr int kMostDevices = 4;
inline constexpr std::size_t kDeviceBytes = std::size_t{8} << 30;  // of one device

/// Whether the address is of the memory of a simulated GPU.
bool is_of_device(const void* address);

/// Which device's.
int device_of(const void* address);

/// Where what runs on the GPU finds that byte; any other address stays as it is.
void* host_alias(const void* address);

/// Whether the address is such an alias.
bool is_alias(const void* address);

/// nullptr where there is no room left.
void* allocate(int device, std::size_t bytes);
/// Whether such a block there was.
bool release(void* address);
/// Whether those bytes lie in a block that is allocated.
bool is_allocated(const void* address, std::size_t bytes);
std::size_t free_bytes(int device);

/// Page-locked memory of the host.
void* allocate_on_host(std::size_t bytes);
bool release_on_host(void* address);
bool is_page_locked(const void* address);

}  // namespace simulated_gpu
