// SHA-256 of files and buffers, for the provenance that results and checkpoints record. OpenSSL does the hashing.
#pragma once

#include <atomic>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

struct evp_md_ctx_st;  // OpenSSL's

namespace hesspect {

/// The hash of bytes that come in parts and are never together in memory.
class Sha256Stream {
 public:
  Sha256Stream();
  void update(std::span<const std::byte> bytes);
  /// Lower-case hex digest of all parts; may be called once.
  std::string digest();

 private:
  std::unique_ptr<evp_md_ctx_st, void (*)(evp_md_ctx_st*)> context_;
};

/// Lower-case hex digest of a whole file, read in blocks.
/// @param stop  read before each block: once true, hashing ends and the digest is empty
/// @throws InputError if the file cannot be read
std::string sha256_file(const std::filesystem::path& path, const std::atomic<bool>* stop = nullptr);

/// Lower-case hex digest of a buffer.
std::string sha256_bytes(const void* data, std::size_t bytes);

}  // namespace hesspect
