#include "hesspect/curvature/other_matrix.h"

#include <ATen/ATen.h>

#include "hesspect/comm/agree.h"
#include "local_loss.h"
#include "operator_parts.h"

namespace hesspect {
namespace {

/// Products are of another matrix while this lives.
class Choice {
 public:
  Choice(LocalLoss& local, Curvature curvature) : local_(local), own_(local.choice()) {
    ProductChoice other = own_;
    other.curvature = curvature;
    other.fisher_unit = FisherUnit::kTerm;
    local_.choose(other);
  }
  ~Choice() { local_.choose(own_); }
  Choice(const Choice&) = delete;
  Choice& operator=(const Choice&) = delete;

 private:
  LocalLoss& local_;
  const ProductChoice own_;
};

}  // namespace

OtherMatrix::OtherMatrix(HessianOperator& op, Curvature curvature) : op_(op), curvature_(curvature) {
  agree(comm(), [&] {
    const Choice tried(op_.parts().local, curvature_);
    whole_ = at::zeros({1, shard().padded()}, options());
    sums_ = at::zeros({1, shard().padded()}, options());
  });
}

void OtherMatrix::apply(const at::Tensor& x_local, at::Tensor& y_local) {
  at::Tensor whole = whole_[0], sums = sums_[0];
  if (comm().size() == 1)
    whole.copy_(x_local);
  else
    comm().all_gather(x_local, whole);
  OperatorParts parts = op_.parts();
  agree(comm(), [&] {
    const Choice other(parts.local, curvature_);
    const std::int64_t n = shard().n;
    sums_.zero_();
    for (const MicroBatch& batch : parts.batches)
      parts.local.products(batch)->add(whole_.narrow(1, 0, n), sums_.narrow(1, 0, n));
    finish_device_work(sums);
  });
  if (comm().size() == 1)
    y_local.copy_(sums);
  else
    comm().reduce_scatter_sum(sums, y_local);
  y_local.div_(parts.divisor);
  ++products_;
}

}  // namespace hesspect
