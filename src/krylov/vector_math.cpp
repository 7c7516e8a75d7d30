#include "hesspect/krylov/vector_math.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <functional>

#include "hesspect/core/errors.h"
#include "row_kernels.h"

namespace hesspect {
namespace detail {

void require(bool condition, const char* what) {
  if (!condition) throw Error(ExitCode::kInternal, std::string("vector_math: ") + what);
}

std::int64_t count_rows(Rows rows, std::span<const at::Tensor> w) {
  require(!w.empty(), "no vector");
  for (const at::Tensor& one : w) {
    require(
        one.dim() == 1 && one.is_contiguous() && (one.scalar_type() == at::kFloat || one.scalar_type() == at::kDouble),
        "vectors are contiguous, float32 or float64");
    require(one.numel() == w[0].numel() && one.scalar_type() == w[0].scalar_type() && one.device() == w[0].device(),
            "vectors differ in length, dtype or device");
  }
  std::int64_t count = 0;
  for (const at::Tensor& block : rows) {
    require(block.dim() == 2 && block.size(1) == w[0].numel() && block.is_contiguous(),
            "rows differ from the vector in length, or are not contiguous");
    const at::ScalarType row = block.scalar_type(), own = w[0].scalar_type();
    require(row == own || row == at::ScalarType::BFloat16 || (row == at::kFloat && own == at::kDouble),
            "rows are wider than the vector, or of no known dtype");
    require(block.device() == w[0].device() || block.is_cpu(), "rows are on another device than the vector");
    count += block.size(0);
  }
  return count;
}

}  // namespace detail

namespace {

using detail::require;

// Columns are cut into blocks, the unit of work of a thread and of the order of summation, and blocks into tiles, so
// small that a tile of all rows stays in the second-level cache between the two halves of subtract_and_dots.
constexpr std::int64_t kBlock = 32768;
constexpr std::int64_t kTileBytes = 256 << 10;

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

/// The rows' pointers for one tile, a list for each dtype, kept from tile to tile.
struct TilePointers {
  std::vector<const double*> float64;
  std::vector<const float*> float32;
  std::vector<const kernels::Bfloat16Bits*> bfloat16;

  /// use(pointers) with columns [begin, …) of the group's rows.
  template <class Use>
  void with(const Group& group, std::int64_t begin, Use&& use) {
    const auto run = [&]<class Row>(std::vector<const Row*>& pointers) {
      pointers.clear();
      for (const char* row : group.rows) pointers.push_back(reinterpret_cast<const Row*>(row) + begin);
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

/// What a pass takes from the vectors, w_k −= Σ c_kj taken_j: nothing where `c` is null.
struct Update {
  Rows taken;
  std::int64_t count = 0;
  const double* c = nullptr;  // [vectors][count]
};

/// One pass over rows and vectors, tile by tile: the update, then products of the new w_k with `rows` where `project`,
/// and w_k · w_k always. Returns [vectors][count + 1] with zeros for what was not asked. A tile's rows come from memory
/// once for all vectors, and once for both where the rows that are taken are among the others.
template <class Real>
std::vector<double> pass(Rows rows, std::int64_t count, const Update& update, bool project,
                         std::span<const at::Tensor> vectors) {
  const std::vector<Group> groups = groups_of(rows), taken = groups_of(update.taken);
  const std::int64_t n = vectors[0].numel();
  const std::int64_t blocks = (n + kBlock - 1) / kBlock;
  std::int64_t column_bytes = 0;
  for (const Group& group : groups) column_bytes += group.count() * group.item();
  const std::int64_t room = kTileBytes / std::max<std::int64_t>(column_bytes, sizeof(Real));
  const std::int64_t tile = std::clamp<std::int64_t>(room / 256 * 256, 256, 4096);
  const std::size_t width = static_cast<std::size_t>(count) + 1, all = width * vectors.size();
  std::vector<double> partial(static_cast<std::size_t>(blocks) * all, 0.0);
  std::vector<const Real*> w;
  std::vector<Real*> w_out;
  for (const at::Tensor& vector : vectors) {
    w.push_back(vector.const_data_ptr<Real>());
    if (update.c != nullptr) w_out.push_back(vector.mutable_data_ptr<Real>());
  }

  at::parallel_for(0, blocks, 1, [&](std::int64_t first, std::int64_t last) {
    TilePointers pointers;
    std::vector<double> accumulator(static_cast<std::size_t>(tile));
    for (std::int64_t b = first; b < last; ++b) {
      const std::int64_t block_end = std::min(n, (b + 1) * kBlock);
      for (std::int64_t i = b * kBlock; i < block_end; i += tile) {
        const std::int64_t length = std::min(tile, block_end - i);
        for (std::size_t k = 0; k < vectors.size(); ++k) {
          double* sums = partial.data() + static_cast<std::size_t>(b) * all + k * width;
          if (update.c != nullptr) {
            std::copy_n(w[k] + i, length, accumulator.begin());
            const double* factors = update.c + k * static_cast<std::size_t>(update.count);
            for (const Group& group : taken) {
              pointers.with(group, i, [&](const auto* at_tile) {
                kernels::subtract(at_tile, group.count(), factors, length, accumulator.data());
              });
              factors += group.count();
            }
            for (std::int64_t j = 0; j < length; ++j)
              w_out[k][i + j] = static_cast<Real>(accumulator[static_cast<std::size_t>(j)]);
          }
          if (project) {
            double* out = sums;
            for (const Group& group : groups) {
              pointers.with(group, i, [&](const auto* at_tile) {
                if constexpr (sizeof(**at_tile) <= sizeof(Real))
                  kernels::dots(at_tile, group.count(), w[k] + i, length, out);
              });
              out += group.count();
            }
          }
          sums[count] += kernels::norm_sq(w[k] + i, length);
        }
      }
    }
  });

  std::vector<double> total(all, 0.0);
  for (std::int64_t b = 0; b < blocks; ++b)
    for (std::size_t j = 0; j < all; ++j) total[j] += partial[static_cast<std::size_t>(b) * all + j];
  return total;
}

std::vector<double> cpu_pass(Rows rows, std::int64_t count, const Update& update, bool project,
                             std::span<const at::Tensor> w) {
  return w[0].scalar_type() == at::kFloat ? pass<float>(rows, count, update, project, w)
                                          : pass<double>(rows, count, update, project, w);
}

std::vector<double> norms_sq(std::span<const at::Tensor> w) {
  detail::count_rows({}, w);
  return w[0].is_cpu() ? cpu_pass({}, 0, {}, false, w) : detail::portable_dots({}, w);
}

/// The update, then w_k · w_k and, where `project`, the products with `rows` too.
std::vector<double> subtracted(Rows taken, std::span<const double> c, Rows rows, bool project,
                               std::span<at::Tensor> w) {
  const Update update{taken, detail::count_rows(taken, w), c.data()};
  require(c.size() == static_cast<std::size_t>(update.count) * w.size(),
          "as many coefficients as rows for each vector");
  if (update.count == 0) return project ? dots_block(rows, w) : norms_sq(w);
  if (w[0].is_cpu()) return cpu_pass(rows, detail::count_rows(rows, w), update, project, w);
  detail::portable_subtract(taken, c, w);
  return project ? detail::portable_dots(rows, w) : norms_sq(w);
}

}  // namespace

std::vector<double> dots_block(Rows rows, std::span<const at::Tensor> w) {
  const std::int64_t count = detail::count_rows(rows, w);
  if (count == 0) return norms_sq(w);
  return w[0].is_cpu() ? cpu_pass(rows, count, {}, true, w) : detail::portable_dots(rows, w);
}

std::vector<double> subtract_block(Rows rows, std::span<const double> c, std::span<at::Tensor> w) {
  const std::vector<double> sums = subtracted(rows, c, rows, false, w);
  std::vector<double> norms;
  for (std::size_t k = 0; k < w.size(); ++k) norms.push_back(dots_of(sums, w.size(), k).back());
  return norms;
}

std::vector<double> subtract_and_dots_block(Rows rows, std::span<const double> c, std::span<at::Tensor> w) {
  return subtracted(rows, c, rows, true, w);
}

std::vector<double> dots(Rows rows, const at::Tensor& w) { return dots_block(rows, {&w, 1}); }

double subtract(Rows rows, std::span<const double> c, at::Tensor& w) { return subtract_block(rows, c, {&w, 1})[0]; }

std::vector<double> subtract_and_dots(Rows rows, std::span<const double> c, at::Tensor& w) {
  return subtract_and_dots_block(rows, c, {&w, 1});
}

std::vector<double> subtract_and_dots(Rows taken, std::span<const double> c, Rows rows, at::Tensor& w) {
  return subtracted(taken, c, rows, true, {&w, 1});
}

namespace {

std::vector<double> negative(std::span<const double> c) {
  std::vector<double> negated(c.size());
  std::ranges::transform(c, negated.begin(), std::negate());
  return negated;
}

}  // namespace

void combine_into(Rows rows, std::span<const double> c, at::Tensor& w) { subtract(rows, negative(c), w.zero_()); }

std::vector<double> combine_and_dots(Rows rows, std::span<const double> c, at::Tensor& w) {
  return subtract_and_dots(rows, negative(c), w.zero_());
}

double dot_product(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor row[1] = {a.unsqueeze(0)};
  return dots(Rows(row), b)[0];
}

double norm_sq(const at::Tensor& a) { return norms_sq({&a, 1})[0]; }

void scale_into(const at::Tensor& x, double factor, at::Tensor& out) {
  const at::NoGradGuard no_grad;
  require(x.sizes() == out.sizes() && x.scalar_type() == out.scalar_type() && x.is_contiguous() && out.is_contiguous(),
          "scale_into: shapes or dtypes differ");
  if (!x.is_cpu()) {
    detail::portable_scale_into(x, factor, out);
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
