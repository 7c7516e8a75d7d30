// Products of float32 matrices whose operands are rounded to bfloat16 and whose sums are float32, where LibTorch has no
// setting for them.
#pragma once

#include <c10/core/DeviceType.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

namespace hesspect {

/// While it lives at::mm, bmm, addmm and baddbmm round, in all their forms and in whatever calls them (linear, matmul,
/// einsum), on one kind of device and in this thread. Where autograd is on they don't: what it records must be what it
/// can differentiate.
class RoundedProducts {
 public:
  /// @param device  kCUDA, or kCPU in tests; kMeta: none, within another's life
  explicit RoundedProducts(c10::DeviceType device);
  ~RoundedProducts();
  RoundedProducts(const RoundedProducts&) = delete;
  RoundedProducts& operator=(const RoundedProducts&) = delete;
  /// Whether one lives in this thread.
  static bool any();

 private:
  c10::DeviceType before_;
  c10::impl::IncludeDispatchKeyGuard key_;
};

}  // namespace hesspect
