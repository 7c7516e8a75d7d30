#include "vectors_from.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>

#include "hesspect/core/errors.h"
#include "hesspect/core/safetensors.h"
#include "hesspect/core/text.h"

namespace hesspect {
namespace {

/// A vector's squared norm in rows that are left out, of all of it: more is no rounding.
constexpr double kOutside = 1e-6;

/// Entries that are read at once.
constexpr std::int64_t kAtOnce = std::int64_t{1} << 22;

[[noreturn]] void refuse(const ArrayFile& file, const std::string& what) {
  throw InputError("--vectors-from " + quote(file.path().string()) + " " + what +
                   ": expected a file that 'eigs' or 'analyze' has written by --eigenvectors, of this model");
}

std::vector<double> eigenvalues_in(const ArrayFile& file) {
  if (file.format() == "HDF5") {
    if (std::ranges::find(file.arrays(), "values", &ArrayInfo::name) == file.arrays().end())
      refuse(file, "has no array 'values'");
    const ArrayInfo& info = file.info("values");
    if (info.shape.size() != 1) refuse(file, "has values of shape " + format_shape(info.shape));
    const at::Tensor values = file.read_slab("values", 0, 0, info.shape[0]).to(at::kDouble);
    return {values.data_ptr<double>(), values.data_ptr<double>() + values.numel()};
  }
  const SafetensorsFile tensors(file.path());
  const auto text = tensors.metadata().find("values");
  if (text == tensors.metadata().end()) refuse(file, "has no 'values' in its metadata");
  const nlohmann::json list = nlohmann::json::parse(text->second, nullptr, /*allow_exceptions=*/false);
  const auto is_number = [](const nlohmann::json& one) { return one.is_number(); };
  if (!list.is_array() || !std::ranges::all_of(list, is_number)) refuse(file, "has 'values' that are no numbers");
  return list.get<std::vector<double>>();
}

}  // namespace

EigenvectorFile::EigenvectorFile(const std::string& path, const ParameterLayout& layout)
    : layout_(layout), file_(ArrayFile::open(path)) {
  const std::vector<double> values = eigenvalues_in(*file_);
  order_.resize(values.size());
  std::iota(order_.begin(), order_.end(), std::int64_t{0});
  std::ranges::stable_sort(order_, std::greater<>(),
                           [&](std::int64_t i) { return values[static_cast<std::size_t>(i)]; });
  const std::string folder = file_->format() == "HDF5" ? "vectors/" : "";
  for (const ParameterEntry& entry : layout.entries()) {
    const auto found = std::ranges::find(file_->arrays(), folder + entry.name, &ArrayInfo::name);
    if (found == file_->arrays().end()) refuse(*file_, "has no vectors of the parameter " + quote(entry.name));
    std::vector<std::int64_t> shape{count()};
    shape.insert(shape.end(), entry.model_shape.begin(), entry.model_shape.end());
    if (found->shape != shape)
      refuse(*file_, "has vectors of the parameter " + quote(entry.name) + " of shape " + format_shape(found->shape) +
                         " instead of " + format_shape(shape));
    arrays_.push_back(found->name);
  }
}

at::Tensor EigenvectorFile::read(std::int64_t place, double& whole) const {
  at::Tensor flat = at::zeros({layout_.size()}, at::kDouble);
  whole = 0;
  for (std::size_t i = 0; i < arrays_.size(); ++i) {
    const ParameterEntry& entry = layout_.entries()[i];
    const at::Tensor part = file_->read_slab(arrays_[i], 0, place, place + 1)[0].to(at::kDouble);
    whole += part.square().sum().item<double>();
    flat.narrow(0, entry.offset, entry.numel).copy_(rows_held(entry, part).reshape({-1}));
  }
  return flat;
}

bool EigenvectorFile::Local::is_of_no_use(double held, double whole) {
  return !std::isfinite(whole) || !(whole > 0) || held < (1 - kOutside) * whole;
}

void EigenvectorFile::read_part(std::int64_t place, std::size_t parameter, std::int64_t begin, std::int64_t end,
                                const at::Tensor& to) const {
  const ParameterEntry& entry = layout_.entries()[parameter];
  const std::string& array = arrays_[parameter];
  if (entry.model_shape.empty()) {
    to.copy_(file_->read_slab(array, 0, place, place + 1));
    return;
  }
  const std::int64_t width = std::max<std::int64_t>(1, entry.model_numel / entry.model_shape.front());
  const std::int64_t most = std::max<std::int64_t>(1, kAtOnce / width);  // rows
  for (std::int64_t at = begin; at < end;) {
    // Rows that follow each other in the model are read together.
    const std::int64_t first = at / width, last = (end + width - 1) / width;
    const auto model_row = [&](std::int64_t row) {
      return entry.rows ? (*entry.rows)[static_cast<std::size_t>(row)] : row;
    };
    std::int64_t next = first + 1;
    while (next < last && next - first < most && model_row(next) == model_row(next - 1) + 1) ++next;
    const std::int64_t stop = std::min(end, next * width);
    const at::Tensor rows = file_->read_block(array, place, model_row(first), model_row(next - 1) + 1).reshape({-1});
    to.narrow(0, at - begin, stop - at).copy_(rows.narrow(0, at - first * width, stop - at));
    at = stop;
  }
}

double EigenvectorFile::square_of_rows(std::int64_t place, std::size_t parameter, const Shard& shard) const {
  const ParameterEntry& entry = layout_.entries()[parameter];
  const std::int64_t rows = entry.model_shape.front();
  const std::int64_t width = std::max<std::int64_t>(1, entry.model_numel / std::max<std::int64_t>(1, rows));
  const std::int64_t most = std::max<std::int64_t>(1, kAtOnce / width), end = rows * (shard.rank + 1) / shard.ranks;
  double square = 0;
  for (std::int64_t at = rows * shard.rank / shard.ranks; at < end; at += most)
    square += file_->read_block(arrays_[parameter], place, at, std::min(end, at + most))
                  .to(at::kDouble)
                  .square()
                  .sum()
                  .item<double>();
  return square;
}

EigenvectorFile::Local EigenvectorFile::local_at(std::int64_t place, const Shard& shard) const {
  const std::vector<ParameterEntry>& entries = layout_.entries();
  Local local{at::zeros({shard.chunk}, at::kDouble)};
  shard.for_each_piece([&](std::int64_t position, std::int64_t begin, std::int64_t size) {
    const std::int64_t end = begin + size;
    const auto after = std::ranges::upper_bound(entries, begin, {}, &ParameterEntry::offset);
    for (auto p = static_cast<std::size_t>(after - entries.begin()) - 1; p < entries.size(); ++p) {
      const ParameterEntry& entry = entries[p];
      const std::int64_t from = std::max(begin, entry.offset), to = std::min(end, entry.offset + entry.numel);
      if (entry.offset >= end) break;
      if (from >= to) continue;
      const at::Tensor part = local.entries.narrow(0, position + (from - begin), to - from);
      read_part(place, p, from - entry.offset, to - entry.offset, part);
      const double square = part.square().sum().item<double>();
      local.held += square;
      if (!entry.rows) local.whole += square;
    }
  });
  for (std::size_t p = 0; p < entries.size(); ++p)
    if (entries[p].rows) local.whole += square_of_rows(place, p, shard);
  return local;
}

at::Tensor EigenvectorFile::vector(std::int64_t number) const {
  const std::int64_t rank = std::abs(number);
  if (number == 0 || rank > count())
    throw UsageError("--direction eigenvector:" + std::to_string(number) + ": " + quote(file_->path().string()) +
                     " holds " + format_count(count()));
  const std::int64_t at = order_[static_cast<std::size_t>(number > 0 ? rank - 1 : count() - rank)];
  double whole = 0;
  at::Tensor flat = read(at, whole);
  const double held = flat.square().sum().item<double>();
  if (!std::isfinite(whole) || !(whole > 0))
    refuse(*file_, "has a vector " + std::to_string(at) + " that is " + (whole == 0 ? "zero" : "not finite"));
  if (held < (1 - kOutside) * whole)
    throw InputError("--vectors-from " + quote(file_->path().string()) + ": of its vector " + std::to_string(at) + " " +
                     format_number(100 * (1 - held / whole)) +
                     " % lies in rows of tables that these data don't use: it is of other data; --rows-in-use off "
                     "takes all rows");
  return flat.div_(std::sqrt(held));
}

}  // namespace hesspect
