// How images [N, C, H, W] lie in memory: channel by channel, or with their channels last, as oneDNN takes them.
//
// A convolution leaves its images with the channels last where that is faster, and what works entry by entry or channel
// by channel leaves them so, since a change of layout reads and writes everything. Other rules ask for what they need
// by `contiguous()`, as of any tensor.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace hesspect {

/// The images with their channels last in memory; themselves where they are so.
at::Tensor channels_last(const at::Tensor& images);

/// `contiguous()`, quicker for images, or stacks of them, which have their channels last.
at::Tensor channels_first(const at::Tensor& t);

/// The layout of one tensor, in which others of its shape, or stacks of such, are put beside it.
class ImageLayout {
 public:
  /// Of a tensor of any shape: channels last for dense images which lie so, else contiguous.
  explicit ImageLayout(const at::Tensor& t);

  bool is_channels_last() const { return is_last_; }
  /// t, or each of stacked t [K, …], as contiguous memory in this layout, copied where it lies otherwise: [N, H, W, C]
  /// or [K, N, H, W, C] where channels are last, else t's own shape. Undefined where t is.
  at::Tensor flat(const at::Tensor& t) const;
  /// What `flat` made, in its tensor's shape again, without a copy.
  at::Tensor shaped(const at::Tensor& flat) const;
  /// Whether `flat` of t is a view of t.
  bool is_view(const at::Tensor& t) const;

 private:
  bool is_last_;
};

}  // namespace hesspect
