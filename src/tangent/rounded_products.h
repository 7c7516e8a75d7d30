// Products of float32 matrices whose operands are rounded to bfloat16 and whose sums are float32: which of them, and
// how.
#pragma once

#include <c10/core/impl/LocalDispatchKeySet.h>

namespace hesspect {

enum class Rounding {
  kNone,
  kByDevice,  // on a CPU oneDNN rounds, in products that are large enough to gain by it; on a GPU of rounded copies
  kByCopies,  // of rounded copies on any device: in tests
};

/// While it lives at::mm, bmm, addmm and baddbmm round, in all their forms and in whatever calls them (linear, matmul,
/// einsum), in this thread. What autograd records is never made of copies: it must be what it can differentiate.
class RoundedProducts {
 public:
  explicit RoundedProducts(Rounding rounding);
  ~RoundedProducts();
  RoundedProducts(const RoundedProducts&) = delete;
  RoundedProducts& operator=(const RoundedProducts&) = delete;
  /// Whether one lives in this thread.
  static bool any();
  /// What this thread's products do now, by the innermost one.
  static Rounding now();

 private:
  Rounding before_;
  c10::impl::IncludeDispatchKeyGuard key_;
};

}  // namespace hesspect
