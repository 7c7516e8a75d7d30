#include "rewrites.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>

namespace hesspect {
namespace {

using c10::IValue;

constexpr std::int64_t kSum = 0, kMean = 1;  // embedding_bag's mode

/// batch_norm(x, w, b, mean, var, training = False, momentum, eps, …) as x · s + (b − mean · s), s = w / √(var + eps).
/// Ioffe & Szegedy 2015, algorithm 2.
at::Tensor batch_norm(const std::vector<IValue>& arguments) {
  const at::Tensor& x = arguments[0].toTensor();
  const at::Tensor& mean = arguments[3].toTensor();
  const at::Tensor& variance = arguments[4].toTensor();
  at::Tensor scale = at::rsqrt(variance + arguments[7].toScalar());
  if (arguments[1].isTensor()) scale = scale * arguments[1].toTensor();
  at::Tensor shift = -mean * scale;
  if (arguments[2].isTensor()) shift = shift + arguments[2].toTensor();
  std::vector<std::int64_t> per_channel(static_cast<std::size_t>(x.dim()), 1);
  per_channel[1] = x.size(1);
  return at::addcmul(shift.view(per_channel), x, scale.view(per_channel));
}

at::Tensor hardsigmoid(const std::vector<IValue>& arguments) {
  return at::clamp(arguments[0].toTensor() / 6 + 0.5, 0, 1);
}

at::Tensor hardsigmoid_in_place(const std::vector<IValue>& arguments) {
  return arguments[0].toTensor().copy_(hardsigmoid(arguments));
}

at::Tensor copy(const std::vector<IValue>& arguments) {
  return at::empty_like(arguments[0].toTensor()).copy_(arguments[1].toTensor());
}

/// _weight_norm(v, g, dim): Salimans & Kingma 2016, eq. 2.
at::Tensor weight_norm(const std::vector<IValue>& arguments) {
  const at::Tensor& v = arguments[0].toTensor();
  return v * (arguments[1].toTensor() / at::norm_except_dim(v, 2, arguments[2].toInt()));
}

/// embedding_bag(weight, indices, offsets, scale_grad_by_freq, mode, sparse, per_sample_weights, include_last_offset,
/// padding_idx) with flat indices [m], and bag i the indices from offsets[i] up to the next offset.
at::Tensor embedding_bag(const std::vector<IValue>& arguments) {
  const at::Tensor& weight = arguments[0].toTensor();
  const at::Tensor indices = arguments[1].toTensor().to(at::kLong);
  at::Tensor offsets = arguments[2].toTensor().to(at::kLong);
  if (arguments[7].toBool()) offsets = offsets.narrow(0, 0, offsets.size(0) - 1);  // the last one only marks the end
  const std::int64_t bags = offsets.size(0);
  const at::Tensor positions = at::arange(indices.size(0), indices.options());
  // The last offset that is not beyond a position is its bag's, so an empty bag gets none.
  const at::Tensor bag = at::bucketize(positions, offsets, /*out_int32=*/false, /*right=*/true) - 1;
  at::Tensor rows = at::embedding(weight, indices);
  if (arguments[6].isTensor()) rows = rows * arguments[6].toTensor().unsqueeze(1);
  at::Tensor counted = at::ones({indices.size(0)}, weight.options());
  if (arguments.size() > 8 && arguments[8].isInt() && arguments[8].toInt() >= 0) {
    counted = (indices != arguments[8].toInt()).to(weight.scalar_type());
    rows = rows * counted.unsqueeze(1);
  }
  const at::Tensor sum = at::zeros({bags, weight.size(1)}, weight.options()).index_add(0, bag, rows);
  if (arguments[4].toInt() == kSum) return sum;
  const at::Tensor count = at::zeros({bags}, weight.options()).index_add(0, bag, counted);
  return sum / count.clamp_min(1).unsqueeze(1);
}

/// slice_scatter(x, source, dim, start, end, step): x with the source in the place of a slice.
at::Tensor slice_scatter(const std::vector<IValue>& arguments) {
  const at::Tensor& x = arguments[0].toTensor();
  const at::Tensor& source = arguments[1].toTensor();
  const std::int64_t dim = arguments[2].toInt(), step = arguments[5].toInt();
  const auto start = arguments[3].toOptional<std::int64_t>(), end = arguments[4].toOptional<std::int64_t>();
  if (!x.is_complex() && !source.is_complex()) return at::slice_scatter(x, source, dim, start, end, step);
  at::Tensor y = x.clone();
  y.slice(dim, start, end, step).copy_(source);
  return y;
}

/// select_scatter(x, source, dim, index): x with the source in the place of what select gives.
at::Tensor select_scatter(const std::vector<IValue>& arguments) {
  const at::Tensor& x = arguments[0].toTensor();
  const at::Tensor& source = arguments[1].toTensor();
  const std::int64_t dim = arguments[2].toInt(), index = arguments[3].toInt();
  if (!x.is_complex() && !source.is_complex()) return at::select_scatter(x, source, dim, index);
  at::Tensor y = x.clone();
  y.select(dim, index).copy_(source);
  return y;
}

/// cdist(a [..., P, M], b [..., R, M], p): the p-norms [..., P, R] of all differences.
at::Tensor cdist(const std::vector<IValue>& arguments) {
  const at::Tensor difference = arguments[0].toTensor().unsqueeze(-2) - arguments[1].toTensor().unsqueeze(-3);
  return at::linalg_vector_norm(difference, arguments[2].toDouble(), at::IntArrayRef({-1}));
}

/// _grouped_mm(a, b, offs, bias, out_dtype): one product for each of G groups. `offs` [G] holds where each group ends
/// in the dimension along which the groups of a two-dimensional operand lie; what is behind the last one is in no
/// group.
at::Tensor grouped_mm(const std::vector<IValue>& arguments) {
  const at::Tensor& a = arguments[0].toTensor();  // [G, M, K], or [ΣM, K], or [M, ΣK]
  const at::Tensor& b = arguments[1].toTensor();  // [G, K, N], or [K, ΣN], or [ΣK, N]
  const auto result = [&](const at::Tensor& y) {
    return arguments.size() > 4 && arguments[4].isInt() ? y.to(arguments[4].toScalarType()) : y;
  };
  if (a.dim() == 3 && b.dim() == 3) return result(at::bmm(a, b));
  const at::Tensor ends = arguments[2].toTensor().to(at::kCPU, at::kLong).contiguous();
  const std::int64_t groups = ends.numel();
  // Splits a two-dimensional operand into its groups and the rest, with one node of autograd's.
  const auto split = [&](const at::Tensor& x, std::int64_t dim) {
    std::vector<std::int64_t> sizes;
    std::int64_t begin = 0;
    for (std::int64_t g = 0; g < groups; begin = ends.const_data_ptr<std::int64_t>()[g++])
      sizes.push_back(ends.const_data_ptr<std::int64_t>()[g] - begin);
    sizes.push_back(x.size(dim) - begin);
    return x.split_with_sizes(sizes, dim);
  };
  const std::vector<at::Tensor> left = a.dim() == 3 ? a.unbind(0) : split(a, b.dim() == 3 ? 0 : 1);
  const std::vector<at::Tensor> right = b.dim() == 3 ? b.unbind(0) : split(b, a.dim() == 3 ? 1 : 0);
  std::vector<at::Tensor> products;
  for (std::size_t g = 0; g < static_cast<std::size_t>(groups); ++g)
    products.push_back(at::mm(left.at(g), right.at(g)));
  if (a.dim() == 2 && b.dim() == 2) return result(at::stack(products));
  products.push_back(b.dim() == 3 ? at::zeros({left.back().size(0), b.size(2)}, a.options())
                                  : at::zeros({a.size(1), right.back().size(1)}, a.options()));
  return result(at::cat(products, b.dim() == 3 ? 0 : 1));
}

std::optional<std::int64_t> offset_in(const std::vector<IValue>& arguments, std::size_t at, const at::Tensor& x) {
  if (arguments.size() <= at || !arguments[at].isInt()) return std::nullopt;
  return x.storage_offset() + arguments[at].toInt();
}

/// as_strided(x, size, stride, offset) of an x that lay in order where the program was exported, as is checked when it
/// is read (compile.cpp): here its memory may lie otherwise.
at::Tensor as_strided(const std::vector<IValue>& arguments) {
  const at::Tensor x = arguments[0].toTensor().contiguous();
  return at::as_strided(x, arguments[1].toIntVector(), arguments[2].toIntVector(), offset_in(arguments, 3, x));
}

/// as_strided_scatter(x, source, size, stride, offset), likewise.
at::Tensor as_strided_scatter(const std::vector<IValue>& arguments) {
  const at::Tensor x = arguments[0].toTensor().contiguous();
  return at::as_strided_scatter(x, arguments[1].toTensor(), arguments[2].toIntVector(), arguments[3].toIntVector(),
                                offset_in(arguments, 4, x));
}

/// view(x, size), of a copy where x lies otherwise in memory than where the program was exported. Attention that keeps
/// the layout of its queries is such a case: export leaves the `contiguous` behind it out.
at::Tensor view(const std::vector<IValue>& arguments) {
  return at::reshape(arguments[0].toTensor(), arguments[1].toIntVector());
}

using Constants = std::vector<IValue>;
using Given = std::vector<bool>;

bool takes_bags(const Constants& constants, const Given& given) {
  const bool has_mode = constants[4].isInt() && (constants[4].toInt() == kSum || constants[4].toInt() == kMean);
  return constants[3].isBool() && !constants[3].toBool() && has_mode && constants[7].isBool() &&
         (constants.size() < 9 || !given[8]);
}

bool takes_dimension(const Constants& constants, const Given&) { return constants[2].isInt(); }

bool takes_power(const Constants& constants, const Given&) { return constants[2].isDouble(); }

bool has_no_bias(const Constants& constants, const Given& given) {
  return constants.size() < 4 || (!given[3] && constants[3].isNone());
}

const std::vector<Rewrite> kRewrites = {
    // Eval mode: a scale and a shift per channel; the native double backward costs several times that.
    {{"batch_norm"}, true, 8, {0, 3, 4}, batch_norm},
    // clamp(x / 6 + 1/2, 0, 1): hardsigmoid_backward has no derivative.
    {{"hardsigmoid"}, false, 0, {}, hardsigmoid},
    {{"hardsigmoid_"}, true, 0, {}, hardsigmoid_in_place},
    // v · g / ‖v‖: the fused op's double backward takes the norms as constant, and is wrong.
    {{"_weight_norm", "_weight_norm_interface"}, true, 3, {0, 1}, weight_norm, takes_dimension},
    // embedding and index_add: _embedding_bag_dense_backward has no derivative; modes sum and mean.
    {{"embedding_bag", "_embedding_bag", "_embedding_bag_forward_only"}, true, 8, {0, 1, 2}, embedding_bag, takes_bags},
    // A fresh tensor and copy_: the form without side effects has no derivative.
    {{"copy"}, false, 2, {0, 1}, copy},
    // A copy and copy_ into its slice: the op has no derivative for complex numbers.
    {{"slice_scatter"}, true, 6, {0, 1}, slice_scatter},
    {{"select_scatter"}, true, 4, {0, 1}, select_scatter},
    // Norms of differences: _cdist_backward has no derivative.
    {{"cdist", "_cdist_forward"}, true, 3, {0, 1}, cdist, takes_power},
    // A product for each group: the op's own kernels take few dtypes.
    {{"_grouped_mm"}, true, 3, {0, 1}, grouped_mm, has_no_bias},
    // Strides count entries of memory, which may lie otherwise than where the program was exported.
    {{"as_strided", "as_strided_copy", "_reshape_alias"}, true, 3, {0}, as_strided},
    {{"as_strided_scatter"}, true, 4, {0, 1}, as_strided_scatter},
    {{"view"}, false, 2, {0}, view, nullptr, /*copies=*/true},
};

}  // namespace

const Rewrite* rewrite_for(const std::string& name, const std::string& overload) {
  const auto found = std::ranges::find_if(kRewrites, [&](const Rewrite& rewrite) {
    return std::ranges::find(rewrite.ops, name) != rewrite.ops.end() && (rewrite.any_overload || overload.empty());
  });
  return found == kRewrites.end() ? nullptr : &*found;
}

bool can_rewrite(const Rewrite& rewrite, const Constants& constants, const Given& given) {
  return constants.size() >= rewrite.least_arguments &&
         std::ranges::all_of(rewrite.given, [&](std::size_t argument) { return given[argument]; }) &&
         (rewrite.covers == nullptr || rewrite.covers(constants, given));
}

}  // namespace hesspect
