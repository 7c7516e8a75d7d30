// Columns of rows, on a GPU; those of rows in host memory come in while the ones before are still being used.
#pragma once

#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>

namespace hesspect::detail {

/// The columns of a block, copied without a temporary: row by row where they are not all of it.
inline void copy_columns(const at::Tensor& block, std::int64_t begin, at::Tensor piece) {
  if (piece.size(1) == block.size(1)) {
    piece.copy_(block, /*non_blocking=*/true);
    return;
  }
  for (std::int64_t r = 0; r < block.size(0); ++r)
    piece.select(0, r).copy_(block.select(0, r).narrow(0, begin, piece.size(1)), /*non_blocking=*/true);
}

/// Two buffers on the device. Streams and events order everything; the host waits for nothing.
class Staging {
 public:
  /// @param entries  of the largest piece
  Staging(const at::TensorOptions& options, std::int64_t entries, at::Device device)
      : streams_(device.type()),
        compute_(streams_.getStream(device)),
        copying_(streams_.getStreamFromGlobalPool(device)) {
    for (Buffer& buffer : buffers_) {
      buffer.entries = at::empty({entries}, options.device(device));
      // The memory may come from work that is still queued.
      buffer.used.emplace(device.type());
      buffer.used->record(compute_);
      buffer.filled.emplace(device.type());
    }
  }

  template <class Use>
  void bring(const at::Tensor& block, std::int64_t begin, std::int64_t length, Use&& use) {
    Buffer& buffer = buffers_[next_];
    next_ = 1 - next_;
    const at::Tensor piece = buffer.entries.narrow(0, 0, block.size(0) * length).view({block.size(0), length});
    {
      const c10::StreamGuard on(copying_);
      buffer.used->block(copying_);
      copy_columns(block, begin, piece);
      buffer.filled->record(copying_);
    }
    buffer.filled->block(compute_);
    use(piece);
    buffer.used->record(compute_);
  }

 private:
  struct Buffer {
    at::Tensor entries;
    std::optional<c10::Event> used, filled;
  };
  c10::impl::VirtualGuardImpl streams_;
  c10::Stream compute_, copying_;
  std::array<Buffer, 2> buffers_;
  std::size_t next_ = 0;
};

class RowStream {
 public:
  /// Rows in host memory (pinned, or nothing overlaps) go through two buffers on the device, of a block of `columns`
  /// each, on a stream of its own; all of these have one dtype.
  /// @param rows     matrices [b_k, m], contiguous, which must outlive the stream
  /// @param columns  of a pass, at most
  RowStream(std::span<const at::Tensor> rows, at::Device device, std::int64_t columns) : rows_(rows), device_(device) {
    std::int64_t most = 0;
    const at::Tensor* elsewhere = nullptr;
    for (const at::Tensor& block : rows) {
      if (block.device() == device) continue;
      elsewhere = &block;
      most = std::max(most, block.size(0));
    }
    if (elsewhere != nullptr) staging_.emplace(elsewhere->options(), most * columns, device);
  }

  /// use(piece, its first row) for all blocks in order, `piece` [b_k, length] being columns [begin, begin + length) on
  /// the device. `use` queues its work on the current stream, the constructor's, and keeps nothing of `piece`.
  template <class Use>
  void for_each(std::int64_t begin, std::int64_t length, Use&& use) {
    std::int64_t first = 0;
    for (const at::Tensor& block : rows_) {
      if (block.device() == device_)
        use(block.narrow(1, begin, length), first);
      else
        staging_->bring(block, begin, length, [&](const at::Tensor& piece) { use(piece, first); });
      first += block.size(0);
    }
  }

 private:
  std::span<const at::Tensor> rows_;
  at::Device device_;
  std::optional<Staging> staging_;  // where some rows are not on the device
};

}  // namespace hesspect::detail
