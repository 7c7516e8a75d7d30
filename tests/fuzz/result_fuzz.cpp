// Result files: what the reader makes of their values, and the page that `inspect` prints of them. HDF5 is left out,
// for its library has faults of its own with damaged files (hdf5_fuzz.cpp has the sound ones, hesspect-hdf5-probe the
// rest): the input is a JSON object of values by dataset name, and hdf5::ReadFile reads that here.
#include <cmath>
#include <nlohmann/json.hpp>

#include "../../src/io/hdf5_tree.h"
#include "harness.h"
#include "hesspect/core/json_nesting.h"
#include "hesspect/io/result_file.h"
#include "hesspect/report/text.h"
#include "json_mutator.h"

using nlohmann::json;

namespace {

json input;

}  // namespace

namespace hesspect::hdf5 {

namespace {

/// What HDF5 would give as a whole array: JSON has no NaN, so null stands for it.
template <class T>
std::vector<T> array_of(const json& value) {
  std::vector<T> all;
  const auto add = [&](const json& item) {
    if constexpr (std::is_same_v<T, double>)
      all.push_back(item.is_number() ? item.get<double>() : item == "Infinity" ? HUGE_VAL : std::nan(""));
    else if (item.is_number_integer())
      all.push_back(item.get<T>());
    else
      throw InputError("has another type than expected");
  };
  if (!value.is_array()) {
    add(value);
    return all;
  }
  for (const json& row : value) {
    if (!row.is_array())
      add(row);
    else
      for (const json& item : row) add(item);
  }
  return all;
}

}  // namespace

ReadFile::ReadFile(const std::filesystem::path& path) : path_(path) {}

void ReadFile::fail(const std::string& name, const std::string& why) const {
  throw InputError("'" + path_.string() + "': " + name + " " + why);
}

bool ReadFile::has(const std::string& name) const {
  if (input.contains(name)) return true;
  const std::string group = name + "/";
  const auto after = input.get_ref<const json::object_t&>().lower_bound(group);
  return after != input.get_ref<const json::object_t&>().end() && after->first.starts_with(group);
}

std::optional<std::int64_t> ReadFile::root_attribute(const std::string& name) const {
  if (!input.contains(name) || !input[name].is_number_integer()) return std::nullopt;
  return input[name].get<std::int64_t>();
}

template <>
std::vector<double> ReadFile::values(const std::string& name) const {
  if (!input.contains(name)) fail(name, "is missing");
  return array_of<double>(input[name]);
}

template <>
std::vector<std::int64_t> ReadFile::values(const std::string& name) const {
  if (!input.contains(name)) fail(name, "is missing");
  return array_of<std::int64_t>(input[name]);
}

template <>
std::vector<std::uint64_t> ReadFile::values(const std::string& name) const {
  const auto all = values<std::int64_t>(name);
  return {all.begin(), all.end()};
}

template <>
std::vector<bool> ReadFile::values(const std::string& name) const {
  const auto all = values<std::int64_t>(name);
  return {all.begin(), all.end()};
}

template <>
std::vector<std::string> ReadFile::values(const std::string& name) const {
  if (!input.contains(name)) fail(name, "is missing");
  const json& value = input[name];
  if (value.is_string()) return {value.get<std::string>()};
  std::vector<std::string> texts;
  for (const json& item : value) {
    if (!item.is_string()) fail(name, "has another type than expected");
    texts.push_back(item.get<std::string>());
  }
  return texts;
}

std::vector<hsize_t> ReadFile::dims(const std::string& name) const {
  if (!input.contains(name)) fail(name, "is missing");
  const json& value = input[name];
  if (!value.is_array()) return {};
  if (value.empty() || !value[0].is_array()) return {value.size()};
  for (const json& row : value)
    if (!row.is_array() || row.size() != value[0].size()) fail(name, "has no shape");
  return {value.size(), value[0].size()};
}

}  // namespace hesspect::hdf5

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = hesspect::fuzz::text_of(data, size);
  if (hesspect::json_nests_deeper(text)) return 0;
  input = json::parse(text, nullptr, false);
  if (!input.is_object()) return 0;
  hesspect::fuzz::reads([] {
    const hesspect::RunResult result = hesspect::read_result("fuzz.h5");
    (void)hesspect::page(result);
  });
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  return hesspect::fuzz::mutate_json_input(data, size, max_size, seed);
}
