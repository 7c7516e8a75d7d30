#include "json_values.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "hesspect/core/errors.h"
#include "hesspect/core/hex.h"

namespace hesspect::checkpoint {

using nlohmann::json;

json hex_json(const std::string& bytes) { return to_hex(std::as_bytes(std::span(bytes))); }

json to_json_value(const std::string& value) {
  json as_text = value;
  try {
    (void)as_text.dump();
    return as_text;
  } catch (const json::exception&) {  // not UTF-8
    return {{"hex", hex_json(value)}};
  }
}

json to_json_value(double value) {
  if (std::isfinite(value)) return value;
  const auto bits = std::bit_cast<std::array<std::byte, sizeof value>>(value);
  return to_hex(bits);
}

Field Field::operator[](const char* key) const {
  if (!value_.is_object() || !value_.contains(key)) throw InputError(name_ + "." + key + " is missing");
  return {value_.at(key), name_ + "." + key};
}

std::vector<Field> Field::list() const {
  if (!value_.is_array()) fail("a list");
  std::vector<Field> all;
  for (std::size_t i = 0; i < value_.size(); ++i) all.emplace_back(value_[i], name_ + "[" + std::to_string(i) + "]");
  return all;
}

std::string Field::hex() const {
  if (!value_.is_string()) fail("hexadecimal digits");
  const auto bytes = from_hex(value_.get_ref<const std::string&>());
  if (!bytes) fail("hexadecimal digits");
  return *bytes;
}

void Field::read(std::int64_t& value) const {
  if (!value_.is_number_integer()) fail("an integer");
  if (value_.is_number_unsigned() && value_.get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max())
    fail("in range");
  value = value_.get<std::int64_t>();
}

void Field::read(int& value) const {
  std::int64_t wide = 0;
  read(wide);
  if (wide < 0 || wide > std::numeric_limits<int>::max()) fail("in range");
  value = static_cast<int>(wide);
}

void Field::read(bool& value) const {
  if (!value_.is_boolean()) fail("true or false");
  value = value_.get<bool>();
}

void Field::read(double& value) const {
  if (value_.is_number()) {
    value = value_.get<double>();
    return;
  }
  const std::string bytes = hex();
  if (bytes.size() != sizeof value) fail("a number");
  std::memcpy(&value, bytes.data(), sizeof value);
}

void Field::read(std::string& value) const {
  if (value_.is_object()) {
    value = (*this)["hex"].hex();
    return;
  }
  if (!value_.is_string()) fail("a text");
  value = value_.get<std::string>();
}

void Field::fail(const char* expected) const { throw InputError(name_ + " is not " + expected); }

}  // namespace hesspect::checkpoint
