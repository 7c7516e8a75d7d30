// SHA-256 of files and buffers, for the provenance that results and checkpoints record. OpenSSL does the hashing.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

namespace hesspect {

/// Lower-case hex digest of a whole file, read in blocks.
/// @throws InputError if the file cannot be read
std::string sha256_file(const std::filesystem::path& path);

/// Lower-case hex digest of a buffer.
std::string sha256_bytes(const void* data, std::size_t bytes);

}  // namespace hesspect
