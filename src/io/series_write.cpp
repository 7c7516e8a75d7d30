#include <algorithm>
#include <cmath>
#include <functional>

#include "hdf5_tree.h"
#include "hesspect/io/atomic_file.h"
#include "hesspect/io/series_file.h"

namespace hesspect {
namespace {

using hdf5::Label;
using hdf5::make_group;
using hdf5::put;
using hdf5::put_attribute;

constexpr double kNaN = SeriesRow::kNotKnown;
constexpr std::int64_t kLayout = 1;

/// A table of a line for each row, filled up with NaN at the end.
std::vector<double> table(const std::vector<SeriesRow>& rows, std::size_t width, const auto& line_of) {
  std::vector<double> values(rows.size() * width, kNaN);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const std::vector<double> line = line_of(rows[r]);
    std::copy_n(line.begin(), std::min(width, line.size()), values.begin() + static_cast<std::ptrdiff_t>(r * width));
  }
  return values;
}

template <class Field>
auto column(const std::vector<SeriesRow>& rows, Field field) {
  std::vector<std::remove_cvref_t<std::invoke_result_t<Field, const SeriesRow&>>> values;
  for (const SeriesRow& row : rows) values.push_back(std::invoke(field, row));
  return values;
}

void put_checkpoints(hid_t entry, const std::vector<SeriesRow>& rows) {
  const hdf5::Group group = make_group(entry, "checkpoints", "NXcollection");
  const std::vector<hsize_t> dims{rows.size()};
  const auto field = [&](const char* name, auto of, const Label& label) {
    put(group.get(), name, column(rows, of), dims, label);
  };
  field("step", &SeriesRow::step, {"Training step that the checkpoint's name tells; -1: none"});
  field("name", &SeriesRow::name, {"Name of the checkpoint"});
  field("time", &SeriesRow::time, {"Time of the checkpoint's last change, since 1970-01-01 UTC", "s"});
  field("sha256", &SeriesRow::sha256, {"SHA-256 of the checkpoint"});
  field("result", &SeriesRow::result, {"Result file, relative to this file's folder"});
  field("products", &SeriesRow::products, {"Hessian-vector products that its run took"});
  field("seconds", &SeriesRow::seconds, {"Wall time of its run", "s"});
  field("fresh", &SeriesRow::fresh, {"Its run took nothing over from the checkpoint before"});
  field("loss", &SeriesRow::loss, {"Loss"});
}

/// The largest from the left, the smallest from the right; between them NaN where a row has fewer than the others.
void put_eigenvalues(hid_t entry, const std::vector<SeriesRow>& rows) {
  std::size_t top = 0, bottom = 0;
  for (const SeriesRow& row : rows) {
    top = std::max(top, row.top.size());
    bottom = std::max(bottom, row.bottom.size());
  }
  const std::size_t width = top + bottom;
  const auto of = [&](const auto& figure) {
    return table(rows, width, [&](const SeriesRow& row) {
      std::vector<double> line(width, kNaN);
      for (std::size_t i = 0; i < row.top.size(); ++i) line[i] = figure(row.top[i]);
      for (std::size_t i = 0; i < row.bottom.size(); ++i) line[width - row.bottom.size() + i] = figure(row.bottom[i]);
      return line;
    });
  };
  const hdf5::Group group = make_group(entry, "eigenvalues", "NXdata");
  put_attribute(group.get(), "signal", std::string("value"));
  const std::vector<hsize_t> dims{rows.size(), width};
  const std::string units = "loss/parameter^2";
  put(group.get(), "value", of([](const EigenEstimate& one) { return one.value; }), dims,
      {"Eigenvalues, largest first", units});
  put(group.get(), "lower", of([](const EigenEstimate& one) { return one.value - one.error; }), dims,
      {"Eigenvalues less their error", units});
  put(group.get(), "upper", of([](const EigenEstimate& one) { return one.value + one.error; }), dims,
      {"Eigenvalues and their error", units});
  put(group.get(), "top", static_cast<std::int64_t>(top), {"Columns from the left that are largest eigenvalues"});
}

void put_trace(hid_t entry, const std::vector<SeriesRow>& rows) {
  const hdf5::Group group = make_group(entry, "trace", "NXdata");
  put_attribute(group.get(), "signal", std::string("value"));
  const std::string units = "loss/parameter^2";
  put(group.get(), "value", column(rows, [](const SeriesRow& row) { return row.trace.value; }), {rows.size()},
      {"Trace", units});
  const auto field = [&](const char* name, auto of, const Label& label) {
    put(group.get(), name, column(rows, of), {rows.size()}, label);
  };
  field("standard_error", [](const SeriesRow& row) { return row.trace.standard_error; },
        {"Standard error of the trace", units});
  field("half_width", [](const SeriesRow& row) { return row.trace.half_width; },
        {"Half width of the trace's confidence interval", units});
  field("change", [](const SeriesRow& row) { return row.change.value; },
        {"By how much the trace has changed since the checkpoint before, by the random vectors that both have", units});
  field("change_standard_error", [](const SeriesRow& row) { return row.change.standard_error; },
        {"Standard error of the change", units});
  field("change_half_width", [](const SeriesRow& row) { return row.change.half_width; },
        {"Half width of the change's confidence interval", units});
  field("change_probes", [](const SeriesRow& row) { return row.change.probes; },
        {"Random vectors that the change is from; 0: the difference of the two traces"});
}

/// Layers by name: those of the first row that has any, then what others have besides.
void put_layers(hid_t entry, const std::vector<SeriesRow>& rows) {
  std::vector<std::string> names;
  for (const SeriesRow& row : rows)
    for (const LayerEstimate& layer : row.layers)
      if (std::ranges::find(names, layer.name) == names.end()) names.push_back(layer.name);
  const auto of = [&](const auto& figure) {
    return table(rows, names.size(), [&](const SeriesRow& row) {
      std::vector<double> line(names.size(), kNaN);
      for (const LayerEstimate& layer : row.layers)
        line[static_cast<std::size_t>(std::ranges::find(names, layer.name) - names.begin())] = figure(layer);
      return line;
    });
  };
  const hdf5::Group group = make_group(entry, "layers", "NXdata");
  put_attribute(group.get(), "signal", std::string("trace"));
  const std::string units = "loss/parameter^2";
  const std::vector<hsize_t> dims{rows.size(), names.size()};
  put(group.get(), "name", names, {names.size()}, {"Parameter tensor"});
  put(group.get(), "trace", of([](const LayerEstimate& layer) { return layer.trace.value; }), dims,
      {"Trace of the tensor's diagonal block", units});
  put(group.get(), "standard_error", of([](const LayerEstimate& layer) { return layer.trace.standard_error; }), dims,
      {"Standard error of that trace", units});
}

void put_density(hid_t entry, const std::vector<SeriesRow>& rows) {
  std::size_t width = 0;
  for (const SeriesRow& row : rows) width = std::max(width, row.density.lambda.size());
  const hdf5::Group group = make_group(entry, "density", "NXdata");
  put_attribute(group.get(), "signal", std::string("density"));
  const std::vector<hsize_t> dims{rows.size(), width};
  put(group.get(), "lambda", table(rows, width, [](const SeriesRow& row) { return row.density.lambda; }), dims,
      {"Grid of each checkpoint's density, ascending", "loss/parameter^2"});
  put(group.get(), "density", table(rows, width, [](const SeriesRow& row) { return row.density.density; }), dims,
      {"Spectral density; integrates to 1", "parameter^2/loss"});
}

void put_rest(hid_t entry, const std::vector<SeriesRow>& rows) {
  const std::vector<hsize_t> dims{rows.size()};
  const hdf5::Group overlap = make_group(entry, "overlap", "NXdata");
  put(overlap.get(), "subspace", column(rows, &SeriesRow::overlap), dims,
      {"Mean squared cosine between the spaces of the top eigenvectors of this checkpoint and the one before"});
  const hdf5::Group stability = make_group(entry, "stability", "NXdata");
  put(stability.get(), "learning_rate", column(rows, &SeriesRow::learning_rate), dims, {"Learning rate"});
  put(stability.get(), "half_lambda_eta",
      column(
          rows,
          [](const SeriesRow& row) { return row.top.empty() ? kNaN : row.top.front().value * row.learning_rate / 2; }),
      dims, {"Largest eigenvalue times half the learning rate: gradient descent is stable below 1"});
}

}  // namespace

SeriesRow series_row(const RunResult& result) {
  SeriesRow row;
  row.products = result.diagnostics.products;
  row.seconds = result.diagnostics.elapsed_s;
  row.loss = result.diagnostics.loss;
  if (result.eigenvalues) {
    row.top = result.eigenvalues->top;
    row.bottom = result.eigenvalues->bottom;
    if (!result.eigenvalues->magnitude.empty()) {  // in one list, the largest first
      row.top = result.eigenvalues->magnitude;
      std::ranges::stable_sort(row.top, std::greater<>(), &EigenEstimate::value);
    }
  }
  if (result.trace) row.trace = *result.trace;
  row.samples = result.samples;
  row.layers = result.layers;
  if (result.density) row.density = *result.density;
  return row;
}

void write_series(const std::filesystem::path& path, const Series& series) {
  hdf5::MemoryFile file;
  put_attribute(file.root(), "NX_class", std::string("NXroot"));
  put_attribute(file.root(), "default", std::string("entry"));
  put_attribute(file.root(), "hesspect_series", kLayout);
  {
    const hdf5::Group entry = make_group(file.root(), "entry", "NXentry");
    put_attribute(entry.get(), "default", std::string("eigenvalues"));
    put(entry.get(), "title", std::string("hesspect series"), {"Title"});
    const hdf5::Group process = make_group(entry.get(), "process", "NXprocess");
    put(process.get(), "program", std::string("hesspect"), {"Program"});
    put(process.get(), "version", series.version, {"Version"});
    put(process.get(), "curvature", series.curvature, {"Matrix whose spectrum this is"});
    put(process.get(), "config", series.config, {"Configuration, as an ini file"});
    put_checkpoints(entry.get(), series.rows);
    put_eigenvalues(entry.get(), series.rows);
    put_trace(entry.get(), series.rows);
    put_layers(entry.get(), series.rows);
    put_density(entry.get(), series.rows);
    put_rest(entry.get(), series.rows);
  }
  write_file_atomically(path, file.bytes());
}

}  // namespace hesspect
