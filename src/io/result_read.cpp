#include <functional>

#include "hdf5_tree.h"
#include "hesspect/core/errors.h"
#include "hesspect/io/result_file.h"
#include "result_fields.h"

namespace hesspect {
namespace {

using hdf5::Label;
using hdf5::ReadFile;

template <class T>
T& made(std::optional<T>& object) {
  return object.emplace();
}
auto& made(auto& object) { return object; }

template <class T>
constexpr bool may_lack(const T&) {
  return false;
}
template <class T>
constexpr bool may_lack(const std::optional<T>&) {
  return true;
}
template <class T>
constexpr bool may_lack(const std::vector<T>&) {
  return true;
}

/// Reads the fields of a group (result_fields.h). What an older layout lacks keeps its default.
class ResultReader {
 public:
  ResultReader(const ReadFile& file, std::int64_t layout, std::string group)
      : file_(file), layout_(layout), group_(std::move(group)) {}

  std::int64_t layout() const { return layout_; }
  /// @throws InputError about this group where something does not hold
  void require(bool holds, const std::string& otherwise) const {
    if (!holds) throw InputError(group_ + otherwise);
  }

  void plot(const std::string&, const std::vector<std::string>&, const std::string&) {}
  void attribute(const std::string&, const auto&) {}

  template <class T>
  void operator()(const std::string& name, T& value, const Label& label) {
    if (lacks(name, label)) return;
    value = file_.value<T>(group_ + name);
  }
  void operator()(const std::string& name, std::vector<std::string>& texts, const Label& label) {
    if (!lacks(name, label)) texts = file_.values<std::string>(group_ + name);
  }
  void derived(const std::string&, const auto&, const Label&) {}

  void dimension(const std::string&, std::optional<std::size_t> size = {}) { rows_ = size; }
  void axis(const std::string& name, auto& rows, auto field, const Label& label) {
    dimension(name);
    column(name, rows, field, label);
  }
  /// Whoever draws or integrates over it goes along it.
  void grid(const std::string& name, std::vector<double>& values, const Label& label) {
    axis(name, values, std::identity(), label);
    for (std::size_t i = 0; i < values.size(); ++i)
      if (!std::isfinite(values[i]) || (i > 0 && values[i] < values[i - 1]))
        throw InputError(group_ + name + " does not ascend at entry " + std::to_string(i) + ": the result is broken");
  }
  void index(const std::string& name, const auto&, const Label&) { dimension(name); }
  template <class Row, class Field>
  void column(const std::string& name, std::vector<Row>& rows, Field field, const Label& label) {
    if (lacks(name, label)) return;
    const auto values = file_.values<std::remove_cvref_t<std::invoke_result_t<Field, Row&>>>(group_ + name);
    if (rows_.value_or(values.size()) != values.size())
      throw InputError(group_ + name + " has " + std::to_string(values.size()) + " entries, not " +
                       std::to_string(*rows_) + ": the result is broken");
    rows_ = values.size();
    rows.resize(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) std::invoke(field, rows[i]) = values[i];
  }
  void column(const std::string& name, auto& values, const Label& label) {
    column(name, values, std::identity(), label);
  }
  void derived_column(const std::string&, const auto&, const Label&) {}

  void second_axis(const std::string&, const std::vector<std::int64_t>& lengths, const Label&) { lengths_ = lengths; }
  void second_grid(const std::string& name, std::vector<double>& values, const Label& label) {
    const auto rows = rows_;
    grid(name, values, label);
    rows_ = rows;
    lengths_.assign(rows.value_or(0), static_cast<std::int64_t>(values.size()));
  }
  void table(const std::string& name, auto& rows, auto field, const Label&) {
    const auto dims = file_.dims(group_ + name);
    require(dims.size() == 2 && dims[0] == lengths_.size(), name + " has other rows than its axes say");
    const std::size_t longest = dims[1];
    const auto values = file_.values<double>(group_ + name);
    rows.resize(lengths_.size());
    for (std::size_t r = 0; r < rows.size(); ++r) {
      require(lengths_[r] >= 1 && static_cast<std::size_t>(lengths_[r]) <= longest,
              name + " is shorter than its axes say");
      const auto begin = values.begin() + static_cast<std::ptrdiff_t>(r * longest);
      std::invoke(field, rows[r]).assign(begin, begin + lengths_[r]);
    }
  }
  void table(const std::string& name, auto& rows, const Label& label) { table(name, rows, std::identity(), label); }

  bool there(const std::string& name, const auto&) const { return file_.has(group_ + name); }
  void group(const std::string& name, const std::string&, auto& object, auto... more) {
    if (may_lack(object) && !file_.has(group_ + name)) return;
    ResultReader reader(file_, layout_, group_ + name + "/");
    auto& content = made(object);
    schema::fields(reader, content);
    (more(reader, content), ...);
  }
  template <class T>
  void groups(const std::string& name, const std::string& nx_class, std::optional<T>& object, auto list, auto field) {
    if (!object) return;
    ResultReader reader(file_, layout_, group_ + name + "/");
    for (auto& one : std::invoke(list, *object)) reader.group(std::invoke(field, one), nx_class, one);
  }

 private:
  bool lacks(const std::string& name, const Label& label) const {
    return label.since > layout_ && !file_.has(group_ + name);
  }

  const ReadFile& file_;
  std::int64_t layout_;
  std::string group_;
  std::optional<std::size_t> rows_;  // of the columns that follow
  std::vector<std::int64_t> lengths_;
};

}  // namespace

RunResult read_result(const std::filesystem::path& path) {
  const ReadFile file(path);
  const auto version = file.root_attribute(schema::kMark);
  if (!version) throw InputError("'" + path.string() + "' is not a result of hesspect");
  if (*version < 1 || *version > schema::kVersion)
    throw InputError("'" + path.string() + "' has result layout " + std::to_string(*version) +
                     ", and this version reads layouts 1 to " + std::to_string(schema::kVersion));
  RunResult r;
  try {
    ResultReader reader(file, *version, "/entry/");
    schema::fields(reader, r);
  } catch (const InputError& error) {
    const std::string text = error.what();
    throw InputError(text.starts_with("'") ? text : "'" + path.string() + "': " + text);
  }
  return r;
}

bool is_result(const std::filesystem::path& path) {
  try {
    return ReadFile(path).root_attribute(schema::kMark).has_value();
  } catch (const Error&) {
    return false;
  }
}

}  // namespace hesspect
