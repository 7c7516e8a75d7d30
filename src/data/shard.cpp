#include <ATen/ATen.h>
#include <c10/util/accumulate.h>

#include <algorithm>
#include <cstdlib>

#include "array_formats.h"
#include "hesspect/core/element_type_torch.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/data/dataset.h"

namespace hesspect {
namespace {

constexpr double kReadAtOnce_bytes = 1 << 20;

/// An array of a dataset, and the dimension that its rows lie along.
struct RowArray {
  std::string name;
  std::int64_t dim = 0;
};

/// The inputs in their order, then the target and the weights, where there are such.
std::vector<RowArray> arrays_of(const ArrayFile& file, const DatasetSpec& spec) {
  std::vector<RowArray> arrays;
  for (std::size_t i = 0; i < spec.inputs.size(); ++i)
    arrays.push_back({spec.inputs[i], i < spec.input_dims.size() ? spec.input_dims[i] : 0});
  if (!spec.target.empty()) arrays.push_back({spec.target, spec.target_dim});
  if (!spec.weight.empty()) {
    const auto dims = static_cast<std::int64_t>(file.info(spec.weight).shape.size());
    arrays.push_back({spec.weight, spec.target_dim < dims ? spec.target_dim : 0});
  }
  return arrays;
}

std::int64_t rows_of(const ArrayFile& file, const RowArray& array) {
  const ArrayInfo& info = file.info(array.name);
  if (info.shape.empty())
    throw InputError(array_in(file, array.name) + " is a scalar; its first dimension should be rows");
  if (array.dim < 0 || array.dim >= static_cast<std::int64_t>(info.shape.size()))
    throw InputError(array_in(file, array.name) + " has shape " + format_shape(info.shape) + ", and no dimension " +
                     std::to_string(array.dim) + " for its rows (--batch-dim names another)");
  return info.shape[static_cast<std::size_t>(array.dim)];
}

/// The row count that all the arrays share.
std::int64_t common_rows(const ArrayFile& file, const std::vector<RowArray>& arrays) {
  if (arrays.empty()) throw InputError(quote(file.path().string()) + ": no array was asked for");
  const std::int64_t first_rows = rows_of(file, arrays.front());
  for (const RowArray& array : arrays) {
    const std::int64_t rows = rows_of(file, array);
    if (rows != first_rows) {
      const auto along = [](const RowArray& one) {
        return one.dim == 0 ? std::string() : " (along dimension " + std::to_string(one.dim) + ")";
      };
      throw InputError(array_in(file, array.name) + " has " + format_count(rows) + " rows" + along(array) + ", but " +
                       quote(arrays.front().name) + " has " + format_count(first_rows) + along(arrays.front()) +
                       "; all arrays need as many");
    }
    if (rows == 0) throw InputError(array_in(file, array.name) + " has zero rows");
  }
  return first_rows;
}

void check_finite(const ArrayFile& file, const std::string& name, const at::Tensor& rows, std::int64_t first_row) {
  const auto type = from_scalar_type(rows.scalar_type());
  if (!type || rows.numel() == 0) return;
  const auto bad = first_non_finite(*type, rows.const_data_ptr(), rows.numel());
  if (!bad) return;
  const bool nan = rows.flatten()[*bad].isnan().item<bool>();  // of complex values too, which are no doubles
  throw InputError(array_in(file, name) + " holds " + (nan ? "NaN" : "an infinite value") + " in row " +
                   std::to_string(first_row + *bad / (rows.numel() / rows.size(0))));
}

/// The rows of all ranges, one after another, checked, rows first.
at::Tensor read_ranges(const ArrayFile& file, const RowArray& array, const std::vector<RowRange>& ranges) {
  std::vector<at::Tensor> parts;
  const auto add = [&](const at::Tensor& rows, std::int64_t first_row) {
    check_finite(file, array.name, rows, first_row);
    parts.push_back(rows);
  };
  // Ranges that lie near to each other are read with what is between them: a read of a few rows costs by itself.
  const std::int64_t begin = ranges.empty() ? 0 : std::ranges::min(ranges, {}, &RowRange::begin).begin;
  const std::int64_t end = ranges.empty() ? 0 : std::ranges::max(ranges, {}, &RowRange::end).end;
  const ArrayInfo& info = file.info(array.name);
  const auto array_bytes =
      static_cast<double>(c10::elementSize(info.dtype)) * static_cast<double>(c10::multiply_integers(info.shape));
  const double row_bytes = array_bytes / static_cast<double>(std::max<std::int64_t>(1, rows_of(file, array)));
  if (ranges.size() > 1 && static_cast<double>(end - begin) * row_bytes <= kReadAtOnce_bytes) {
    const at::Tensor all = file.read_rows(array.name, begin, end, array.dim);
    for (const RowRange& range : ranges) add(all.narrow(0, range.begin - begin, range.size()), range.begin);
  } else {
    for (const RowRange& range : ranges)
      add(file.read_rows(array.name, range.begin, range.end, array.dim), range.begin);
  }
  return parts.size() == 1 ? parts.front() : at::cat(parts);
}

void fill(DataShard& shard, const ArrayFile& file, const DatasetSpec& spec, const std::vector<RowRange>& ranges) {
  const std::vector<RowArray> arrays = arrays_of(file, spec);
  auto array = arrays.begin();
  for (std::size_t i = 0; i < spec.inputs.size(); ++i) shard.inputs.push_back(read_ranges(file, *array++, ranges));
  if (!spec.target.empty()) shard.target = read_ranges(file, *array++, ranges);
  if (!spec.weight.empty()) shard.weight = read_ranges(file, *array++, ranges);
}

}  // namespace

RowRange shard_rows(std::int64_t rows, int ranks, int rank, std::int64_t unit_rows) {
  const std::int64_t units = rows / unit_rows;
  const std::int64_t share = units / ranks;
  const std::int64_t left_over = units % ranks;
  const std::int64_t begin = rank * share + std::min<std::int64_t>(rank, left_over);
  return {unit_rows * begin, unit_rows * (begin + share + (rank < left_over ? 1 : 0))};
}

RowRange shard_rows_at_groups(std::int64_t rows, int ranks, int rank, std::int64_t groups) {
  const auto moved = [&](std::int64_t edge) {
    const std::int64_t near = edge * groups / rows;  // a group that the edge is in or beside
    for (std::int64_t g = std::max<std::int64_t>(0, near - 1); g <= std::min(groups, near + 2); ++g)
      if (const std::int64_t begin = rows * g / groups; std::abs(begin - edge) <= 1) return begin;
    return edge;
  };
  const RowRange range = shard_rows(rows, ranks, rank);
  return {moved(range.begin), moved(range.end)};
}

std::vector<RowRange> micro_batches(RowRange range, std::int64_t micro_batch) {
  if (micro_batch < 1) throw UsageError("a micro-batch needs at least 1 row, not " + std::to_string(micro_batch));
  std::vector<RowRange> batches;
  for (std::int64_t begin = range.begin; begin < range.end;) {
    // Not begin + micro_batch: that may overflow.
    const std::int64_t end = range.end - begin > micro_batch ? begin + micro_batch : range.end;
    batches.push_back({begin, end});
    begin = end;
  }
  return batches;
}

std::int64_t count_rows(const ArrayFile& file, const DatasetSpec& spec) {
  const std::int64_t rows = common_rows(file, arrays_of(file, spec));
  if (spec.samples < 0) throw UsageError("samples must not be negative, but is " + std::to_string(spec.samples));
  if (spec.samples > rows)
    throw InputError(quote(file.path().string()) + " has " + format_count(rows) + " rows, fewer than the " +
                     format_count(spec.samples) + " samples asked for");
  return spec.samples > 0 ? spec.samples : rows;
}

void require_whole_units(std::int64_t rows, const DatasetSpec& spec) {
  if (rows % spec.unit_rows != 0)
    throw InputError(quote(spec.path.string()) + ": " + format_count(rows) + " rows are no whole number of units of " +
                     format_count(spec.unit_rows) + " (--unit-rows); --samples takes the first so many");
}

DataShard load_shard(const ArrayFile& file, const DatasetSpec& spec, int ranks, int rank) {
  DataShard shard;
  shard.global_rows = count_rows(file, spec);
  require_whole_units(shard.global_rows, spec);
  shard.rows = spec.row_groups > 0 && spec.unit_rows == 1
                   ? shard_rows_at_groups(shard.global_rows, ranks, rank, spec.row_groups)
                   : shard_rows(shard.global_rows, ranks, rank, spec.unit_rows);
  fill(shard, file, spec, {shard.rows});
  return shard;
}

DataShard load_rows(const ArrayFile& file, const DatasetSpec& spec, std::span<const std::int64_t> rows) {
  DataShard shard;
  shard.global_rows = count_rows(file, spec);
  const std::int64_t first = rows.empty() ? 0 : rows.front();
  shard.rows = {first, first + static_cast<std::int64_t>(rows.size())};
  std::vector<RowRange> ranges;  // rows that follow each other are read at once
  for (const std::int64_t row : rows) {
    if (ranges.empty() || ranges.back().end != row) ranges.push_back({row, row});
    ++ranges.back().end;
  }
  if (ranges.empty()) ranges.push_back({0, 0});
  fill(shard, file, spec, ranges);
  return shard;
}

}  // namespace hesspect
