// Zip archives with stored entries, written for tests; with the 64-bit extensions where asked for.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace hesspect::test {

inline std::string little_endian(std::uint64_t value, std::size_t width) {
  std::string bytes;
  for (std::size_t i = 0; i < width; ++i) bytes += static_cast<char>(value >> (8 * i));
  return bytes;
}

/// Checksums are left zero.
inline std::string zip_of(const std::vector<std::pair<std::string, std::string>>& files, bool zip64) {
  const auto n2 = [](std::uint64_t v) { return little_endian(v, 2); };
  const auto n4 = [](std::uint64_t v) { return little_endian(v, 4); };
  const auto n8 = [](std::uint64_t v) { return little_endian(v, 8); };
  const std::uint64_t in64 = 0xffffffff;
  std::string out;
  std::string directory;
  for (const auto& [name, content] : files) {
    const std::uint64_t offset = out.size();
    const std::uint64_t size = content.size();
    // The central extra field starts with one that is to be skipped.
    const std::string extra = zip64 ? n2(0x9999) + n2(1) + "x" + n2(1) + n2(24) + n8(size) + n8(size) + n8(offset) : "";
    out += "PK\x03\x04" + n2(20) + n2(0) + n2(0) + n4(0) + n4(0) + n4(size) + n4(size) + n2(name.size()) + n2(5) +
           name + std::string("FB\x01\0z", 5) + content;
    directory += "PK\x01\x02" + n2(20) + n2(20) + n2(0) + n2(0) + n4(0) + n4(0) + n4(zip64 ? in64 : size) +
                 n4(zip64 ? in64 : size) + n2(name.size()) + n2(extra.size()) + n2(0) + n2(0) + n2(0) + n4(0) +
                 n4(zip64 ? in64 : offset) + name + extra;
  }
  const std::uint64_t at = out.size();
  out += directory;
  if (zip64) {
    const std::uint64_t end64 = out.size();
    out += "PK\x06\x06" + n8(44) + n2(45) + n2(45) + n4(0) + n4(0) + n8(files.size()) + n8(files.size()) +
           n8(directory.size()) + n8(at);
    out += "PK\x06\x07" + n4(0) + n8(end64) + n4(1);
  }
  out += "PK\x05\x06" + n2(0) + n2(0) + n2(zip64 ? 0xffff : files.size()) + n2(zip64 ? 0xffff : files.size()) +
         n4(zip64 ? in64 : directory.size()) + n4(zip64 ? in64 : at) + n2(0);
  return out;
}

}  // namespace hesspect::test
