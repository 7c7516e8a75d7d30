// Which rows to try a model on: few, and as different from each other as those of the data are.
#include <ATen/ATen.h>

#include <algorithm>

#include "hesspect/data/dataset.h"

namespace hesspect {
namespace {

constexpr std::int64_t kMostScannedBytes = std::int64_t{64} << 20;
constexpr std::int64_t kLeastScannedUnits = 256;
constexpr std::int64_t kBlocks = 64;

/// The features of one array [rows, …]: [rows, 4], double.
at::Tensor features_of(const at::Tensor& array) {
  const at::Tensor flat = array.reshape({array.size(0), -1}).to(at::kDouble);
  if (flat.size(1) == 0) return at::zeros({flat.size(0), 4}, at::kDouble);
  // Padding shows as entries at the end that equal the last one.
  const at::Tensor repeats = flat.eq(flat.narrow(1, flat.size(1) - 1, 1)).to(at::kDouble).flip(1).cumprod(1);
  return at::stack(
      {flat.mean(1), flat.eq(0).to(at::kDouble).mean(1), flat.lt(0).to(at::kDouble).mean(1), repeats.mean(1)}, 1);
}

std::vector<at::Tensor> arrays_in(const DataShard& shard) {
  std::vector<at::Tensor> arrays = shard.inputs;
  for (const at::Tensor& array : {shard.target, shard.weight})
    if (array.defined()) arrays.push_back(array);
  return arrays;
}

/// Units of the data to look at: all, or blocks of neighbours, spread over the data.
std::vector<std::int64_t> units_to_scan(std::int64_t units, std::int64_t unit_bytes) {
  const std::int64_t most = std::max(kLeastScannedUnits, kMostScannedBytes / std::max<std::int64_t>(1, unit_bytes));
  std::vector<std::int64_t> scanned;
  if (units <= most) {
    for (std::int64_t u = 0; u < units; ++u) scanned.push_back(u);
    return scanned;
  }
  const std::int64_t length = most / kBlocks;
  for (std::int64_t block = 0; block < kBlocks; ++block) {
    const std::int64_t begin = block * (units - length) / (kBlocks - 1);
    const std::int64_t from = scanned.empty() ? begin : std::max(begin, scanned.back() + 1);
    for (std::int64_t u = from; u < begin + length; ++u) scanned.push_back(u);
  }
  return scanned;
}

}  // namespace

std::vector<std::int64_t> rows_of_units(std::span<const std::int64_t> units, std::int64_t unit_rows) {
  std::vector<std::int64_t> rows;
  for (const std::int64_t unit : units)
    for (std::int64_t r = 0; r < unit_rows; ++r) rows.push_back(unit * unit_rows + r);
  return rows;
}

at::Tensor row_features(const DataShard& shard) {
  std::vector<at::Tensor> columns;
  for (const at::Tensor& array : arrays_in(shard)) columns.push_back(features_of(array));
  const at::Tensor features = at::cat(columns, 1);
  const at::Tensor centred = features - features.mean(0, /*keepdim=*/true);
  const at::Tensor spread = centred.abs().amax(0, /*keepdim=*/true);
  return at::where(spread > 0, centred / spread, at::zeros_like(centred));
}

std::vector<std::int64_t> diverse_units(const ArrayFile& file, const DatasetSpec& spec, std::int64_t most) {
  const std::int64_t unit_rows = spec.unit_rows, units = count_rows(file, spec) / unit_rows;
  const std::int64_t first_unit = 0;
  const DataShard one = load_rows(file, spec, rows_of_units({&first_unit, 1}, unit_rows));
  std::int64_t unit_bytes = 0;
  for (const at::Tensor& array : arrays_in(one)) unit_bytes += static_cast<std::int64_t>(array.nbytes());

  const std::vector<std::int64_t> scanned = units_to_scan(units, unit_bytes);
  const auto count = static_cast<std::int64_t>(scanned.size());
  const DataShard shard = load_rows(file, spec, rows_of_units(scanned, unit_rows));
  const at::Tensor features = row_features(shard).reshape({count, unit_rows, -1}).mean(1);

  // Each next one is the one that is farthest from all before it.
  std::vector<std::int64_t> chosen{scanned[0]};
  at::Tensor distance = (features - features[0]).square().sum(1);
  distance[0] = -1;
  while (static_cast<std::int64_t>(chosen.size()) < std::min(most, count)) {
    const std::int64_t next = distance.argmax().item<std::int64_t>();
    chosen.push_back(scanned[static_cast<std::size_t>(next)]);
    distance = at::minimum(distance, (features - features[next]).square().sum(1));
    distance[next] = -1;
  }
  return chosen;
}

}  // namespace hesspect
