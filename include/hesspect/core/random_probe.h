// Counter-based random probe vectors.
//
// Entry i of probe p is a function of (seed, p, i) alone, with i the global parameter index in the whole model: never
// of ranks, groups, threads, device, or of what is left out of the vectors. Philox4x32-10 (Salmon et al., "Parallel
// random numbers: as easy as 1, 2, 3", SC'11).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "hesspect/core/entry_numbers.h"

namespace hesspect {

/// Distribution of a probe's entries, all with E[z zᵀ] = I. `spherical` is Gaussian here; its caller scales the whole
/// vector to norm √n, which takes a collective.
enum class ProbeDistribution { kRademacher, kGaussian, kSpherical };

std::string_view to_string(ProbeDistribution distribution);
/// @throws UsageError naming the known distributions
ProbeDistribution probe_distribution_from(std::string_view name);

/// The Philox4x32-10 block function, as in the reference implementation's known-answer tests.
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);

/// Writes entries [begin, begin + count) of probe `probe` to `out`. Rademacher: ±1; Gaussian: standard normal.
/// @param out  [count], float or double (the same values, rounded)
template <class Real>
void fill_probe(ProbeDistribution distribution, std::uint64_t seed, std::uint64_t probe, std::int64_t begin,
                std::int64_t count, Real* out);

/// The same of a vector's entries [begin, begin + count). @param numbers  which parameters these are; nullptr: entry i
/// is parameter i
template <class Real>
void fill_probe(ProbeDistribution distribution, std::uint64_t seed, std::uint64_t probe, const EntryNumbers* numbers,
                std::int64_t begin, std::int64_t count, Real* out) {
  if (numbers == nullptr) return fill_probe(distribution, seed, probe, begin, count, out);
  numbers->for_each(begin, count, [&](std::int64_t position, std::int64_t number, std::int64_t length) {
    fill_probe(distribution, seed, probe, number, length, out + (position - begin));
  });
}

extern template void fill_probe<float>(ProbeDistribution, std::uint64_t, std::uint64_t, std::int64_t, std::int64_t,
                                       float*);
extern template void fill_probe<double>(ProbeDistribution, std::uint64_t, std::uint64_t, std::int64_t, std::int64_t,
                                        double*);

}  // namespace hesspect
