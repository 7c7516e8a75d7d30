#include "image_layout.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

namespace hesspect {
namespace {

constexpr std::int64_t kTile = 16;  // rows of a cache line, of which the whole tile stays at hand

/// out [columns, rows] := (a + b)ᵀ for a and b [rows, columns]; b may be null.
template <bool kHasB>
void transpose(const float* a, const float* b, float* out, std::int64_t rows, std::int64_t columns) {
  const auto sum = [&](std::int64_t at) { return kHasB ? a[at] + b[at] : a[at]; };
  for (std::int64_t r = 0; r < rows; r += kTile)
    for (std::int64_t c = 0; c < columns; c += kTile) {
      if (r + kTile > rows || c + kTile > columns) {
        for (std::int64_t i = r; i < std::min(rows, r + kTile); ++i)
          for (std::int64_t j = c; j < std::min(columns, c + kTile); ++j) out[j * rows + i] = sum(i * columns + j);
        continue;
      }
      float tile[kTile][kTile];
      for (std::int64_t i = 0; i < kTile; ++i)
        for (std::int64_t j = 0; j < kTile; ++j) tile[i][j] = sum((r + i) * columns + c + j);
      for (std::int64_t j = 0; j < kTile; ++j)
        for (std::int64_t i = 0; i < kTile; ++i) out[(c + j) * rows + r + i] = tile[i][j];
    }
}

/// The same for n matrices, one behind the other.
void transpose_each(const at::Tensor& a, const at::Tensor& b, const at::Tensor& out, std::int64_t rows,
                    std::int64_t columns) {
  const float* const from_a = a.const_data_ptr<float>();
  const float* const from_b = b.defined() ? b.const_data_ptr<float>() : nullptr;
  float* const to = out.mutable_data_ptr<float>();
  const std::int64_t size = rows * columns;
  at::parallel_for(0, a.size(0), /*grain_size=*/1 + (1 << 15) / (size + 1), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      if (from_b != nullptr)
        transpose<true>(from_a + n * size, from_b + n * size, to + n * size, rows, columns);
      else
        transpose<false>(from_a + n * size, nullptr, to + n * size, rows, columns);
    }
  });
}

bool is_plain(const at::Tensor& t) { return t.is_cpu() && t.scalar_type() == at::kFloat && t.dim() == 4; }

/// Whether the channels, and they alone, lie last.
bool is_channels_last(const at::Tensor& t) {
  return is_plain(t) && t.is_contiguous(at::MemoryFormat::ChannelsLast) && !t.is_contiguous();
}

}  // namespace

at::Tensor channels_last(const at::Tensor& images) {
  if (!is_plain(images) || !images.is_contiguous() || images.is_contiguous(at::MemoryFormat::ChannelsLast))
    return images.contiguous(at::MemoryFormat::ChannelsLast);
  at::Tensor out = at::empty(images.sizes(), images.options(), at::MemoryFormat::ChannelsLast);
  transpose_each(images, {}, out, images.size(1), images.size(2) * images.size(3));
  return out;
}

void add_channels_first(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) {
  if (is_channels_last(a) && (!b.defined() || is_channels_last(b)) && out.is_contiguous() && out.sizes() == a.sizes())
    return transpose_each(a, b, out, a.size(2) * a.size(3), a.size(1));
  at::Tensor result = out;
  if (b.defined())
    at::add_out(result, a, b);
  else
    result.copy_(a);
}

}  // namespace hesspect
