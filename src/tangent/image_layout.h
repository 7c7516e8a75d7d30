// Images [N, C, H, W] with their channels last in memory, as oneDNN takes them without a copy, and back again.
#pragma once

#include <ATen/core/Tensor.h>

namespace hesspect {

/// The images with their channels last in memory; themselves where they are so.
at::Tensor channels_last(const at::Tensor& images);

/// out := a + b, contiguous, of images in either layout. @param b  undefined: zero
void add_channels_first(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b);

}  // namespace hesspect
