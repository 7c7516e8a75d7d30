// What the CUDA runtime knows of devices, free of CUDA types.
#pragma once

#include <string>

namespace hesspect {

int count_devices();
std::string cuda_device_identity(int index);
int cuda_compute_capability(int index);

}  // namespace hesspect
