#include "hesspect/core/sha256.h"

#include <openssl/evp.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>

#include "hesspect/core/errors.h"
#include "hesspect/core/hex.h"
#include "hesspect/core/mapped_file.h"

namespace hesspect {
namespace {

constexpr std::size_t kBlockBytes = std::size_t{1} << 20;

void check(bool ok) {
  if (!ok) throw Error(ExitCode::kInternal, "OpenSSL could not compute a SHA-256 digest");
}

}  // namespace

Sha256Stream::Sha256Stream() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
  check(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
}

void Sha256Stream::update(std::span<const std::byte> bytes) {
  check(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
}

std::string Sha256Stream::digest() {
  std::array<std::byte, 32> digest{};
  check(EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(digest.data()), nullptr) == 1);
  return to_hex(digest);
}

std::string sha256_bytes(const void* data, std::size_t bytes) {
  Sha256Stream stream;
  stream.update({static_cast<const std::byte*>(data), bytes});
  return stream.digest();
}

std::string sha256_file(const std::filesystem::path& path, const std::atomic<bool>* stop) {
  const MappedFile file(path);
  Sha256Stream stream;
  for (auto left = std::as_bytes(file.bytes()); !left.empty();) {
    if (stop != nullptr && *stop) return "";
    const std::size_t step = std::min(kBlockBytes, left.size());
    stream.update(left.first(step));
    // What has been read is given back: the file may be larger than what the run takes of it.
    ::madvise(const_cast<std::byte*>(left.data()), step, MADV_DONTNEED);
    left = left.subspan(step);
  }
  return stream.digest();
}

}  // namespace hesspect
