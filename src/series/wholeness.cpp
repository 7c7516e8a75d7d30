// Whether a checkpoint has been written to its end, by what its files say of themselves.
#include <nlohmann/json.hpp>

#include <fstream>
#include <set>
#include <sstream>

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

}  // namespace

std::string why_not_whole(const fs::path& path, const std::string& marker) {
  std::error_code error;
  const bool is_folder = fs::is_directory(path, error);
  if (!is_folder && !fs::exists(path, error)) return "it is gone";
  const fs::path mark = is_folder ? path / marker : fs::path(path.string() + marker);
  if (!marker.empty() && !fs::exists(mark, error)) return "its marker " + quote(mark.string()) + " is not there";
  const std::vector<fs::path> files = files_of_checkpoint(path);
  if (files.empty()) return "it holds no weights";
  for (const fs::path& file : files) {
    const std::string why =
        file.string().ends_with(".index.json") ? why_not_whole_index(file) : why_not_whole_file(file);
    if (!why.empty()) return why;
  }
  return "";
}

}  // namespace hesspect
