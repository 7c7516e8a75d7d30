// The blocks in which Krylov vectors are held and worked on, apart from LibTorch: a run's plan counts them.
#pragma once

#include <cstdint>

namespace hesspect {

/// Rows of a block of a Krylov basis, at most.
inline constexpr std::int64_t kBasisBlockRows = 16;

/// Entries that a GPU holds in double at a time, a vector's columns and the same ones of a block's rows: 256 MiB.
inline constexpr std::int64_t kEntriesInDouble = std::int64_t{1} << 25;

}  // namespace hesspect
