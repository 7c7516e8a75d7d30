#include "hesspect/core/random_probe.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"

namespace hesspect {
namespace {

// Key: the seed. Counter: the block's number in the first two words (its top bit is the distribution), the probe in
// the last two. A block makes 128 Rademacher entries or 2 Gaussian ones.
constexpr std::int64_t kRademacherPerBlock = 128;
constexpr std::int64_t kGaussianPerBlock = 2;
constexpr std::uint64_t kGaussianDomain = std::uint64_t{1} << 63;

constexpr std::string_view kNames[] = {"rademacher", "gaussian", "spherical"};  // as ProbeDistribution has them

std::uint32_t low(std::uint64_t value) { return static_cast<std::uint32_t>(value); }
std::uint32_t high(std::uint64_t value) { return static_cast<std::uint32_t>(value >> 32); }

std::array<std::uint32_t, 4> block_bits(std::uint64_t seed, std::uint64_t probe, std::uint64_t block) {
  return philox4x32({low(block), high(block), low(probe), high(probe)}, {low(seed), high(seed)});
}

// The eight entries that each byte stands for, bit 0 first. Copying them is several times faster than making each entry
// from its bit.
template <class Real>
constexpr std::array<std::array<Real, 8>, 256> kSignsOfByte = [] {
  std::array<std::array<Real, 8>, 256> table{};
  for (std::size_t byte = 0; byte < 256; ++byte) {
    for (std::size_t bit = 0; bit < 8; ++bit) table[byte][bit] = (byte >> bit & 1) != 0 ? Real(-1) : Real(1);
  }
  return table;
}();

template <class Real>
void rademacher_block(const std::array<std::uint32_t, 4>& bits, Real* out) {
  for (const std::uint32_t word : bits) {
    for (int shift = 0; shift < 32; shift += 8) {
      std::memcpy(out, kSignsOfByte<Real>[word >> shift & 0xff].data(), 8 * sizeof(Real));
      out += 8;
    }
  }
}

// Box-Muller: two 53-bit uniforms, u in (0, 1] so that its logarithm is finite, v in [0, 1).
template <class Real>
void gaussian_block(const std::array<std::uint32_t, 4>& bits, Real* out) {
  constexpr double kUlp = 0x1p-53;
  const std::uint64_t a = (std::uint64_t{bits[1]} << 32) | bits[0];
  const std::uint64_t b = (std::uint64_t{bits[3]} << 32) | bits[2];
  const double u = static_cast<double>((a >> 11) + 1) * kUlp;
  const double v = static_cast<double>(b >> 11) * kUlp;
  const double radius = std::sqrt(-2.0 * std::log(u));
  const double angle = 2.0 * std::numbers::pi * v;
  out[0] = static_cast<Real>(radius * std::cos(angle));
  out[1] = static_cast<Real>(radius * std::sin(angle));
}

/// Whole blocks go straight to `out`; the ragged ends through a block of their own.
template <std::int64_t kPerBlock, class Real, class MakeBlock>
void fill_by_blocks(std::int64_t begin, std::int64_t count, Real* out, MakeBlock make_block) {
  const std::int64_t end = begin + count;
  for (std::int64_t at = begin; at < end;) {
    const std::int64_t block = at / kPerBlock;
    const std::int64_t first = at % kPerBlock;
    const std::int64_t size = std::min(kPerBlock - first, end - at);
    Real* to = out + (at - begin);
    if (size == kPerBlock) {
      make_block(static_cast<std::uint64_t>(block), to);
    } else {
      std::array<Real, kPerBlock> whole;
      make_block(static_cast<std::uint64_t>(block), whole.data());
      std::copy_n(whole.data() + first, size, to);
    }
    at += size;
  }
}

}  // namespace

std::string_view to_string(ProbeDistribution distribution) { return kNames[static_cast<std::size_t>(distribution)]; }

ProbeDistribution probe_distribution_from(std::string_view name) {
  const auto found = std::ranges::find(kNames, name);
  if (found != std::end(kNames)) return static_cast<ProbeDistribution>(found - std::begin(kNames));
  throw UsageError("unknown probe distribution " + quote(name) + "; known are rademacher, gaussian, spherical" +
                   did_you_mean(name, {std::begin(kNames), std::end(kNames)}));
}

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  // Multipliers and Weyl increments: Salmon et al., SC'11, §4.3 and table 2; ten rounds.
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53} * counter[0];
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {high(product1) ^ counter[1] ^ key[0], low(product1), high(product0) ^ counter[3] ^ key[1],
               low(product0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

template <class Real>
void fill_probe(ProbeDistribution distribution, std::uint64_t seed, std::uint64_t probe, std::int64_t begin,
                std::int64_t count, Real* out) {
  if (distribution == ProbeDistribution::kRademacher) {
    fill_by_blocks<kRademacherPerBlock>(begin, count, out, [&](std::uint64_t block, Real* to) {
      rademacher_block(block_bits(seed, probe, block), to);
    });
  } else {
    fill_by_blocks<kGaussianPerBlock>(begin, count, out, [&](std::uint64_t block, Real* to) {
      gaussian_block(block_bits(seed, probe, block | kGaussianDomain), to);
    });
  }
}

template void fill_probe<float>(ProbeDistribution, std::uint64_t, std::uint64_t, std::int64_t, std::int64_t, float*);
template void fill_probe<double>(ProbeDistribution, std::uint64_t, std::uint64_t, std::int64_t, std::int64_t, double*);

}  // namespace hesspect
