#include <algorithm>
#include <functional>

#include "hdf5_tree.h"
#include "hesspect/io/atomic_file.h"
#include "hesspect/io/result_file.h"
#include "result_fields.h"

namespace hesspect {
namespace {

using hdf5::Label;
using hdf5::put;
using hdf5::put_attribute;

std::vector<std::int64_t> counting(std::size_t count) {
  std::vector<std::int64_t> numbers(count);
  for (std::size_t i = 0; i < count; ++i) numbers[i] = static_cast<std::int64_t>(i);
  return numbers;
}

bool is_empty(const auto&) { return false; }
template <class T>
bool is_empty(const std::optional<T>& object) {
  return !object;
}
template <class T>
bool is_empty(const std::vector<T>& list) {
  return list.empty();
}

template <class T>
const T& content(const std::optional<T>& object) {
  return *object;
}
const auto& content(const auto& object) { return object; }

/// Writes the fields of a group (result_fields.h).
class ResultWriter {
 public:
  /// @param matrix  the curvature, for titles
  ResultWriter(hid_t group, const std::string& matrix) : group_(group), matrix_(matrix) {}

  /// The attributes by which viewers find what to plot over what.
  void plot(const std::string& signal, const std::vector<std::string>& axes, std::string title) {
    attribute("signal", signal);
    attribute("axes", axes);
    for (std::size_t i = 0; i < axes.size(); ++i) attribute(axes[i] + "_indices", static_cast<std::int64_t>(i));
    const std::string mark = "{matrix}";
    if (const auto at = title.find(mark); at != std::string::npos) title.replace(at, mark.size(), matrix_);
    (*this)("title", title, {"Title of the plot"});
  }
  void attribute(const std::string& name, const auto& value) { put_attribute(group_, name, value); }

  void operator()(const std::string& name, const auto& value, const Label& label) { put(group_, name, value, label); }
  void operator()(const std::string& name, const std::vector<std::string>& texts, const Label& label) {
    put(group_, name, texts, {texts.size()}, label);
  }
  void derived(const std::string& name, const auto& value, const Label& label) { put(group_, name, value, label); }

  void dimension(const std::string&, std::size_t = 0) { axis_.reset(); }
  void axis(const std::string& name, const auto& rows, auto field, const Label& label) {
    axis_ = put_column(name, rows, field, label);
  }
  void grid(const std::string& name, const std::vector<double>& values, const Label& label) {
    axis(name, values, std::identity(), label);
  }
  void index(const std::string& name, const auto& rows, const Label& label) {
    axis(name, counting(rows.size()), std::identity(), label);
  }
  void column(const std::string& name, const auto& rows, auto field, const Label& label) {
    const hdf5::Dataset values = put_column(name, rows, field, label);
    if (axis_) hdf5::attach_scale(axis_, values, 0);
  }
  void column(const std::string& name, const auto& values, const Label& label) {
    column(name, values, std::identity(), label);
  }
  void derived_column(const std::string& name, const auto& values, const Label& label) { column(name, values, label); }

  void second_axis(const std::string& name, const std::vector<std::int64_t>& lengths, const Label& label) {
    longest_ = lengths.empty() ? 0 : static_cast<std::size_t>(*std::max_element(lengths.begin(), lengths.end()));
    second_axis_ = put(group_, name, counting(longest_), {longest_}, label);
  }
  void second_grid(const std::string& name, const std::vector<double>& values, const Label& label) {
    longest_ = values.size();
    second_axis_ = put(group_, name, values, {longest_}, label);
  }
  void table(const std::string& name, const auto& rows, auto field, const Label& label) {
    std::vector<double> values(rows.size() * longest_, std::numeric_limits<double>::quiet_NaN());
    for (std::size_t r = 0; r < rows.size(); ++r) {
      const std::vector<double>& row = std::invoke(field, rows[r]);
      std::copy_n(row.begin(), std::min(row.size(), longest_),
                  values.begin() + static_cast<std::ptrdiff_t>(r * longest_));
    }
    const hdf5::Dataset array = put(group_, name, values, {rows.size(), longest_}, label);
    hdf5::attach_scale(axis_, array, 0);
    hdf5::attach_scale(second_axis_, array, 1);
  }
  void table(const std::string& name, const auto& rows, const Label& label) {
    table(name, rows, std::identity(), label);
  }

  bool there(const std::string&, const auto& rows) const { return !rows.empty(); }
  void group(const std::string& name, const std::string& nx_class, const auto& object, auto... more) {
    if (is_empty(object)) return;
    const hdf5::Group inner = hdf5::make_group(group_, name, nx_class);
    ResultWriter writer(inner.get(), matrix_);
    schema::fields(writer, content(object));
    (more(writer, content(object)), ...);
  }
  template <class T>
  void groups(const std::string& name, const std::string& nx_class, const std::optional<T>& object, auto list,
              auto field) {
    if (!object) return;
    const hdf5::Group all = hdf5::make_group(group_, name, nx_class);
    ResultWriter writer(all.get(), matrix_);
    for (const auto& one : std::invoke(list, *object)) writer.group(std::invoke(field, one), nx_class, one);
  }

 private:
  template <class Row, class Field>
  hdf5::Dataset put_column(const std::string& name, const std::vector<Row>& rows, Field field, const Label& label) {
    std::vector<std::remove_cvref_t<std::invoke_result_t<Field, const Row&>>> values;
    for (const Row& row : rows) values.push_back(std::invoke(field, row));
    return put(group_, name, values, {values.size()}, label);
  }

  hid_t group_;
  const std::string& matrix_;
  hdf5::Dataset axis_, second_axis_;  // empty: none
  std::size_t longest_ = 0;
};

std::string default_plot(const RunResult& r) {
  if (r.density) return "density";
  if (r.landscape) return "landscape";
  if (r.features) return "features";
  if (r.eigenvalues) return "eigenvalues";
  if (r.inputs) return "inputs";
  return r.quadrature.empty() && !r.layers.empty() ? "layers" : "quadrature";
}

}  // namespace

void write_result(const std::filesystem::path& path, const RunResult& r) {
  hdf5::MemoryFile file;
  const hid_t root = file.root();
  put_attribute(root, "NX_class", "NXroot");
  put_attribute(root, "default", "entry");
  put_attribute(root, "creator", "hesspect " + r.process.version);
  put_attribute(root, "file_name", path.filename().string());
  put_attribute(root, "file_time", r.process.end_time);
  put_attribute(root, schema::kMark, schema::kVersion);
  {
    const hdf5::Group entry = hdf5::make_group(root, "entry", "NXentry");
    put_attribute(entry.get(), "default", default_plot(r));
    put(entry.get(), "title", "hesspect " + r.process.command, {"Title"});
    put(entry.get(), "start_time", r.process.start_time, {"Start, UTC"});
    put(entry.get(), "end_time", r.process.end_time, {"End, UTC"});
    const std::string matrix = r.process.curvature.empty() ? "curvature" : r.process.curvature;
    ResultWriter writer(entry.get(), matrix);
    schema::fields(writer, r);
  }
  write_file_atomically(path, file.bytes());
}

}  // namespace hesspect
