#include "sha256_stream.h"

#include <openssl/evp.h>

#include <array>

#include "hesspect/core/errors.h"
#include "hex.h"

namespace hesspect {
namespace {

void check(int status) {
  if (status != 1) throw Error(ExitCode::kInternal, "OpenSSL could not compute a SHA-256 digest");
}

}  // namespace

void Sha256Stream::Free::operator()(evp_md_ctx_st* context) const { EVP_MD_CTX_free(context); }

Sha256Stream::Sha256Stream() : context_(EVP_MD_CTX_new()) {
  check(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1 ? 1 : 0);
}

void Sha256Stream::update(std::span<const std::byte> bytes) {
  check(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()));
}

std::string Sha256Stream::digest() {
  std::array<std::byte, 32> digest{};
  check(EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(digest.data()), nullptr));
  return to_hex(digest);
}

}  // namespace hesspect
