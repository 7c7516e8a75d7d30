// Structs as JSON text and back, by one list of their fields each: `fields(visitor, struct)` names them, and
// FieldWriter and FieldReader go through the list. Checkpoints and the messages between a run's groups are written so.
//
//   struct Point { double x = 0; std::vector<int> tags; };
//   void fields(auto& v, Is<Point> auto& p) { v("x", p.x, "tags", p.tags); }
//   const std::string text = FieldWriter::text(Point{1, {2}});
//   const Point same = FieldReader::from<Point>(text, "point");
//
// Doubles come back bit for bit: they stand in decimal where they are finite, else as the hexadecimal digits of their
// bits. Text that is not UTF-8 (JSON allows no other) and opaque bytes are hexadecimal too. A variant is a list of its
// alternative's name and value; `names_of(variant)` is an array of the names.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace hesspect {

/// T, const or not: so one list of fields serves to write and to read.
template <class T, class U>
concept Is = std::same_as<std::remove_const_t<T>, U>;

class FieldWriter {
 public:
  FieldWriter();
  ~FieldWriter();
  FieldWriter(const FieldWriter&) = delete;
  FieldWriter& operator=(const FieldWriter&) = delete;

  template <class T>
  static std::string text(const T& value) {
    FieldWriter writer;
    writer.put(value);
    return writer.text();
  }
  /// What has been written, on one line.
  std::string text() const;

  /// Names and values in turn.
  template <class T, class... More>
  void operator()(const char* name, const T& value, const More&... more) {
    enter(name);
    put(value);
    leave();
    if constexpr (sizeof...(more) > 0) (*this)(more...);
  }
  void bytes(const char* name, const std::string& value);
  /// One of a few values that to_string names.
  template <class T>
  void choice(const char* name, const T& value, std::span<const T>) {
    (*this)(name, std::string(to_string(value)));
  }

 private:
  void enter(const char* key);
  void enter_item();
  void leave();
  void put(std::int64_t value);
  void put(int value) { put(std::int64_t{value}); }
  void put(bool value);
  void put(double value);
  void put(const std::string& value);
  void begin_list();
  void begin_object();
  template <class T>
  void put(const std::vector<T>& values) {
    begin_list();
    for (const T& value : values) put_item(value);
  }
  template <class T>
  void put(const std::optional<T>& value) {
    if (value) put(*value);  // else it stays null
  }
  template <class... T>
  void put(const std::variant<T...>& value) {
    begin_list();
    put_item(std::string(names_of(value)[value.index()]));
    std::visit([this](const auto& alternative) { put_item(alternative); }, value);
  }
  template <class T>
  void put(const T& value) {
    begin_object();
    fields(*this, value);
  }
  template <class T>
  void put_item(const T& value) {
    enter_item();
    put(value);
    leave();
  }

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// What is missing or of another kind throws InputError, which names the field.
class FieldReader {
 public:
  /// @param name  what the text is said to be, for messages
  /// @throws InputError also for what is no JSON, or nests too deep
  FieldReader(const std::string& text, const std::string& name);

  template <class T>
  static T from(const std::string& text, const std::string& name) {
    return FieldReader(text, name).as<T>();
  }
  template <class T>
  T as() const {
    T value{};
    get(value);
    return value;
  }

  template <class T, class... More>
  void operator()(const char* name, T& value, More&... more) {
    (*this)[name].get(value);
    if constexpr (sizeof...(more) > 0) (*this)(more...);
  }
  void bytes(const char* name, std::string& value);
  template <class T>
  void choice(const char* name, T& value, std::span<const T> choices) {
    const FieldReader field = (*this)[name];
    const auto text = field.as<std::string>();
    const auto found = std::ranges::find_if(choices, [&](const T& one) { return to_string(one) == text; });
    if (found == choices.end()) field.fail("one of those known");
    value = *found;
  }

 private:
  struct Node;  // of the JSON
  FieldReader(std::shared_ptr<const Node> root, const void* value, std::string name);
  FieldReader operator[](const char* key) const;
  std::vector<FieldReader> list() const;
  bool is_null() const;
  [[noreturn]] void fail(const char* expected) const;
  std::string hex() const;

  void get(std::int64_t& value) const;
  void get(int& value) const;  // 0 or more
  void get(bool& value) const;
  void get(double& value) const;
  void get(std::string& value) const;
  template <class T>
  void get(std::vector<T>& values) const {
    values.clear();
    for (const FieldReader& item : list()) item.get(values.emplace_back());
  }
  template <class T>
  void get(std::optional<T>& value) const {
    value.reset();
    if (!is_null()) get(value.emplace());
  }
  template <class... T>
  void get(std::variant<T...>& value) const {
    const std::vector<FieldReader> pair = list();
    if (pair.size() != 2) fail("a name and its value");
    const auto names = names_of(value);
    static_assert(names.size() == sizeof...(T));
    const auto name = pair[0].as<std::string>();
    auto of_name = names.begin();
    const bool known = (... || (name == *of_name++ && (value = pair[1].as<T>(), true)));
    if (!known) pair[0].fail("one of those known");
  }
  template <class T>
  void get(T& value) const {
    FieldReader reader = *this;
    fields(reader, value);
  }

  std::shared_ptr<const Node> root_;
  const void* value_;
  std::string name_;
};

}  // namespace hesspect
