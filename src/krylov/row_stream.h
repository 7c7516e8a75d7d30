// Columns of rows, on a GPU; those of rows in host memory come in while the ones before are still being used.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

namespace hesspect::detail {

class RowStream {
 public:
  /// Rows in host memory (pinned, or nothing overlaps) go through two buffers on the device, of a block of `columns`
  /// each, on a stream of its own; all of these have one dtype.
  /// @param rows     matrices [b_k, m], contiguous, which must outlive the stream
  /// @param columns  of a pass, at most
  RowStream(std::span<const at::Tensor> rows, at::Device device, std::int64_t columns);
  ~RowStream();

  /// use(piece, its first row) for all blocks in order, `piece` [b_k, length] being columns [begin, begin + length) on
  /// the device. `use` queues its work on the current stream, the constructor's, and keeps nothing of `piece`.
  void for_each(std::int64_t begin, std::int64_t length,
                const std::function<void(const at::Tensor& piece, std::int64_t first)>& use);

 private:
  class Staging;
  std::span<const at::Tensor> rows_;
  at::Device device_;
  std::unique_ptr<Staging> staging_;  // where some rows are not on the device
};

}  // namespace hesspect::detail
