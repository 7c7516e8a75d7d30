// What the CUDA runtime knows of a device, free of CUDA types.
#pragma once

#include <string>

namespace hesspect {

/// A name that no other GPU has, on any host: its UUID, or where there is none, host name and PCI address.
std::string cuda_device_identity(int index);

}  // namespace hesspect
