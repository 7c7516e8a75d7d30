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

at::Tensor EigenvectorFile::at_place(std::int64_t place) const {
  double whole = 0;
  at::Tensor flat = read(place, whole);
  const double held = flat.square().sum().item<double>();
  if (!std::isfinite(whole) || !(whole > 0) || held < (1 - kOutside) * whole) return {};
  return flat.div_(std::sqrt(held));
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
