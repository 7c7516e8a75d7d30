// Any op, by LibTorch's autograd on that op alone.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/autograd.h>

#include "registry.h"
#include "stacked.h"

namespace hesspect {
namespace {

using c10::IValue;

/// Autograd within a sweep, whose calls go past it.
struct WithAutograd {
  at::AutoGradMode grad{true};
  c10::impl::ForceDispatchKeyGuard keys{
      c10::impl::tls_local_dispatch_key_set().included_,
      c10::impl::tls_local_dispatch_key_set().excluded_ - c10::autograd_dispatch_keyset_with_ADInplaceOrView};
};

std::vector<at::Tensor> gradient(const std::vector<at::Tensor>& of, const std::vector<at::Tensor>& in,
                                 const std::vector<at::Tensor>& weights, bool again) {
  if (of.empty()) return std::vector<at::Tensor>(in.size());
  return torch::autograd::grad(of, in, weights, /*retain_graph=*/true, again, /*allow_unused=*/true);
}

class Fallback final : public NodeRun {
 public:
  explicit Fallback(Arguments arguments) : arguments_(std::move(arguments)) {}

  std::vector<at::Tensor> value() override {
    const WithAutograd scope;
    std::vector<IValue> stack;
    for (std::size_t i = 0; i < arguments_.values.size(); ++i) stack.push_back(with_leaves(i));
    arguments_.call(stack);
    std::vector<at::Tensor> values;
    const auto take = [&](const at::Tensor& y) {
      outputs_.push_back(y);
      values.push_back(y.defined() ? y.detach() : y);
    };
    for (const IValue& y : stack) {
      if (y.isTensorList())
        for (const at::Tensor& item : y.toTensorVector()) take(item);
      else
        take(y.isTensor() ? y.toTensor() : at::Tensor());
    }
    for (IValue& argument : arguments_.values) argument = IValue();
    return values;
  }

  std::vector<at::Tensor> tangent(const Tangents& x_dot) override {
    const WithAutograd scope;
    x_dot_.assign(x_dot.all().begin(), x_dot.all().end());
    count_ = x_dot.count();
    pull_back_of_dummies();
    std::vector<std::vector<at::Tensor>> by_k;  // J x_dot for each differentiable output
    for (std::int64_t k = 0; k < count_; ++k) {
      std::vector<at::Tensor> of, weights;
      for (std::size_t i = 0; i < leaves_.size(); ++i)
        if (transposed_[i].defined() && transposed_[i].requires_grad() && x_dot_[i].defined()) {
          of.push_back(transposed_[i]);
          weights.push_back(x_dot_[i][k]);
        }
      by_k.push_back(gradient(of, dummies_, weights, false));
    }
    std::vector<at::Tensor> y_dot(outputs_.size());
    for (std::size_t j = 0; j < dummies_.size(); ++j) {
      if (!by_k[0][j].defined()) continue;
      std::vector<at::Tensor> each;
      for (const auto& of_k : by_k) each.push_back(of_k[j].detach());
      y_dot[differentiable_[j]] = count_ == 1 ? each[0].unsqueeze(0) : at::stack(each);
    }
    return y_dot;
  }

  void adjoint(std::span<const at::Tensor> y_bar, Sink& x_bar) override {
    const WithAutograd scope;
    std::vector<at::Tensor> of, weights;
    for (std::size_t i = 0; i < outputs_.size(); ++i)
      if (y_bar[i].defined() && is_differentiable(outputs_[i])) {
        of.push_back(outputs_[i]);
        weights.push_back(y_bar[i][0]);
      }
    adjoints_ = gradient(of, leaves_, weights, true);
    for (std::size_t i = 0; i < leaves_.size(); ++i)
      if (adjoints_[i].defined())
        x_bar.add(sources_[i].operand, adjoints_[i].detach().unsqueeze(0), /*own=*/false, sources_[i].item);
  }

  void adjoint_tangent(std::span<const at::Tensor> y_bar_dot, Sink& x_bar_dot) override {
    const WithAutograd scope;
    const std::vector<at::Tensor> x_dot = std::move(x_dot_);
    x_dot_.clear();
    std::vector<std::vector<at::Tensor>> by_k;
    for (std::int64_t k = 0; k < x_bar_dot.count(); ++k) {
      std::vector<at::Tensor> of, weights;
      for (std::size_t i = 0; i < adjoints_.size() && !x_dot.empty(); ++i)
        if (adjoints_[i].defined() && adjoints_[i].requires_grad() && x_dot[i].defined()) {
          of.push_back(adjoints_[i]);
          weights.push_back(x_dot[i][k]);
        }
      for (std::size_t i = 0; i < outputs_.size(); ++i)
        if (y_bar_dot[i].defined() && is_differentiable(outputs_[i])) {
          of.push_back(outputs_[i]);
          weights.push_back(y_bar_dot[i][k]);
        }
      by_k.push_back(gradient(of, leaves_, weights, false));
    }
    for (std::size_t i = 0; i < leaves_.size(); ++i) {
      if (!by_k[0][i].defined()) continue;
      std::vector<at::Tensor> each;
      for (const auto& of_k : by_k) each.push_back(of_k[i].detach());
      x_bar_dot.add(sources_[i].operand, each.size() == 1 ? each[0].unsqueeze(0) : at::stack(each), each.size() > 1,
                    sources_[i].item);
    }
  }

 private:
  /// An output may be the argument itself.
  static bool is_differentiable(const at::Tensor& y) { return y.defined() && y.requires_grad(); }

  /// The argument with each tensor that tangents reach replaced by a leaf.
  IValue with_leaves(std::size_t operand) {
    const IValue& value = arguments_.values[operand];
    const auto leaf = [&](const at::Tensor& tensor, std::size_t item) {
      for (const Source& source : arguments_.sources)
        if (source.operand == operand && source.item == item) {
          sources_.push_back(source);
          leaves_.push_back(tensor.detach().requires_grad_(true));
          return leaves_.back();
        }
      return tensor;
    };
    if (value.isTensor()) return leaf(value.toTensor(), 0);
    std::size_t item = 0;
    if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(leaf(tensor, item++));
      return list;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector()) {
        list.push_back(tensor ? std::optional<at::Tensor>(leaf(*tensor, item)) : std::nullopt);
        ++item;
      }
      return list;
    }
    return value;
  }

  /// Jᵀu with a dummy u for each differentiable output. Its value is of no account, for Jᵀu is linear in it, but for
  /// that it must not be 0: logcumsumexp's takes its logarithm.
  void pull_back_of_dummies() {
    if (!transposed_.empty()) return;
    std::vector<at::Tensor> of;
    for (std::size_t i = 0; i < outputs_.size(); ++i)
      if (is_differentiable(outputs_[i])) {
        differentiable_.push_back(i);
        of.push_back(outputs_[i]);
        dummies_.push_back(at::ones_like(outputs_[i]).requires_grad_(true));
      }
    transposed_ = gradient(of, leaves_, dummies_, true);
  }

  Arguments arguments_;
  std::vector<Source> sources_;  // of the leaves, in order
  std::vector<at::Tensor> leaves_, outputs_, dummies_, transposed_, adjoints_, x_dot_;
  std::vector<std::size_t> differentiable_;  // the outputs of the dummies
  std::int64_t count_ = 1;
};

}  // namespace

std::unique_ptr<NodeRun> fallback(Arguments& arguments) { return std::make_unique<Fallback>(std::move(arguments)); }

}  // namespace hesspect
