// SHA-256 of files and buffers, for the provenance that results and checkpoints record. OpenSSL does the hashing.
#pragma once

#include <atomic>
#include <cstddef>
#include <filesystem>
#include <string>

namespace hesspect {

/// Lower-case hex digest of a whole file, read in blocks.
/// @param stop  read before each block: once true, hashing ends and the digest is empty
/// @throws InputError if the file cannot be read
std::string sha256_file(const std::filesystem::path& path, const std::atomic<bool>* stop = nullptr);

/// Lower-case hex digest of a buffer.
std::string sha256_bytes(const void* data, std::size_t bytes);

}  // namespace hesspect
