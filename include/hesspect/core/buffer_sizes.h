// Sizes of the buffers in which vectors are held, worked on and sent: rooms allocate them, and a run's plan counts
// them.
#pragma once

#include <cstdint>

namespace hesspect {

/// Rows of a block of a Krylov basis, at most.
inline constexpr std::int64_t kBasisBlockRows = 16;

/// Entries that a GPU holds in double at a time, a vector's columns and the same ones of a block's rows: 256 MiB.
inline constexpr std::int64_t kEntriesInDouble = std::int64_t{1} << 25;

/// Bytes of the other ranks' parts that a sum over ranks on CPUs holds at a time.
inline constexpr std::int64_t kSumAtOnceBytes = std::int64_t{64} << 20;

}  // namespace hesspect
