// Who draws which random vector: entry i of probe p is a function of (seed, p, i), so every user has numbers of its
// own.
//
//   0, 1, …              the Lanczos runs'
//   2^62 + 0, 1, …       the trace's own; the first two are those of the symmetry check
#pragma once

#include <cstdint>

namespace hesspect {

inline constexpr std::uint64_t kTraceProbes = std::uint64_t{1} << 62;

/// The number of the i-th probe of the trace's own.
inline constexpr std::int64_t trace_probe(std::int64_t i) { return static_cast<std::int64_t>(kTraceProbes) + i; }

}  // namespace hesspect
