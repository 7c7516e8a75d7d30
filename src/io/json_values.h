// Structs as JSON, by one list of their fields each: `fields(visitor, struct)` names them, and Writer and Reader go
// through the list.
//
// Doubles come back bit for bit: in decimal where they are finite, else as the hexadecimal digits of their bits.
// Text that is not UTF-8 (JSON allows no other) and opaque bytes are hexadecimal too.
#pragma once

#include <concepts>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

namespace hesspect::checkpoint {

/// T, const or not: so one list of fields serves to write and to read.
template <class T, class U>
concept Is = std::same_as<std::remove_const_t<T>, U>;

/// A JSON value, with its name for messages. What is missing or of another kind throws InputError.
class Field {
 public:
  Field(const nlohmann::json& value, std::string name) : value_(value), name_(std::move(name)) {}

  Field operator[](const char* key) const;
  bool is_null() const { return value_.is_null(); }
  std::vector<Field> list() const;
  std::string hex() const;

  void read(std::int64_t& value) const;
  void read(int& value) const;  // 0 or more
  void read(bool& value) const;
  void read(double& value) const;
  void read(std::string& value) const;

 private:
  [[noreturn]] void fail(const char* expected) const;
  const nlohmann::json& value_;
  std::string name_;
};

nlohmann::json hex_json(const std::string& bytes);
inline nlohmann::json to_json_value(std::int64_t value) { return value; }
inline nlohmann::json to_json_value(int value) { return value; }
inline nlohmann::json to_json_value(bool value) { return value; }
nlohmann::json to_json_value(double value);
nlohmann::json to_json_value(const std::string& value);

class Writer {
 public:
  template <class T>
  static nlohmann::json json(const T& value) {
    if constexpr (requires { to_json_value(value); }) {
      return to_json_value(value);
    } else {
      Writer writer;
      fields(writer, value);
      return std::move(writer.json_);
    }
  }
  template <class T>
  static nlohmann::json json(const std::vector<T>& values) {
    nlohmann::json all = nlohmann::json::array();
    for (const T& value : values) all.push_back(json(value));
    return all;
  }
  template <class T>
  static nlohmann::json json(const std::optional<T>& value) {
    return value ? json(*value) : nlohmann::json();
  }

  template <class T>
  void operator()(const char* name, const T& value) {
    json_[name] = json(value);
  }
  void bytes(const char* name, const std::string& value) { json_[name] = hex_json(value); }

 private:
  nlohmann::json json_ = nlohmann::json::object();
};

class Reader {
 public:
  explicit Reader(Field field) : field_(std::move(field)) {}

  template <class T>
  static void read(const Field& field, T& value) {
    if constexpr (requires { field.read(value); }) {
      field.read(value);
    } else {
      Reader reader(field);
      fields(reader, value);
    }
  }
  template <class T>
  static void read(const Field& field, std::vector<T>& values) {
    values.clear();
    for (const Field& item : field.list()) read(item, values.emplace_back());
  }
  template <class T>
  static void read(const Field& field, std::optional<T>& value) {
    value.reset();
    if (!field.is_null()) read(field, value.emplace());
  }

  template <class T>
  void operator()(const char* name, T& value) {
    read(field_[name], value);
  }
  void bytes(const char* name, std::string& value) { value = field_[name].hex(); }

 private:
  Field field_;
};

}  // namespace hesspect::checkpoint
