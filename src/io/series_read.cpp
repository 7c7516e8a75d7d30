#include "hdf5_tree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/io/series_file.h"

namespace hesspect {

Series read_series(const std::filesystem::path& path) {
  const hdf5::ReadFile file(path);
  if (!file.root_attribute("hesspect_series")) throw InputError(quote(path.string()) + " is no series of hesspect");
  Series series;
  series.version = file.value<std::string>("entry/process/version");
  series.curvature = file.value<std::string>("entry/process/curvature");
  series.config = file.value<std::string>("entry/process/config");
  const std::string checkpoints = "entry/checkpoints/";
  const auto steps = file.values<std::int64_t>(checkpoints + "step");
  series.rows.resize(steps.size());
  const auto fill = [&]<class T>(const std::string& name, auto member) {
    if (!file.has(name)) return;  // of a series that an earlier version has written
    const auto values = file.values<T>(name);
    if (values.size() != steps.size())
      throw InputError(quote(path.string()) + " is a broken series: " + quote(name) + " has " +
                       std::to_string(values.size()) + " entries, expected " + std::to_string(steps.size()));
    for (std::size_t i = 0; i < values.size(); ++i) member(series.rows[i]) = values[i];
  };
  fill.operator()<std::int64_t>(
      checkpoints + "step", [](SeriesRow & row) -> auto& { return row.step; });
  fill.operator()<std::string>(
      checkpoints + "name", [](SeriesRow & row) -> auto& { return row.name; });
  fill.operator()<double>(
      checkpoints + "time", [](SeriesRow & row) -> auto& { return row.time; });
  fill.operator()<std::string>(
      checkpoints + "sha256", [](SeriesRow & row) -> auto& { return row.sha256; });
  fill.operator()<std::string>(
      checkpoints + "result", [](SeriesRow & row) -> auto& { return row.result; });
  fill.operator()<std::int64_t>(
      checkpoints + "products", [](SeriesRow & row) -> auto& { return row.products; });
  fill.operator()<double>(
      checkpoints + "seconds", [](SeriesRow & row) -> auto& { return row.seconds; });
  fill.operator()<double>(
      checkpoints + "loss", [](SeriesRow & row) -> auto& { return row.loss; });
  const std::string trace = "entry/trace/";
  fill.operator()<double>(
      trace + "value", [](SeriesRow & row) -> auto& { return row.trace.value; });
  fill.operator()<double>(
      trace + "standard_error", [](SeriesRow & row) -> auto& { return row.trace.standard_error; });
  fill.operator()<double>(
      trace + "half_width", [](SeriesRow & row) -> auto& { return row.trace.half_width; });
  fill.operator()<double>(
      trace + "change", [](SeriesRow & row) -> auto& { return row.change.value; });
  fill.operator()<double>(
      trace + "change_standard_error", [](SeriesRow & row) -> auto& { return row.change.standard_error; });
  fill.operator()<double>(
      trace + "change_half_width", [](SeriesRow & row) -> auto& { return row.change.half_width; });
  fill.operator()<double>(
      "entry/overlap/subspace", [](SeriesRow & row) -> auto& { return row.overlap; });
  fill.operator()<double>(
      "entry/stability/learning_rate", [](SeriesRow & row) -> auto& { return row.learning_rate; });

  const std::string eigenvalues = "entry/eigenvalues/";
  const auto dims = file.dims(eigenvalues + "value");
  if (dims.size() != 2 || dims[0] != steps.size())
    throw InputError(quote(path.string()) +
                     " is a broken series: its eigenvalues are no table with a line for each of " +
                     std::to_string(steps.size()) + " checkpoints");
  if (dims[1] == 0 || file.value<std::int64_t>(eigenvalues + "top") == 0) return series;
  const auto values = file.values<double>(eigenvalues + "value"), upper = file.values<double>(eigenvalues + "upper");
  if (upper.size() != values.size())
    throw InputError(quote(path.string()) + " is a broken series: its eigenvalues lack bounds");
  for (std::size_t i = 0; i < steps.size(); ++i) {
    EigenEstimate one;
    one.value = values[i * dims[1]];
    one.error = upper[i * dims[1]] - one.value;
    series.rows[i].top.push_back(one);
  }
  return series;
}

bool is_series(const std::filesystem::path& path) {
  try {
    return hdf5::ReadFile(path).root_attribute("hesspect_series").has_value();
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace hesspect
