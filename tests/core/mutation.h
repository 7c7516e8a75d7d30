// Broken versions of a small valid file: for every reader, each must end in success or an InputError, never otherwise.
#pragma once

#include <cstdint>
#include <random>
#include <string>

namespace hesspect::test {

/// The `number`-th mutation of `original`: a few bytes overwritten, flipped, removed, doubled, or a word set to an
/// extreme.
inline std::string mutate(const std::string& original, std::uint32_t number) {
  std::mt19937 random(number);
  std::string bytes = original;
  const auto below = [&](std::size_t bound) { return bound == 0 ? 0 : random() % bound; };
  const std::size_t edits = 1 + below(3);
  for (std::size_t i = 0; i < edits && !bytes.empty(); ++i) {
    const std::size_t at = below(bytes.size());
    switch (below(6)) {
      case 0: bytes[at] = static_cast<char>(random()); break;
      case 1: bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8))); break;
      case 2: bytes.erase(at, 1 + below(4)); break;
      case 3: bytes.insert(at, bytes.substr(below(bytes.size()), 1 + below(8))); break;
      case 4:
        for (std::size_t k = at; k < std::min(bytes.size(), at + (std::size_t{1} << below(4))); ++k) {
          bytes[k] = below(2) == 0 ? '\xff' : '\0';
        }
        break;
      default: bytes[at] = "0123456789[]{}\",:-e."[below(20)]; break;
    }
  }
  return bytes;
}

}  // namespace hesspect::test
