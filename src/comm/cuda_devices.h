// What the CUDA runtime knows of this process's devices, free of CUDA types.
#pragma once

#include <string>

namespace hesspect {

int visible_cuda_devices();
/// A name that no other GPU has, on any host: its UUID, or where there is none, host name and PCI address.
std::string cuda_device_identity(int index);

}  // namespace hesspect
