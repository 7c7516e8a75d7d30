// Rows in host memory, brought to the GPU piece by piece while the piece before is still being used.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <span>

namespace hesspect::detail {

/// Whether some of the rows are not on `device`.
bool streamed(std::span<const at::Tensor> rows, at::Device device);

/// use(piece, its first row) for all rows in order, `piece` [rows of it, m] being on `device`. A matrix that is there
/// is one piece; one in host memory (pinned, or nothing overlaps) goes through two staging buffers of a few rows on a
/// stream of its own; all of these have one dtype. `use` queues its work on the current stream and keeps nothing of
/// `piece`.
void for_each_on_device(std::span<const at::Tensor> rows, at::Device device,
                        const std::function<void(const at::Tensor& piece, std::int64_t first)>& use);

}  // namespace hesspect::detail
