#include "batch_products.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "hesspect/tangent/precision.h"
#include "hesspect/tangent/strided.h"
#include "local_loss.h"
#include "replayed_products.h"

namespace hesspect {
namespace {

/// Each parameter's entries of K vectors [K, n], any stride between them: views [K, shape].
/// @param chosen  where given, the others are left undefined
std::vector<at::Tensor> stacked_views(const ParameterLayout& layout, const at::Tensor& vectors,
                                      const std::vector<bool>* chosen = nullptr) {
  std::vector<at::Tensor> views;
  for (const ParameterEntry& entry : layout.entries()) {
    if (chosen != nullptr && !(*chosen)[views.size()]) {
      views.emplace_back();
      continue;
    }
    std::vector<std::int64_t> sizes{vectors.size(0)}, strides(entry.shape.size() + 1, 1);
    sizes.insert(sizes.end(), entry.shape.begin(), entry.shape.end());
    strides[0] = vectors.stride(0);
    for (std::size_t d = entry.shape.size(); d > 1; --d) strides[d - 1] = strides[d] * sizes[d];
    views.push_back(strided(vectors, sizes, strides, vectors.storage_offset() + entry.offset));
  }
  return views;
}

class TangentProducts final : public BatchProducts {
 public:
  TangentProducts(LocalLoss& local, const MicroBatch& batch)
      : local_(local), batch_(batch), sweeps_(local.sweeps(batch)) {}

  void keep() override {
    const PrecisionScope scope(local_.choice().precision);
    replayed_.reset();
    sweeps_.keep(local_.choice().gauss_newton());
    replay_where_launches_count();
  }
  double keep_with_gradient(const at::Tensor& sum) override {
    const bool are_one = !local_.choice().gauss_newton() && local_.choice().precision == MatrixPrecision::kFp32;
    if (!are_one) return BatchProducts::keep_with_gradient(sum);
    replayed_.reset();
    const double loss = sweeps_.keep_with_gradient(local_.program().layout().views(sum));
    replay_where_launches_count();
    return loss;
  }
  void drop() override {
    replayed_.reset();
    sweeps_ = local_.sweeps(batch_);
  }
  bool is_kept() const override { return sweeps_.is_kept(); }
  void replay_where_launches_count() {
    // Autograd launches its kernels on the stream and from the thread that it likes.
    LaunchRecorder* const recorder = local_.choice().cuda_graphs ? local_.recorder() : nullptr;
    if (recorder == nullptr || local_.tangent_program().uses_fallback()) return;
    replayed_.emplace(*recorder, "rows " + std::to_string(batch_.first_row) + " to " +
                                     std::to_string(batch_.first_row + batch_.rows - 1));
  }
  void add(const at::Tensor& v, const at::Tensor& sums) override {
    if (replayed_)
      replayed_->add(v, sums, [&] { add_products(v, sums); });
    else
      add_products(v, sums);
  }
  /// Launched kernel by kernel: a recorded graph is of whole vectors.
  void add_part(const at::Tensor& v, const at::Tensor& sums, const std::vector<bool>& chosen) override {
    add_products(v, sums, &chosen);
  }
  double add_gradient(const at::Tensor& sum) override {
    replayed_.reset();
    return sweeps_.add_gradient(local_.program().layout().views(sum), cuts());
  }
  bool replays() const override { return replayed_ && replayed_->replays(); }
  void drop_recorded(bool for_good) override {
    if (!replayed_) return;
    if (for_good)
      replayed_->stop();
    else
      replayed_->forget();
  }

 private:
  Cuts cuts() const { return local_.choice().segments ? local_.cuts(batch_) : Cuts{}; }
  void add_products(const at::Tensor& v, const at::Tensor& sums, const std::vector<bool>* chosen = nullptr) {
    const ParameterLayout& layout = local_.program().layout();
    const PrecisionScope scope(local_.choice().precision);
    sweeps_.add_products(stacked_views(layout, v, chosen), stacked_views(layout, sums, chosen),
                         local_.choice().gauss_newton(), cuts());
  }

  LocalLoss& local_;
  const MicroBatch& batch_;
  Sweeps sweeps_;
  std::optional<ReplayedProducts> replayed_;  // of what is kept
};

class AutogradProducts final : public BatchProducts {
 public:
  AutogradProducts(LocalLoss& local, const MicroBatch& batch) : local_(local), batch_(batch) {}

  void keep() override {
    at::AutoGradMode grad(true);
    const PrecisionScope scope(local_.choice().precision);
    graph_ = local_.gradient_graph(batch_);
  }
  void drop() override { graph_.reset(); }
  bool is_kept() const override { return graph_.has_value(); }
  void add(const at::Tensor& v, const at::Tensor& sums) override { add_products(v, sums, nullptr); }
  /// Its own gradients alone are pulled back, to themselves alone.
  void add_part(const at::Tensor& v, const at::Tensor& sums, const std::vector<bool>& chosen) override {
    add_products(v, sums, &chosen);
  }
  double add_gradient(const at::Tensor& sum) override {
    at::AutoGradMode grad(true);
    return local_.add_gradient(batch_, local_.program().layout().views(sum)).first;
  }

 private:
  void add_products(const at::Tensor& v, const at::Tensor& sums, const std::vector<bool>* chosen) {
    at::AutoGradMode grad(true);
    const PrecisionScope scope(local_.choice().precision);
    const ParameterLayout& layout = local_.program().layout();
    const GradientGraph built = graph_ ? GradientGraph{} : local_.gradient_graph(batch_);
    for (std::int64_t k = 0; k < v.size(0); ++k)
      local_.add_product(graph_ ? *graph_ : built, layout.views(v[k]), graph_ || k + 1 < v.size(0),
                         layout.views(sums[k]), chosen);
  }

  LocalLoss& local_;
  const MicroBatch& batch_;
  std::optional<GradientGraph> graph_;
};

}  // namespace

std::unique_ptr<BatchProducts> LocalLoss::products(const MicroBatch& batch) {
  if (choice_.tangent) return std::make_unique<TangentProducts>(*this, batch);
  return std::make_unique<AutogradProducts>(*this, batch);
}

}  // namespace hesspect
