#include "row_stream.h"

#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <array>
#include <optional>

namespace hesspect::detail {
namespace {

// Of rows in double, as `use` converts them: a piece has one row at least, however long.
constexpr std::int64_t kPieceBytes = std::int64_t{256} << 20;

/// Two buffers on the device. Streams and events order everything; the host waits for nothing.
class Staging {
 public:
  /// @param like  a matrix of the rows to come; @param most  rows of the largest
  Staging(const at::Tensor& like, std::int64_t most, at::Device device)
      : piece_rows_(std::clamp<std::int64_t>(kPieceBytes / std::max<std::int64_t>(1, 8 * like.size(1)), 1, most)),
        streams_(device.type()),
        compute_(streams_.getStream(device)),
        copying_(streams_.getStreamFromGlobalPool(device)) {
    for (Buffer& buffer : buffers_) {
      buffer.rows = at::empty({piece_rows_, like.size(1)}, like.options().device(device));
      // The memory may come from work that is still queued.
      buffer.used.emplace(device.type());
      buffer.used->record(compute_);
      buffer.filled.emplace(device.type());
    }
  }

  void run(const at::Tensor& block, std::int64_t first,
           const std::function<void(const at::Tensor&, std::int64_t)>& use) {
    for (std::int64_t r = 0; r < block.size(0); r += piece_rows_) {
      Buffer& buffer = buffers_[next_];
      next_ = 1 - next_;
      const at::Tensor piece = buffer.rows.narrow(0, 0, std::min(piece_rows_, block.size(0) - r));
      {
        const c10::StreamGuard on(copying_);
        buffer.used->block(copying_);
        piece.copy_(block.narrow(0, r, piece.size(0)), /*non_blocking=*/true);
        buffer.filled->record(copying_);
      }
      buffer.filled->block(compute_);
      use(piece, first + r);
      buffer.used->record(compute_);
    }
  }

 private:
  struct Buffer {
    at::Tensor rows;
    std::optional<c10::Event> used, filled;
  };
  std::int64_t piece_rows_;
  c10::impl::VirtualGuardImpl streams_;
  c10::Stream compute_, copying_;
  std::array<Buffer, 2> buffers_;
  std::size_t next_ = 0;
};

}  // namespace

bool streamed(std::span<const at::Tensor> rows, at::Device device) {
  return std::any_of(rows.begin(), rows.end(), [&](const at::Tensor& block) { return block.device() != device; });
}

void for_each_on_device(std::span<const at::Tensor> rows, at::Device device,
                        const std::function<void(const at::Tensor& piece, std::int64_t first)>& use) {
  std::int64_t first = 0, most = 1;
  for (const at::Tensor& block : rows) most = std::max(most, block.size(0));
  std::optional<Staging> staging;
  for (const at::Tensor& block : rows) {
    if (block.device() == device) {
      use(block, first);
    } else {
      if (!staging) staging.emplace(block, most, device);
      staging->run(block, first, use);
    }
    first += block.size(0);
  }
}

}  // namespace hesspect::detail
