#include "hesspect/curvature/loss_surface.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <vector>

#include "hesspect/comm/agree.h"
#include "local_loss.h"
#include "operator_parts.h"

namespace hesspect {
namespace {

/// The same memory, written to without the parameters' versions going on, which kept graphs of autograd compare.
at::Tensor alias_of(const at::Tensor& flat) { return at::from_blob(flat.data_ptr(), flat.sizes(), flat.options()); }

}  // namespace

struct LossSurface::Impl {
  HessianOperator& op;
  OperatorParts parts;
  at::Tensor parameters, trained;  // [n]: the program's own, and a copy
  at::Tensor whole;                // [padded]: a step, or a gradient
  std::int64_t losses = 0, gradients = 0;

  explicit Impl(HessianOperator& the_op) : op(the_op), parts(the_op.parts()) {
    agree(op.comm(), [&] {
      at::NoGradGuard no_grad;
      parameters = alias_of(parts.local.program().flat_parameters());
      trained = parameters.clone();
      whole = at::zeros({op.shard().padded()}, op.options());
    });
  }

  /// Parameters are θ + s while this lives.
  class Moved {
   public:
    explicit Moved(Impl& impl) : impl_(impl) {
      at::NoGradGuard no_grad;
      impl_.parameters.add_(impl_.whole.narrow(0, 0, impl_.op.shard().n));
    }
    ~Moved() {
      at::NoGradGuard no_grad;
      impl_.parameters.copy_(impl_.trained);
    }
    Moved(const Moved&) = delete;
    Moved& operator=(const Moved&) = delete;

   private:
    Impl& impl_;
  };

  void gather(const at::Tensor& step) {
    if (op.comm().size() == 1)
      whole.copy_(step);
    else
      op.comm().all_gather(step, whole);
  }

  /// The mean loss at θ + `whole`. Collective.
  double loss_moved() {
    double sum = 0;
    agree(op.comm(), [&] {
      const Moved moved(*this);
      at::NoGradGuard no_grad;
      for (const MicroBatch& batch : parts.batches) sum += parts.local.loss(batch).sum.to(at::kDouble).item<double>();
    });
    ++losses;
    return mean(sum);
  }

  double mean(double local_sum) { return op.comm().sum(local_sum) / parts.divisor; }
};

LossSurface::LossSurface(HessianOperator& op) : impl_(std::make_unique<Impl>(op)) {}
LossSurface::~LossSurface() = default;

double LossSurface::loss(const at::Tensor& step_local) {
  impl_->gather(step_local);
  return impl_->loss_moved();
}

double LossSurface::loss(const Part& part, const at::Tensor& step_local) {
  Communicator& comm = impl_->op.comm();
  const Shard cut = Shard::of(part.size(), comm.size(), comm.rank());
  at::Tensor of_part = step_local;
  if (comm.size() > 1) {
    of_part = agreed(comm, [&] { return at::empty({cut.padded()}, step_local.options()); });
    comm.all_gather(step_local, of_part);
  }
  at::NoGradGuard no_grad;
  impl_->whole.zero_();
  std::int64_t at = 0;
  for (const IndexRange& range : part.ranges) {
    impl_->whole.narrow(0, range.begin, range.size()).copy_(of_part.narrow(0, at, range.size()));
    at += range.size();
  }
  return impl_->loss_moved();
}

double LossSurface::parameter_norm(const Part& part) const {
  at::NoGradGuard no_grad;
  double square = 0;
  for (const IndexRange& range : part.ranges)
    square += impl_->trained.narrow(0, range.begin, range.size()).to(at::kDouble).square().sum().item<double>();
  return std::sqrt(square);
}

double LossSurface::gradient(const at::Tensor& step_local, at::Tensor& gradient_local) {
  impl_->gather(step_local);
  double sum = 0;
  agree(impl_->op.comm(), [&] {
    const Impl::Moved moved(*impl_);
    impl_->whole.zero_();
    for (const MicroBatch& batch : impl_->parts.batches)
      sum += impl_->parts.local.products(batch)->add_gradient(impl_->whole.narrow(0, 0, impl_->op.shard().n));
    finish_device_work(impl_->whole);
  });
  if (impl_->op.comm().size() == 1)
    gradient_local.copy_(impl_->whole);
  else
    impl_->op.comm().reduce_scatter_sum(impl_->whole, gradient_local);
  gradient_local.div_(impl_->parts.divisor);
  ++impl_->gradients;
  return impl_->mean(sum);
}

std::int64_t LossSurface::losses() const { return impl_->losses; }
std::int64_t LossSurface::gradients() const { return impl_->gradients; }

}  // namespace hesspect
