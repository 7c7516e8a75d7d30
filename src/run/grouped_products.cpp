#include "grouped_products.h"

#include "hesspect/krylov/vector_math.h"

namespace hesspect {

GroupedProducts::GroupedProducts(HessianOperator& op, std::vector<at::Tensor> probes, const LayerOffsets& layers)
    : op_(op), probes_(std::move(probes)), segments_(layers) {
  // On a GPU each layer's sum would be a launch and a wait of its own.
  if (segments_.empty() || !op.options().device().is_cpu()) segments_ = {0, op.shard().n};
}

void GroupedProducts::apply_block(std::span<const at::Tensor> x, std::span<at::Tensor> y) {
  const std::vector<double> dots = op_.apply_in_groups(x, y, probes_, segments_);
  if (dots.empty()) return;
  const std::size_t each = dots.size() / x.size();
  for (std::size_t k = 0; k < x.size(); ++k) {
    GroupedProduct& product = products_.emplace_back();
    const auto begin = dots.begin() + static_cast<std::ptrdiff_t>(k * each);
    product.dots.assign(begin, begin + static_cast<std::ptrdiff_t>(each));
    for (const at::Tensor& probe : probes_) product.overlap.push_back(dot_product(x[k], probe));
    product.overlap = comm().sum(std::move(product.overlap));
  }
}

}  // namespace hesspect
