// Between sums of adjoints and the fused kernels, which add to contiguous memory alone.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "../image_layout.h"
#include "../stacked.h"
#include "hesspect/tangent/rule.h"

namespace hesspect {

/// Whether the fused kernels take such tensors.
inline bool is_fusible(const at::Tensor& t) { return t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble; }

/// Whether only the first output is read: means and deviations, which native ops give as well, have no rule.
inline bool reads_first_alone(const Arguments& arguments) {
  const std::vector<int>& outputs = arguments.instruction.outputs;
  return outputs.empty() || std::all_of(outputs.begin() + 1, outputs.end(), [](int slot) { return slot < 0; });
}

inline at::Tensor contiguous(const at::Tensor& t) { return t.defined() ? channels_first(t) : t; }

/// [K, shape] with each tangent contiguous, as kernels take vectors of parameters; undefined where it is.
inline at::Tensor contiguous_parts(const at::Tensor& stacked) {
  return !stacked.defined() || part(stacked, 0).is_contiguous() ? stacked : stacked.contiguous();
}

/// Where a kernel leaves an operand's adjoint: in the sum, if that may be written to and lies as the kernel takes it,
/// else in a tensor of its own, which `close` gives to the sink.
class FusedSum {
 public:
  enum class Kind { kWhole, kParts };

  /// @param kind  kWhole: contiguous, and written to as it is where `adds` is false; kParts: each tangent contiguous,
  ///              and always added to
  FusedSum(Sink& sink, std::size_t operand, std::vector<std::int64_t> shape, const at::TensorOptions& options,
           Kind kind)
      : sink_(sink), operand_(operand) {
    if (!sink.wants(operand)) return;
    shape.insert(shape.begin(), sink.count());
    tensor_ = sink.open(operand);
    adds_ = tensor_.defined() && tensor_.sizes() == at::IntArrayRef(shape) &&
            (kind == Kind::kWhole ? tensor_.is_contiguous() : part(tensor_, 0).is_contiguous());
    if (!adds_) tensor_ = kind == Kind::kWhole ? at::empty(shape, options) : at::zeros(shape, options);
  }

  /// [K, shape]; undefined where the adjoint is not wanted.
  const at::Tensor& tensor() const { return tensor_; }
  bool adds() const { return adds_; }
  /// After the kernel.
  void close() {
    if (tensor_.defined() && !adds_) sink_.add(operand_, std::move(tensor_));
  }

 private:
  Sink& sink_;
  std::size_t operand_;
  at::Tensor tensor_;
  bool adds_ = false;
};

/// As FusedSum::kWhole, of images in a layout: what the kernel is given is `ImageLayout::flat`.
class LaidSum {
 public:
  /// @param flat_shape  [K, …], as `layout` has it in memory
  LaidSum(Sink& sink, std::size_t operand, const ImageLayout& layout, at::IntArrayRef flat_shape,
          const at::TensorOptions& options)
      : sink_(sink), operand_(operand), layout_(layout) {
    if (!sink.wants(operand)) return;
    const at::Tensor open = sink.open(operand);
    if (open.defined() && open.numel() == c10::multiply_integers(flat_shape) && layout.is_view(open)) {
      tensor_ = layout.flat(open);
      adds_ = tensor_.sizes() == flat_shape;
    }
    if (!adds_) tensor_ = at::empty(flat_shape, options);
  }

  const at::Tensor& tensor() const { return tensor_; }
  bool adds() const { return adds_; }
  void close() {
    if (tensor_.defined() && !adds_) sink_.add(operand_, layout_.shaped(tensor_));
  }

 private:
  Sink& sink_;
  std::size_t operand_;
  const ImageLayout& layout_;
  at::Tensor tensor_;
  bool adds_ = false;
};

}  // namespace hesspect
