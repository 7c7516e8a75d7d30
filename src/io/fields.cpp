#include "hesspect/io/fields.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "hesspect/core/errors.h"
#include "hesspect/core/hex.h"
#include "hesspect/core/json_nesting.h"

namespace hesspect {

using nlohmann::json;

namespace {

std::string hex_of(const std::string& bytes) { return to_hex(std::as_bytes(std::span(bytes))); }

}  // namespace

// --- writing ---

struct FieldWriter::Impl {
  json root;
  std::vector<json*> open{&root};  // the value that is being written, last; those around it before
};

FieldWriter::FieldWriter() : impl_(std::make_unique<Impl>()) {}
FieldWriter::~FieldWriter() = default;

std::string FieldWriter::text() const { return impl_->root.dump(); }

void FieldWriter::enter(const char* key) { impl_->open.push_back(&(*impl_->open.back())[key]); }
void FieldWriter::enter_item() { impl_->open.push_back(&impl_->open.back()->emplace_back()); }
void FieldWriter::leave() { impl_->open.pop_back(); }
void FieldWriter::begin_list() { *impl_->open.back() = json::array(); }
void FieldWriter::begin_object() { *impl_->open.back() = json::object(); }
void FieldWriter::put(std::int64_t value) { *impl_->open.back() = value; }
void FieldWriter::put(bool value) { *impl_->open.back() = value; }

void FieldWriter::put(double value) {
  json& to = *impl_->open.back();
  if (std::isfinite(value))
    to = value;
  else
    to = to_hex(std::bit_cast<std::array<std::byte, sizeof value>>(value));
}

void FieldWriter::put(const std::string& value) {
  json& to = *impl_->open.back();
  to = value;
  try {
    (void)to.dump();
  } catch (const json::exception&) {  // the text is not UTF-8
    to = {{"hex", hex_of(value)}};
  }
}

void FieldWriter::bytes(const char* name, const std::string& value) { (*this)(name, hex_of(value)); }

// --- reading ---

struct FieldReader::Node {
  json value;
};

namespace {

const json& json_of(const void* value) { return *static_cast<const json*>(value); }

}  // namespace

FieldReader::FieldReader(const std::string& text, const std::string& name) : name_(name) {
  if (json_nests_deeper(text)) throw InputError(name + " nests too deep");
  try {
    root_ = std::make_shared<const Node>(Node{json::parse(text)});
  } catch (const json::exception&) {
    throw InputError(name + " is not JSON");
  }
  value_ = &root_->value;
}

FieldReader::FieldReader(std::shared_ptr<const Node> root, const void* value, std::string name)
    : root_(std::move(root)), value_(value), name_(std::move(name)) {}

FieldReader FieldReader::operator[](const char* key) const {
  const json& value = json_of(value_);
  if (!value.is_object() || !value.contains(key)) throw InputError(name_ + "." + key + " is missing");
  return {root_, &value.at(key), name_ + "." + key};
}

std::vector<FieldReader> FieldReader::list() const {
  const json& value = json_of(value_);
  if (!value.is_array()) fail("a list");
  std::vector<FieldReader> all;
  for (std::size_t i = 0; i < value.size(); ++i)
    all.push_back({root_, &value[i], name_ + "[" + std::to_string(i) + "]"});
  return all;
}

bool FieldReader::is_null() const { return json_of(value_).is_null(); }

std::string FieldReader::hex() const {
  const json& value = json_of(value_);
  if (!value.is_string()) fail("hexadecimal digits");
  const auto bytes = from_hex(value.get_ref<const std::string&>());
  if (!bytes) fail("hexadecimal digits");
  return *bytes;
}

void FieldReader::get(std::int64_t& to) const {
  const json& value = json_of(value_);
  if (!value.is_number_integer()) fail("an integer");
  if (value.is_number_unsigned() && value.get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max())
    fail("in range");
  to = value.get<std::int64_t>();
}

void FieldReader::get(int& to) const {
  std::int64_t wide = 0;
  get(wide);
  if (wide < 0 || wide > std::numeric_limits<int>::max()) fail("in range");
  to = static_cast<int>(wide);
}

void FieldReader::get(bool& to) const {
  const json& value = json_of(value_);
  if (!value.is_boolean()) fail("true or false");
  to = value.get<bool>();
}

void FieldReader::get(double& to) const {
  const json& value = json_of(value_);
  if (value.is_number()) {
    to = value.get<double>();
    return;
  }
  const std::string digits = hex();
  if (digits.size() != sizeof to) fail("a number");
  std::memcpy(&to, digits.data(), sizeof to);
}

void FieldReader::get(std::string& to) const {
  const json& value = json_of(value_);
  if (value.is_object()) {
    to = (*this)["hex"].hex();
    return;
  }
  if (!value.is_string()) fail("a text");
  to = value.get<std::string>();
}

void FieldReader::bytes(const char* name, std::string& value) { value = (*this)[name].hex(); }

void FieldReader::fail(const char* expected) const { throw InputError(name_ + " is not " + expected); }

}  // namespace hesspect
