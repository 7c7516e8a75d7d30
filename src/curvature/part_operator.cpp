#include "hesspect/curvature/part_operator.h"

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/core/timer.h"

namespace hesspect {

PartOperator::PartOperator(HessianOperator& whole, const Part& part)
    : whole_(whole), part_(part), shard_(whole.shard_of(part)) {
  if (part.ranges.empty()) throw UsageError("the block " + quote(part.name) + " has no parameters");
}

void PartOperator::apply(const at::Tensor& x_local, at::Tensor& y_local) {
  apply_block(std::span<const at::Tensor>(&x_local, 1), std::span<at::Tensor>(&y_local, 1));
}

void PartOperator::apply_block(std::span<const at::Tensor> x_local, std::span<at::Tensor> y_local) {
  const Timer timer;
  whole_.apply_part(part_, x_local, y_local);
  products_ += static_cast<std::int64_t>(x_local.size());
  product_s_ += timer.elapsed_s();
}

}  // namespace hesspect
