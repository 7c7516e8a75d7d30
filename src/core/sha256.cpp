#include "hesspect/core/sha256.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <memory>

#include "hesspect/core/errors.h"
#include "hesspect/core/mapped_file.h"

namespace hesspect {
namespace {

constexpr std::size_t kBlockBytes = std::size_t{1} << 20;

std::string digest_of(const void* data, std::size_t bytes, const std::atomic<bool>* stop) {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  bool ok = context && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1;
  const auto* at = static_cast<const unsigned char*>(data);
  for (std::size_t done = 0; ok && done < bytes;) {
    if (stop != nullptr && *stop) return "";
    const std::size_t step = std::min(kBlockBytes, bytes - done);
    ok = EVP_DigestUpdate(context.get(), at + done, step) == 1;
    done += step;
  }
  ok = ok && EVP_DigestFinal_ex(context.get(), digest.data(), &size) == 1;
  if (!ok) throw Error(ExitCode::kInternal, "OpenSSL could not compute a SHA-256 digest");

  constexpr std::string_view kHex = "0123456789abcdef";
  std::string text;
  for (unsigned int i = 0; i < size; ++i) {
    text += kHex[digest[i] >> 4];
    text += kHex[digest[i] & 15];
  }
  return text;
}

}  // namespace

std::string sha256_bytes(const void* data, std::size_t bytes) { return digest_of(data, bytes, nullptr); }

std::string sha256_file(const std::filesystem::path& path, const std::atomic<bool>* stop) {
  const MappedFile file(path);
  return digest_of(file.bytes().data(), file.bytes().size(), stop);
}

}  // namespace hesspect
