// Where the vectors of a Krylov basis are kept.
#pragma once

#include <string>

namespace hesspect {

/// On a CPU both are one, and called the device.
enum class BasisMemory { kDevice, kHost };

inline std::string to_string(BasisMemory memory) { return memory == BasisMemory::kHost ? "host" : "device"; }

}  // namespace hesspect
