// Whether a checkpoint has been written to its end, by what its files say of themselves.
#include <nlohmann/json.hpp>

#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "hesspect/core/distributed_checkpoint.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/json_nesting.h"
#include "hesspect/core/safetensors.h"
#include "hesspect/core/text.h"
#include "hesspect/core/zip_archive.h"
#include "hesspect/series/checkpoints.h"

namespace hesspect {
namespace {

namespace fs = std::filesystem;

bool begins_as_zip(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  char start[2] = {};
  return in.read(start, 2) && start[0] == 'P' && start[1] == 'K';
}

/// PyTorch's older form, which has no end that could be looked for, is whole as far as can be told.
std::string why_not_whole_file(const fs::path& file) {
  std::error_code error;
  if (fs::file_size(file, error) == 0 || error) return error ? error.message() : "it is empty";
  try {
    if (file.extension() == ".safetensors") {
      const SafetensorsFile whole(file);
    } else if (begins_as_zip(file)) {
      const ZipArchive whole(file);
    }
  } catch (const InputError& what) {
    return what.what();
  }
  return "";
}

/// The shards that an index names.
std::string why_not_whole_index(const fs::path& index) {
  std::ifstream in(index, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  if (json_nests_deeper(text.str())) return quote(index.string()) + " nests too deep";
  const nlohmann::json json = nlohmann::json::parse(text.str(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object())
    return quote(index.string()) + " is no whole index";
  std::set<std::string> shards;
  for (const auto& shard : json["weight_map"])
    if (shard.is_string()) shards.insert(shard.get<std::string>());
  for (const std::string& shard : shards) {
    const fs::path file = index.parent_path() / shard;
    std::error_code error;
    if (!fs::exists(file, error)) return "shard " + quote(shard) + " is not there";
    if (std::string why = why_not_whole_file(file); !why.empty()) return why;
  }
  return "";
}

/// Of shards whose names count them, those that are not there: an index may be written last.
std::string why_not_whole_count(const std::vector<fs::path>& files) {
  static const std::regex form(R"((.*-)(\d{1,6})(-of-)(\d{1,6})(\..*))");
  std::set<std::string> names;
  for (const fs::path& file : files) names.insert(file.filename().string());
  for (const std::string& name : names) {
    std::smatch m;
    if (!std::regex_match(name, m, form)) continue;
    const std::string width = m[2].str(), count = m[4].str();
    for (int i = 1; i <= std::stoi(count); ++i) {
      std::string number = std::to_string(i);
      if (number.size() < width.size()) number.insert(0, width.size() - number.size(), '0');
      const std::string other = m[1].str() + number + m[3].str() + count + m[5].str();
      if (!names.contains(other)) return "shard " + quote(other) + " is not there";
    }
  }
  return "";
}

/// The files that its metadata name, as long as these say.
std::string why_not_whole_distributed(const fs::path& folder) {
  try {
    for (const auto& [name, bytes] : read_distributed_metadata(folder).files) {
      std::error_code error;
      const std::uintmax_t size = fs::file_size(folder / name, error);
      if (error) return quote(name) + " is not there";
      if (size < bytes)
        return quote(name) + " has " + std::to_string(size) + " bytes, and .metadata tells of " + std::to_string(bytes);
    }
  } catch (const InputError& what) {
    return what.what();
  }
  return "";
}

}  // namespace

std::string why_not_whole(const fs::path& path, const std::string& marker) {
  std::error_code error;
  const bool is_folder = fs::is_directory(path, error);
  if (!is_folder && !fs::exists(path, error)) return "it is gone";
  const fs::path mark = is_folder ? path / marker : fs::path(path.string() + marker);
  if (!marker.empty() && !fs::exists(mark, error)) return "its marker " + quote(mark.string()) + " is not there";
  const std::vector<fs::path> files = files_of_checkpoint(path);
  if (files.empty()) return "it holds no weights";
  if (const auto distributed = distributed_folder(path)) return why_not_whole_distributed(*distributed);
  if (is_folder)
    if (std::string why = why_not_whole_count(files); !why.empty()) return why;
  for (const fs::path& file : files) {
    const std::string why =
        file.string().ends_with(".index.json") ? why_not_whole_index(file) : why_not_whole_file(file);
    if (!why.empty()) return why;
  }
  return "";
}

}  // namespace hesspect
