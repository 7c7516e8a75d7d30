#include "image_layout.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "hesspect/tangent/strided.h"

namespace hesspect {
namespace {

constexpr std::int64_t kTile = 16;  // rows of a cache line, of which the whole tile stays at hand

/// out [columns, rows] := aᵀ for a [rows, columns].
void transpose(const float* a, float* out, std::int64_t rows, std::int64_t columns) {
  for (std::int64_t r = 0; r < rows; r += kTile)
    for (std::int64_t c = 0; c < columns; c += kTile) {
      if (r + kTile > rows || c + kTile > columns) {
        for (std::int64_t i = r; i < std::min(rows, r + kTile); ++i)
          for (std::int64_t j = c; j < std::min(columns, c + kTile); ++j) out[j * rows + i] = a[i * columns + j];
        continue;
      }
      float tile[kTile][kTile];
      for (std::int64_t i = 0; i < kTile; ++i)
        for (std::int64_t j = 0; j < kTile; ++j) tile[i][j] = a[(r + i) * columns + c + j];
      for (std::int64_t j = 0; j < kTile; ++j)
        for (std::int64_t i = 0; i < kTile; ++i) out[(c + j) * rows + r + i] = tile[i][j];
    }
}

/// The same for `count` matrices, one behind the other in memory.
void transpose_each(const at::Tensor& a, const at::Tensor& out, std::int64_t count, std::int64_t rows,
                    std::int64_t columns) {
  const float* const from = a.const_data_ptr<float>();
  float* const to = out.mutable_data_ptr<float>();
  const std::int64_t size = rows * columns;
  at::parallel_for(0, count, /*grain_size=*/1 + (1 << 15) / (size + 1), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) transpose(from + n * size, to + n * size, rows, columns);
  });
}

bool is_plain(const at::Tensor& t) { return t.is_cpu() && t.scalar_type() == at::kFloat && t.dim() == 4; }

/// [N, C, H, W] -> [N, H, W, C], and stacked ones.
at::Tensor channels_moved_last(const at::Tensor& t) {
  return t.dim() == 5 ? permuted(t, {0, 1, 3, 4, 2}) : permuted(t, {0, 2, 3, 1});
}

}  // namespace

at::Tensor channels_last(const at::Tensor& images) {
  if (!is_plain(images) || !images.is_contiguous() || images.is_contiguous(at::MemoryFormat::ChannelsLast))
    return images.contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor out = at::empty(images.sizes(), images.options(), at::MemoryFormat::ChannelsLast);
  transpose_each(images, out, images.size(0), images.size(1), images.size(2) * images.size(3));
  return out;
}

at::Tensor channels_first(const at::Tensor& t) {
  const bool is_stacked = t.dim() == 5;
  if (t.is_contiguous() || !t.is_cpu() || t.scalar_type() != at::kFloat || (t.dim() != 4 && !is_stacked) ||
      !channels_moved_last(t).is_contiguous())
    return t.contiguous();
  const at::Tensor out = at::empty(t.sizes(), t.options());
  transpose_each(t, out, is_stacked ? t.size(0) * t.size(1) : t.size(0), t.size(-1) * t.size(-2), t.size(-3));
  return out;
}

ImageLayout::ImageLayout(const at::Tensor& t)
    : is_last_(t.dim() == 4 && !t.is_contiguous() && t.is_contiguous(at::MemoryFormat::ChannelsLast)) {}

bool ImageLayout::is_view(const at::Tensor& t) const {
  return is_last_ ? channels_moved_last(t).is_contiguous() : t.is_contiguous();
}

at::Tensor ImageLayout::flat(const at::Tensor& t) const {
  if (!t.defined() || !is_last_) return t.defined() ? t.contiguous() : t;
  const at::Tensor moved = channels_moved_last(t);
  if (moved.is_contiguous()) return moved;
  if (t.dim() == 4) return channels_moved_last(channels_last(t));
  const at::Tensor images = channels_last(reshaped(t, {t.size(0) * t.size(1), t.size(2), t.size(3), t.size(4)}));
  return reshaped(channels_moved_last(images), {t.size(0), t.size(1), t.size(3), t.size(4), t.size(2)});
}

at::Tensor ImageLayout::shaped(const at::Tensor& flat) const {
  if (!is_last_) return flat;
  return flat.dim() == 5 ? permuted(flat, {0, 1, 4, 2, 3}) : permuted(flat, {0, 3, 1, 2});
}

}  // namespace hesspect
