#include "shape_forms.h"

#include <ATen/ATen.h>
#include <ATen/ExpandUtils.h>
#include <ATen/WrapDimUtils.h>
#include <ATen/core/grad_mode.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

namespace hesspect {
namespace {

using Sizes = std::vector<std::int64_t>;

at::Tensor index_select(const at::Tensor& x, std::int64_t dim, const at::Tensor& at) {
  Sizes sizes = x.sizes().vec();
  if (!sizes.empty()) sizes[static_cast<std::size_t>(at::maybe_wrap_dim(dim, x.dim()))] = at.numel();
  return at::empty(sizes, x.options());
}

at::Tensor& masked_fill_number(at::Tensor& x, const at::Tensor& /*mask*/, const at::Scalar& /*value*/) { return x; }
at::Tensor& masked_fill_tensor(at::Tensor& x, const at::Tensor& /*mask*/, const at::Tensor& /*value*/) { return x; }

at::Tensor where(const at::Tensor& condition, const at::Tensor& x, const at::Tensor& y) {
  const Sizes sizes = at::infer_size(condition.sizes(), at::infer_size(x.sizes(), y.sizes()));
  return at::empty(sizes, x.options().dtype(at::result_type(x, y)));
}

/// Sizes of a convolution's output, and of a transposed one's: PyTorch's documents of Conv2d and ConvTranspose2d.
at::Tensor convolution(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& /*bias*/,
                       at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed,
                       at::IntArrayRef output_padding, std::int64_t groups) {
  const auto of = [](at::IntArrayRef list, std::int64_t d) {
    return list.size() == 1 ? list[0] : list.at(static_cast<std::size_t>(d));
  };
  Sizes sizes = {x.size(0), transposed ? weight.size(1) * groups : weight.size(0)};
  for (std::int64_t d = 0; d < x.dim() - 2; ++d) {
    const std::int64_t in = x.size(d + 2), reach = of(dilation, d) * (weight.size(d + 2) - 1);
    sizes.push_back(transposed ? (in - 1) * of(stride, d) - 2 * of(padding, d) + reach + of(output_padding, d) + 1
                               : (in + 2 * of(padding, d) - reach - 1) / of(stride, d) + 1);
  }
  return at::empty(sizes, x.options());
}

at::Tensor adaptive_avg_pool2d(const at::Tensor& x, at::IntArrayRef size) {
  Sizes sizes = x.sizes().vec();
  std::copy(size.begin(), size.end(), sizes.end() - 2);
  return at::empty(sizes, x.options());
}

at::Tensor bucketize(const at::Tensor& x, const at::Tensor& /*boundaries*/, bool out_int32, bool /*right*/) {
  return at::empty(x.sizes(), x.options().dtype(out_int32 ? at::kInt : at::kLong));
}

at::Tensor deviation(const at::Tensor& x, at::OptionalIntArrayRef dim, const std::optional<at::Scalar>& /*correction*/,
                     bool keepdim) {
  // Of the same sizes as a sum.
  return dim && !dim->empty() ? at::sum(x, *dim, keepdim) : at::sum(x.reshape({-1}));
}

std::tuple<at::Tensor, at::Tensor> deviation_and_mean(const at::Tensor& x, at::OptionalIntArrayRef dim,
                                                      const std::optional<at::Scalar>& correction, bool keepdim) {
  return {deviation(x, dim, correction, keepdim), deviation(x, dim, correction, keepdim)};
}

at::Tensor roll(const at::Tensor& x, at::IntArrayRef /*shifts*/, at::IntArrayRef /*dims*/) {
  return at::empty(x.sizes(), x.options());
}
at::Tensor flip(const at::Tensor& x, at::IntArrayRef /*dims*/) { return at::empty(x.sizes(), x.options()); }

// Of the argument's shape, strides and type.
at::Tensor like(const at::Tensor& x) { return at::empty_like(x); }
at::Tensor& in_place(at::Tensor& x) { return x; }
at::Tensor clamped(const at::Tensor& x, const at::Scalar& /*least*/, const at::Scalar& /*most*/) { return like(x); }
at::Tensor& clamped_in_place(at::Tensor& x, const at::Scalar& /*least*/, const at::Scalar& /*most*/) { return x; }

// Norms give what lies in order.
at::Tensor in_order(const at::Tensor& x) { return at::empty(x.sizes(), x.options()); }
using Parameter = std::optional<at::Tensor>;

at::Tensor layer_norm(const at::Tensor& x, at::IntArrayRef /*sizes*/, const Parameter& /*weight*/,
                      const Parameter& /*bias*/, double /*eps*/, bool /*cudnn*/) {
  return in_order(x);
}
at::Tensor rms_norm(const at::Tensor& x, at::IntArrayRef /*sizes*/, const Parameter& /*weight*/,
                    std::optional<double> /*eps*/) {
  return in_order(x);
}
at::Tensor group_norm(const at::Tensor& x, std::int64_t /*groups*/, const Parameter& /*weight*/,
                      const Parameter& /*bias*/, double /*eps*/, bool /*cudnn*/) {
  return in_order(x);
}
at::Tensor instance_norm(const at::Tensor& x, const Parameter& /*weight*/, const Parameter& /*bias*/,
                         const Parameter& /*mean*/, const Parameter& /*variance*/, bool /*of_input*/,
                         double /*momentum*/, double /*eps*/, bool /*cudnn*/) {
  return in_order(x);
}

at::Tensor attention(const at::Tensor& q, const at::Tensor& /*k*/, const at::Tensor& v, const Parameter& /*mask*/,
                     double /*dropout*/, bool /*causal*/, std::optional<double> /*scale*/, bool /*grouped*/) {
  Sizes sizes = q.sizes().vec();
  sizes.back() = v.size(-1);
  return at::empty(sizes, q.options());
}

at::Tensor logsumexp(const at::Tensor& x, at::IntArrayRef dim, bool keepdim) { return at::sum(x, dim, keepdim); }

}  // namespace

void register_shape_forms() {
  static torch::Library library = [] {
    torch::Library forms(torch::Library::IMPL, "aten", c10::DispatchKey::Meta, __FILE__, __LINE__);
    forms.impl("index_select", index_select);
    forms.impl("masked_fill_.Scalar", masked_fill_number);
    forms.impl("masked_fill_.Tensor", masked_fill_tensor);
    forms.impl("where.self", where);
    forms.impl("convolution", convolution);
    forms.impl("_adaptive_avg_pool2d", adaptive_avg_pool2d);
    forms.impl("bucketize.Tensor", bucketize);
    forms.impl("var.correction", deviation);
    forms.impl("std.correction", deviation);
    forms.impl("var_mean.correction", deviation_and_mean);
    forms.impl("logsumexp", logsumexp);
    forms.impl("scaled_dot_product_attention", attention);
    forms.impl("layer_norm", layer_norm);
    forms.impl("rms_norm", rms_norm);
    forms.impl("group_norm", group_norm);
    forms.impl("instance_norm", instance_norm);
    for (const char* op : {"relu", "hardswish"}) forms.impl(op, like);
    for (const char* op : {"relu_", "hardswish_"}) forms.impl(op, in_place);
    forms.impl("hardtanh", clamped);
    forms.impl("hardtanh_", clamped_in_place);
    forms.impl("roll", roll);
    forms.impl("flip", flip);
    return forms;
  }();
}

}  // namespace hesspect
