#include "hesspect/krylov/vector_math.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "hesspect/core/errors.h"
#include "hesspect/krylov/block_sizes.h"
#include "row_kernels.h"
#include "row_stream.h"

namespace hesspect {
namespace {

// Columns are cut into blocks, the unit of work of a thread and of the order of summation, and blocks into tiles, so
// small that a tile of all rows stays in the second-level cache between the two halves of subtract_and_dots.
constexpr std::int64_t kBlock = 32768;
constexpr std::int64_t kTileBytes = 256 << 10;

void require(bool condition, const char* what) {
  if (!condition) throw Error(ExitCode::kInternal, std::string("vector_math: ") + what);
}

bool fits(at::ScalarType row, at::ScalarType w) {
  return row == w || row == at::ScalarType::BFloat16 || (row == at::kFloat && w == at::kDouble);
}

std::int64_t count_rows(Rows rows, const at::Tensor& w) {
  require(w.dim() == 1 && w.is_contiguous() && (w.scalar_type() == at::kFloat || w.scalar_type() == at::kDouble),
          "vectors are contiguous, float32 or float64");
  std::int64_t count = 0;
  for (const at::Tensor& block : rows) {
    require(block.dim() == 2 && block.size(1) == w.numel() && block.is_contiguous(),
            "rows differ from the vector in length, or are not contiguous");
    require(fits(block.scalar_type(), w.scalar_type()), "rows are wider than the vector, or of no known dtype");
    require(block.device() == w.device() || block.is_cpu(), "rows are on another device than the vector");
    count += block.size(0);
  }
  return count;
}

/// Consecutive rows of one dtype.
struct Group {
  at::ScalarType dtype;
  std::vector<const char*> rows;
  std::int64_t item() const { return static_cast<std::int64_t>(c10::elementSize(dtype)); }
  std::int64_t count() const { return static_cast<std::int64_t>(rows.size()); }
};

std::vector<Group> groups_of(Rows rows) {
  std::vector<Group> groups;
  for (const at::Tensor& block : rows) {
    if (block.size(0) == 0) continue;
    if (groups.empty() || groups.back().dtype != block.scalar_type()) groups.push_back({block.scalar_type(), {}});
    const char* base = static_cast<const char*>(block.const_data_ptr());
    for (std::int64_t j = 0; j < block.size(0); ++j)
      groups.back().rows.push_back(base + j * block.size(1) * groups.back().item());
  }
  return groups;
}

/// Columns [begin, …) of a group's rows, as the kernels take them.
template <class Row>
void point_to(const Group& group, std::int64_t begin, std::vector<const Row*>& at_tile) {
  at_tile.clear();
  for (const char* row : group.rows) at_tile.push_back(reinterpret_cast<const Row*>(row) + begin);
}

/// The rows' pointers for one tile, a list for each dtype, kept from tile to tile.
struct TilePointers {
  std::vector<const double*> float64;
  std::vector<const float*> float32;
  std::vector<const kernels::Bfloat16Bits*> bfloat16;

  /// use(pointers) with those of `group`.
  template <class Use>
  void with(const Group& group, std::int64_t begin, Use&& use) {
    const auto run = [&](auto& pointers) {
      point_to(group, begin, pointers);
      use(pointers.data());
    };
    if (group.dtype == at::kDouble)
      run(float64);
    else if (group.dtype == at::kFloat)
      run(float32);
    else
      run(bfloat16);
  }
};

/// One pass over rows and w, tile by tile: w −= Σ c_j row_j where `c` is given, then products with the new w where
/// `project`, and w · w always. Returns [count + 1] with zeros for what was not asked.
template <class Real>
std::vector<double> pass(Rows rows, std::int64_t count, const double* c, bool project, const Real* w, Real* w_out) {
  const std::vector<Group> groups = groups_of(rows);
  const std::int64_t n = rows.empty() ? 0 : rows[0].size(1);
  const std::int64_t blocks = (n + kBlock - 1) / kBlock;
  std::int64_t column_bytes = 0;
  for (const Group& group : groups) column_bytes += group.count() * group.item();
  const std::int64_t room = kTileBytes / std::max<std::int64_t>(column_bytes, sizeof(Real));
  const std::int64_t tile = std::clamp<std::int64_t>(room / 256 * 256, 256, 4096);
  const std::size_t width = static_cast<std::size_t>(count) + 1;
  std::vector<double> partial(static_cast<std::size_t>(blocks) * width, 0.0);

  at::parallel_for(0, blocks, 1, [&](std::int64_t first, std::int64_t last) {
    TilePointers pointers;
    std::vector<double> accumulator(static_cast<std::size_t>(tile));
    for (std::int64_t b = first; b < last; ++b) {
      double* sums = partial.data() + static_cast<std::size_t>(b) * width;
      const std::int64_t block_end = std::min(n, (b + 1) * kBlock);
      for (std::int64_t i = b * kBlock; i < block_end; i += tile) {
        const std::int64_t length = std::min(tile, block_end - i);
        if (c != nullptr) {
          std::copy_n(w + i, length, accumulator.begin());
          const double* factors = c;
          for (const Group& group : groups) {
            pointers.with(group, i, [&](const auto* at_tile) {
              kernels::subtract(at_tile, group.count(), factors, length, accumulator.data());
            });
            factors += group.count();
          }
          for (std::int64_t k = 0; k < length; ++k)
            w_out[i + k] = static_cast<Real>(accumulator[static_cast<std::size_t>(k)]);
        }
        if (project) {
          double* out = sums;
          for (const Group& group : groups) {
            pointers.with(group, i, [&](const auto* at_tile) {
              if constexpr (sizeof(**at_tile) <= sizeof(Real))
                kernels::dots(at_tile, group.count(), w + i, length, out);
            });
            out += group.count();
          }
        }
        sums[count] += kernels::norm_sq(w + i, length);
      }
    }
  });

  std::vector<double> total(width, 0.0);
  for (std::int64_t b = 0; b < blocks; ++b)
    for (std::size_t j = 0; j < width; ++j) total[j] += partial[static_cast<std::size_t>(b) * width + j];
  return total;
}

std::vector<double> cpu_pass(Rows rows, std::int64_t count, const double* c, bool project, const at::Tensor& w) {
  if (w.scalar_type() == at::kFloat)
    return pass<float>(rows, count, c, project, w.const_data_ptr<float>(),
                       c != nullptr ? w.mutable_data_ptr<float>() : nullptr);
  return pass<double>(rows, count, c, project, w.const_data_ptr<double>(),
                      c != nullptr ? w.mutable_data_ptr<double>() : nullptr);
}

}  // namespace

namespace detail {
namespace {

/// Columns of a chunk, of which so many vectors are held in double.
std::int64_t chunk_columns(std::int64_t vectors) { return std::max<std::int64_t>(4096, kEntriesInDouble / vectors); }

/// The same where blocks of rows and a vector are.
std::int64_t chunk_columns(Rows rows, const at::Tensor& w) {
  std::int64_t most = 0;
  for (const at::Tensor& block : rows) most = std::max(most, block.size(0));
  return std::min(chunk_columns(most + 1), w.numel());
}

}  // namespace

std::vector<double> portable_dots(Rows rows, const at::Tensor& w) {
  const at::NoGradGuard no_grad;
  const std::int64_t count = count_rows(rows, w), n = w.numel();
  const std::int64_t columns = chunk_columns(rows, w);
  RowStream stream(rows, w.device(), columns);
  at::Tensor total = at::zeros({count + 1}, w.options().dtype(at::kDouble));
  for (std::int64_t i = 0; i < n; i += columns) {
    const std::int64_t length = std::min(columns, n - i);
    const at::Tensor part = w.narrow(0, i, length).to(at::kDouble);
    stream.for_each(i, length, [&](const at::Tensor& piece, std::int64_t row) {
      total.narrow(0, row, piece.size(0)).addmv_(piece.to(at::kDouble), part);
    });
    total.narrow(0, count, 1).add_(at::dot(part, part));
  }
  total = total.cpu();
  const double* values = total.const_data_ptr<double>();
  return {values, values + count + 1};
}

void portable_subtract(Rows rows, std::span<const double> c, at::Tensor& w) {
  const at::NoGradGuard no_grad;
  const std::int64_t count = count_rows(rows, w), n = w.numel();
  const std::int64_t columns = chunk_columns(rows, w);
  RowStream stream(rows, w.device(), columns);
  at::Tensor factors = at::empty({count}, at::TensorOptions().dtype(at::kDouble));
  std::copy(c.begin(), c.end(), factors.mutable_data_ptr<double>());
  factors = factors.to(w.device());
  for (std::int64_t i = 0; i < n; i += columns) {
    const std::int64_t length = std::min(columns, n - i);
    at::Tensor part = w.narrow(0, i, length);
    at::Tensor sum = part.to(at::kDouble);  // float64: `part` itself, updated in place
    stream.for_each(i, length, [&](const at::Tensor& piece, std::int64_t row) {
      sum.addmv_(piece.to(at::kDouble).t(), factors.narrow(0, row, piece.size(0)), 1, -1);
    });
    if (w.scalar_type() != at::kDouble) part.copy_(sum);
  }
}

}  // namespace detail

std::vector<double> dots(Rows rows, const at::Tensor& w) {
  const std::int64_t count = count_rows(rows, w);
  if (count == 0) return {norm_sq(w)};
  if (!w.is_cpu()) return detail::portable_dots(rows, w);
  return cpu_pass(rows, count, nullptr, true, w);
}

double subtract(Rows rows, std::span<const double> c, at::Tensor& w) {
  const std::int64_t count = count_rows(rows, w);
  require(static_cast<std::int64_t>(c.size()) == count, "as many coefficients as rows");
  if (count == 0) return norm_sq(w);
  if (!w.is_cpu()) {
    detail::portable_subtract(rows, c, w);
    return norm_sq(w);
  }
  return cpu_pass(rows, count, c.data(), false, w).back();
}

std::vector<double> subtract_and_dots(Rows rows, std::span<const double> c, at::Tensor& w) {
  const std::int64_t count = count_rows(rows, w);
  require(static_cast<std::int64_t>(c.size()) == count, "as many coefficients as rows");
  if (count == 0) return {norm_sq(w)};
  if (!w.is_cpu()) {
    detail::portable_subtract(rows, c, w);
    return detail::portable_dots(rows, w);
  }
  return cpu_pass(rows, count, c.data(), true, w);
}

double dot_product(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor row[1] = {a.unsqueeze(0)};
  return dots(Rows(row), b)[0];
}

double norm_sq(const at::Tensor& a) {
  const at::Tensor row[1] = {a.unsqueeze(0)};
  if (!a.is_cpu()) return detail::portable_dots(Rows(row), a)[1];
  count_rows(Rows(row), a);
  return cpu_pass(Rows(row), 1, nullptr, false, a)[1];
}

void scale_into(const at::Tensor& x, double factor, at::Tensor& out) {
  const at::NoGradGuard no_grad;
  require(x.sizes() == out.sizes() && x.scalar_type() == out.scalar_type() && x.is_contiguous() && out.is_contiguous(),
          "scale_into: shapes or dtypes differ");
  if (!x.is_cpu()) {
    const std::int64_t columns = detail::chunk_columns(2);
    for (std::int64_t i = 0; i < x.numel(); i += columns) {
      const std::int64_t length = std::min(columns, x.numel() - i);
      out.narrow(0, i, length).copy_(x.narrow(0, i, length).to(at::kDouble).mul(factor));
    }
    return;
  }
  const auto run = [&]<class Real>(const Real* from, Real* to) {
    at::parallel_for(0, x.numel(), kBlock, [=](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) to[i] = static_cast<Real>(static_cast<double>(from[i]) * factor);
    });
  };
  if (x.scalar_type() == at::kFloat)
    run(x.const_data_ptr<float>(), out.mutable_data_ptr<float>());
  else
    run(x.const_data_ptr<double>(), out.mutable_data_ptr<double>());
}

}  // namespace hesspect
