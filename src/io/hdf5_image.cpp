#include "hdf5_image.h"

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

namespace hesspect::hdf5 {
namespace {

// HDF5 file format specification, version 3: II.A. Disk Format: Level 0A.
constexpr std::size_t kVersionAt = 8;
constexpr std::size_t kChecksumAt = 44;  // where offsets have 8 bytes
constexpr std::size_t kSuperblockBytes = 48;

/// Bob Jenkins' lookup3 (2006, in the public domain) of the bytes before the checksum.
std::uint32_t lookup3(const std::array<std::uint32_t, kChecksumAt / 4>& words) {
  std::uint32_t a = 0xdeadbeef + kChecksumAt, b = a, c = a;
  const auto turn = [](std::uint32_t& x, std::uint32_t& y, std::uint32_t& z, int bits) {
    x -= z;
    x ^= std::rotl(z, bits);
    z += y;
  };
  const auto end = [](std::uint32_t& x, std::uint32_t y, int bits) {
    x ^= y;
    x -= std::rotl(y, bits);
  };
  std::size_t at = 0;
  for (; words.size() - at > 3; at += 3) {
    a += words[at];
    b += words[at + 1];
    c += words[at + 2];
    turn(a, b, c, 4);
    turn(b, c, a, 6);
    turn(c, a, b, 8);
    turn(a, b, c, 16);
    turn(b, c, a, 19);
    turn(c, a, b, 4);
  }
  a += words[at];
  b += words[at + 1];
  end(c, b, 14);
  end(a, c, 11);
  end(b, a, 25);
  end(c, b, 16);
  end(a, c, 4);
  end(b, a, 14);
  end(c, b, 24);
  return c;
}

}  // namespace

void mend_superblock(std::span<std::byte> image) {
  static_assert(std::endian::native == std::endian::little, "the superblock is little-endian");
  if (image.size() < kSuperblockBytes) return;
  const auto version = std::to_integer<int>(image[kVersionAt]);
  if (version != 2 && version != 3) return;
  std::array<std::uint32_t, kChecksumAt / 4> words{};
  std::memcpy(words.data(), image.data(), kChecksumAt);
  const std::uint32_t checksum = lookup3(words);
  std::memcpy(image.data() + kChecksumAt, &checksum, sizeof checksum);
}

}  // namespace hesspect::hdf5
