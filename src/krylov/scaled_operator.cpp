#include "hesspect/krylov/scaled_operator.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "hesspect/comm/agree.h"

namespace hesspect {

void ScaledOperator::apply(const at::Tensor& x_local, at::Tensor& y_local) {
  at::NoGradGuard no_grad;
  if (!scaled_.defined()) scaled_ = agreed(comm(), [&] { return at::zeros_like(scale_); });
  at::mul_out(scaled_, x_local, scale_);
  op_.apply(scaled_, y_local);
  y_local.mul_(scale_);
}

}  // namespace hesspect
