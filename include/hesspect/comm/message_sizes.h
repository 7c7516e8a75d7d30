// Sizes of messages that others plan with, free of LibTorch and MPI.
#pragma once

#include <cstdint>

namespace hesspect {

/// Bytes of the other ranks' parts that a sum over ranks on CPUs holds at a time.
inline constexpr std::int64_t kSumAtOnceBytes = std::int64_t{64} << 20;

}  // namespace hesspect
