#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "hesspect/core/element_type_torch.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/data/dataset.h"

namespace hesspect {
namespace {

std::string array_in(const ArrayFile& file, const std::string& name) {
  return "array " + quote(name) + " in " + quote(file.path().string());
}

/// The row count that all the arrays share.
std::int64_t common_rows(const ArrayFile& file, const std::vector<std::string>& names) {
  if (names.empty()) throw InputError(quote(file.path().string()) + ": no array was asked for");
  for (const std::string& name : names) {
    const ArrayInfo& info = file.info(name);
    if (info.shape.empty()) throw InputError(array_in(file, name) + " is a scalar; its first dimension should be rows");
    const std::int64_t rows = info.shape[0];
    const std::int64_t first_rows = file.info(names.front()).shape[0];
    if (rows != first_rows) {
      throw InputError(array_in(file, name) + " has " + format_count(rows) + " rows, but " + quote(names.front()) +
                       " has " + format_count(first_rows) + "; all arrays need as many");
    }
    if (rows == 0) throw InputError(array_in(file, name) + " has zero rows");
  }
  return file.info(names.front()).shape[0];
}

void check_finite(const ArrayFile& file, const std::string& name, const at::Tensor& rows, std::int64_t first_row) {
  const auto type = from_scalar_type(rows.scalar_type());
  if (!type || rows.numel() == 0) return;
  const auto bad = first_non_finite(*type, rows.const_data_ptr(), rows.numel());
  if (!bad) return;
  const double value = rows.flatten()[*bad].item<double>();
  throw InputError(array_in(file, name) + " holds " + (std::isnan(value) ? "NaN" : "an infinite value") + " in row " +
                   std::to_string(first_row + *bad / (rows.numel() / rows.size(0))));
}

}  // namespace

RowRange shard_rows(std::int64_t rows, int ranks, int rank) {
  const std::int64_t share = rows / ranks;
  const std::int64_t left_over = rows % ranks;
  const std::int64_t begin = rank * share + std::min<std::int64_t>(rank, left_over);
  return {begin, begin + share + (rank < left_over ? 1 : 0)};
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

DataShard load_shard(const ArrayFile& file, const DatasetSpec& spec, int ranks, int rank) {
  std::vector<std::string> names = spec.inputs;
  if (!spec.target.empty()) names.push_back(spec.target);
  if (!spec.weight.empty()) names.push_back(spec.weight);
  DataShard shard;
  shard.global_rows = common_rows(file, names);
  if (spec.samples < 0) throw UsageError("samples must not be negative, but is " + std::to_string(spec.samples));
  if (spec.samples > shard.global_rows) {
    throw InputError(quote(file.path().string()) + " has " + format_count(shard.global_rows) +
                     " rows, fewer than the " + format_count(spec.samples) + " samples asked for");
  }
  if (spec.samples > 0) shard.global_rows = spec.samples;

  shard.rows = shard_rows(shard.global_rows, ranks, rank);
  const auto read = [&](const std::string& name) {
    at::Tensor rows = file.read_rows(name, shard.rows.begin, shard.rows.end);
    check_finite(file, name, rows, shard.rows.begin);
    return rows;
  };
  for (const std::string& name : spec.inputs) shard.inputs.push_back(read(name));
  if (!spec.target.empty()) shard.target = read(spec.target);
  if (!spec.weight.empty()) shard.weight = read(spec.weight);
  return shard;
}

}  // namespace hesspect
