#include "result_schema.h"

#include <functional>
#include <nlohmann/json.hpp>

#include "hdf5_tree.h"
#include "result_fields.h"

namespace hesspect::schema {
namespace {

template <class T>
constexpr const char* type_name() {
  if constexpr (std::same_as<T, bool>) return "bool";
  if constexpr (std::same_as<T, std::string>) return "text";
  return std::floating_point<T> ? "float64" : std::signed_integral<T> ? "int64" : "uint64";
}

/// Visits the fields of an empty result and writes a line about each.
class Printer {
 public:
  Printer(std::string& lines, std::string group) : lines_(lines), group_(std::move(group)) {}

  void plot(const std::string&, const std::vector<std::string>&, const std::string&) {}
  void attribute(const std::string&, const auto&) {}

  template <class T>
  void operator()(const std::string& name, const T&, const hdf5::Label& label) {
    line(name, type_name<T>(), {}, label);
  }
  void operator()(const std::string& name, const std::vector<std::string>&, const hdf5::Label& label) {
    line(name, "text", {name}, label);
  }
  template <class T>
  void derived(const std::string& name, const T& value, const hdf5::Label& label) {
    (*this)(name, value, label);
  }

  void dimension(const std::string& name, std::size_t = 0) { axis_ = name; }
  template <class Rows, class Field = std::identity>
  void axis(const std::string& name, const Rows& rows, Field field, const hdf5::Label& label) {
    dimension(name);
    column(name, rows, field, label);
  }
  void grid(const std::string& name, const std::vector<double>& values, const hdf5::Label& label) {
    axis(name, values, std::identity(), label);
  }
  void index(const std::string& name, const auto&, const hdf5::Label& label) {
    axis(name, std::vector<std::int64_t>(), std::identity(), label);
  }
  template <class Row, class Field>
  void column(const std::string& name, const std::vector<Row>&, Field, const hdf5::Label& label) {
    line(name, type_name<std::remove_cvref_t<std::invoke_result_t<Field, const Row&>>>(), {axis_}, label);
  }
  void column(const std::string& name, const auto& values, const hdf5::Label& label) {
    column(name, values, std::identity(), label);
  }
  void derived_column(const std::string& name, const auto& values, const hdf5::Label& label) {
    column(name, values, label);
  }
  void second_axis(const std::string& name, const auto&, const hdf5::Label& label) {
    second_axis_ = name;
    line(name, "int64", {name}, label);
  }
  void second_grid(const std::string& name, const std::vector<double>&, const hdf5::Label& label) {
    second_axis_ = name;
    line(name, "float64", {name}, label);
  }
  void table(const std::string& name, const auto&, const hdf5::Label& label) {
    line(name, "float64", {axis_, second_axis_}, label);
  }
  void table(const std::string& name, const auto& rows, auto, const hdf5::Label& label) { table(name, rows, label); }

  bool there(const std::string&, const auto&) const { return true; }
  template <class T>
  void group(const std::string& name, const std::string&, const T& object, auto... more) {
    Printer inner(lines_, group_ + name + "/");
    fields(inner, object);
    (more(inner, object), ...);
  }
  template <class T>
  void group(const std::string& name, const std::string& nx_class, const std::optional<T>&, auto... more) {
    const T empty;
    group(name, nx_class, empty, more...);
  }
  template <class T, class Row>
  void groups(const std::string& name, const std::string& nx_class, const std::optional<T>&, std::vector<Row> T::*,
              auto) {
    Printer inner(lines_, group_ + name + "/");
    inner.group("<name>", nx_class, Row());
  }

 private:
  void line(const std::string& name, const char* type, const std::vector<std::string>& shape,
            const hdf5::Label& label) {
    const nlohmann::ordered_json field{
        {"path", group_ + name},        {"type", type},        {"shape", shape}, {"units", label.units},
        {"long_name", label.long_name}, {"since", label.since}};
    lines_ += (lines_.empty() ? "[\n" : ",\n") + field.dump();
  }

  std::string& lines_;
  std::string group_, axis_, second_axis_;
};

}  // namespace

std::string as_json() {
  std::string lines;
  Printer printer(lines, "");
  const RunResult empty;
  fields(printer, empty);
  return lines + "\n]\n";
}

}  // namespace hesspect::schema
