#include "rounded_products.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <torch/library.h>

namespace hesspect {
namespace {

/// A key that nothing else of a process uses. It stands before all others, so that these kernels are asked first.
constexpr c10::DispatchKey kKey = c10::DispatchKey::TESTING_ONLY_GenericMode;

thread_local Rounding rounding_now = Rounding::kNone;

bool takes_copies(const at::Tensor& a) {
  const bool copies = a.is_cuda() ? rounding_now != Rounding::kNone : rounding_now == Rounding::kByCopies;
  return copies && a.scalar_type() == at::kFloat && !at::GradMode::is_enabled();
}

/// Multiplications from which on oneDNN's tiles gain more than the 30 µs that a call of them takes (measured); and of
/// each of a batch of matrices, below which they gain nothing.
constexpr std::int64_t kFewest = std::int64_t{1} << 21, kFewestEach = std::int64_t{1} << 17;

/// One call's permission for oneDNN to round.
class OneDnnRounds {
 public:
  OneDnnRounds(const at::Tensor& a, const at::Tensor& b) : on_(gains(a, b)) {
    if (on_) set(at::Float32Precision::BF16);
  }
  ~OneDnnRounds() {
    if (on_) set(at::Float32Precision::IEEE);
  }
  OneDnnRounds(const OneDnnRounds&) = delete;
  OneDnnRounds& operator=(const OneDnnRounds&) = delete;

 private:
  static void set(at::Float32Precision precision) {
    at::globalContext().setFloat32Precision(at::Float32Backend::MKLDNN, at::Float32Op::MATMUL, precision);
  }
  static bool gains(const at::Tensor& a, const at::Tensor& b) {
    if (rounding_now != Rounding::kByDevice || a.scalar_type() != at::kFloat || !a.is_cpu()) return false;
    if (a.dim() < 2 || b.dim() < 2) return false;  // which the call itself refuses
    const std::int64_t each = a.size(-2) * a.size(-1) * b.size(-1);
    return a.dim() == 2 ? each >= kFewest : each >= kFewestEach && a.size(0) * each >= 2 * kFewest;
  }

  bool on_;
};

/// Within a kernel the key is off, for what it calls itself.
using Off = c10::impl::ExcludeDispatchKeyGuard;

/// a b of rounded copies. Only GPUs multiply bfloat16 into float32 here; others multiply what has been rounded.
at::Tensor product_of_copies(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor low_a = a.to(at::kBFloat16), low_b = b.to(at::kBFloat16);
  if (a.is_cuda()) return a.dim() == 2 ? at::mm(low_a, low_b, at::kFloat) : at::bmm(low_a, low_b, at::kFloat);
  const at::Tensor back_a = low_a.to(at::kFloat), back_b = low_b.to(at::kFloat);
  return a.dim() == 2 ? at::mm(back_a, back_b) : at::bmm(back_a, back_b);
}

/// out := beta c + alpha a b; what c holds does not count where beta is 0.
at::Tensor& put_sum(at::Tensor& out, const at::Tensor& c, const at::Tensor& a, const at::Tensor& b,
                    const at::Scalar& beta, const at::Scalar& alpha) {
  const at::Tensor sum = product_of_copies(a, b);
  if (alpha.toDouble() != 1) sum.mul_(alpha);
  if (beta.toDouble() == 0) return out.copy_(sum);
  if (out.is_same(c)) return beta.toDouble() == 1 ? out.add_(sum) : out.mul_(beta).add_(sum);
  return at::add_out(out, sum, c, beta);
}

at::Tensor mm(const at::Tensor& a, const at::Tensor& b) {
  const Off off(kKey);
  if (takes_copies(a)) return product_of_copies(a, b);
  const OneDnnRounds scope(a, b);
  return at::mm(a, b);
}
at::Tensor& mm_out(const at::Tensor& a, const at::Tensor& b, at::Tensor& out) {
  const Off off(kKey);
  if (takes_copies(a)) return out.copy_(product_of_copies(a, b));
  const OneDnnRounds scope(a, b);
  return at::mm_out(out, a, b);
}
at::Tensor bmm(const at::Tensor& a, const at::Tensor& b) {
  const Off off(kKey);
  if (takes_copies(a)) return product_of_copies(a, b);
  const OneDnnRounds scope(a, b);
  return at::bmm(a, b);
}
at::Tensor& bmm_out(const at::Tensor& a, const at::Tensor& b, at::Tensor& out) {
  const Off off(kKey);
  if (takes_copies(a)) return out.copy_(product_of_copies(a, b));
  const OneDnnRounds scope(a, b);
  return at::bmm_out(out, a, b);
}

at::Tensor addmm(const at::Tensor& c, const at::Tensor& a, const at::Tensor& b, const at::Scalar& beta,
                 const at::Scalar& alpha) {
  const Off off(kKey);
  const OneDnnRounds scope(a, b);
  if (!takes_copies(a)) return at::addmm(c, a, b, beta, alpha);
  at::Tensor out = at::empty({a.size(0), b.size(1)}, a.options());
  return put_sum(out, c, a, b, beta, alpha);
}
at::Tensor& addmm_in_place(at::Tensor& c, const at::Tensor& a, const at::Tensor& b, const at::Scalar& beta,
                           const at::Scalar& alpha) {
  const Off off(kKey);
  const OneDnnRounds scope(a, b);
  return takes_copies(a) ? put_sum(c, c, a, b, beta, alpha) : c.addmm_(a, b, beta, alpha);
}
at::Tensor& addmm_out(const at::Tensor& c, const at::Tensor& a, const at::Tensor& b, const at::Scalar& beta,
                      const at::Scalar& alpha, at::Tensor& out) {
  const Off off(kKey);
  const OneDnnRounds scope(a, b);
  return takes_copies(a) ? put_sum(out, c, a, b, beta, alpha) : at::addmm_out(out, c, a, b, beta, alpha);
}
at::Tensor baddbmm(const at::Tensor& c, const at::Tensor& a, const at::Tensor& b, const at::Scalar& beta,
                   const at::Scalar& alpha) {
  const Off off(kKey);
  const OneDnnRounds scope(a, b);
  if (!takes_copies(a)) return at::baddbmm(c, a, b, beta, alpha);
  at::Tensor out = at::empty({a.size(0), a.size(1), b.size(2)}, a.options());
  return put_sum(out, c, a, b, beta, alpha);
}
at::Tensor& baddbmm_in_place(at::Tensor& c, const at::Tensor& a, const at::Tensor& b, const at::Scalar& beta,
                             const at::Scalar& alpha) {
  const Off off(kKey);
  const OneDnnRounds scope(a, b);
  return takes_copies(a) ? put_sum(c, c, a, b, beta, alpha) : c.baddbmm_(a, b, beta, alpha);
}
at::Tensor& baddbmm_out(const at::Tensor& c, const at::Tensor& a, const at::Tensor& b, const at::Scalar& beta,
                        const at::Scalar& alpha, at::Tensor& out) {
  const Off off(kKey);
  const OneDnnRounds scope(a, b);
  return takes_copies(a) ? put_sum(out, c, a, b, beta, alpha) : at::baddbmm_out(out, c, a, b, beta, alpha);
}

void register_kernels() {
  static torch::Library others(torch::Library::IMPL, "_", kKey, __FILE__, __LINE__);
  static torch::Library products(torch::Library::IMPL, "aten", kKey, __FILE__, __LINE__);
  static const bool once = [] {
    others.fallback(torch::CppFunction::makeFallthrough());
    products.impl("mm", mm);
    products.impl("mm.out", mm_out);
    products.impl("bmm", bmm);
    products.impl("bmm.out", bmm_out);
    products.impl("addmm", addmm);
    products.impl("addmm_", addmm_in_place);
    products.impl("addmm.out", addmm_out);
    products.impl("baddbmm", baddbmm);
    products.impl("baddbmm_", baddbmm_in_place);
    products.impl("baddbmm.out", baddbmm_out);
    return true;
  }();
  (void)once;
}

/// The key, once its kernels are there.
c10::DispatchKey registered_key() {
  register_kernels();
  return kKey;
}

}  // namespace

RoundedProducts::RoundedProducts(Rounding rounding) : before_(rounding_now), key_(registered_key()) {
  rounding_now = rounding;
}

bool RoundedProducts::any() { return c10::impl::tls_is_dispatch_key_included(kKey); }

Rounding RoundedProducts::now() { return rounding_now; }

RoundedProducts::~RoundedProducts() { rounding_now = before_; }

}  // namespace hesspect
