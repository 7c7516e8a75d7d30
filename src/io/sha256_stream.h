// SHA-256 of bytes that come in parts and are never together in memory.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

struct evp_md_ctx_st;  // OpenSSL's

namespace hesspect {

class Sha256Stream {
 public:
  Sha256Stream();
  void update(std::span<const std::byte> bytes);
  /// Lower-case hex digest of all parts. Once.
  std::string digest();

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

}  // namespace hesspect
