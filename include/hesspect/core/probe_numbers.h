// Who draws which random vector. A vector's entries depend on (seed, probe number, index) alone: two draws of one
// number are one vector, so each use has numbers of its own. They never change: a resumed run draws what it drew
// before.
//
//   probe_vector(op, ProbeDistribution::kGaussian, seed, kRestartProbes + breakdowns);
//
// The Lanczos run of probe p draws number p itself, from 0 on.
#pragma once

#include <cstdint>

namespace hesspect {

/// Probes of the trace that no Lanczos run draws. The first two are those of the symmetry check.
inline constexpr std::int64_t kTraceProbes = std::int64_t{1} << 62;
inline constexpr std::int64_t kSymmetryProbes = 2;
inline constexpr std::int64_t trace_probe(std::int64_t i) { return kTraceProbes + i; }
/// The vector with which a Lanczos run goes on after its first, second, … breakdown.
inline constexpr std::uint64_t kRestartProbes = std::uint64_t{1} << 63;
/// The vectors that block Lanczos starts and goes on with.
inline constexpr std::uint64_t kBlockProbes = kRestartProbes + (std::uint64_t{1} << 60);
/// The start vectors of power iteration, one for each eigenvalue.
inline constexpr std::uint64_t kPowerProbes = kRestartProbes + (std::uint64_t{1} << 61);
/// The vector by which the precision of products is measured, always of seed 0.
inline constexpr std::uint64_t kPrecisionProbe = kRestartProbes + (std::uint64_t{1} << 62);
/// Random directions of landscapes.
inline constexpr std::uint64_t kDirectionProbes = kRestartProbes + (std::uint64_t{3} << 61);
/// Rows of random signs by which relative flatness is sampled.
inline constexpr std::uint64_t kFlatnessProbes = kRestartProbes + (std::uint64_t{5} << 60);
/// The signs by which a loss of orthogonality is measured: always of seed 0, an entry for each row of a basis.
inline constexpr std::uint64_t kOrthogonalityProbe = 0;

}  // namespace hesspect
