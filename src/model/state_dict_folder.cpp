// What lies in a folder of weights, as save_pretrained and trainers leave it.
#include <algorithm>
#include <array>
#include <optional>
#include <regex>
#include <system_error>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "state_dict_formats.h"

namespace hesspect {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

// What trainers leave beside the weights.
constexpr std::array<std::string_view, 6> kBeside{"optimizer", "scheduler",     "scaler",
                                                  "rng_state", "training_args", "trainer_state"};

Names files_of(const fs::path& folder) {
  Names names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    if (entry->is_regular_file()) names.push_back(entry->path().filename().string());
  if (error) throw InputError(quote(folder.string()) + " cannot be listed: " + error.message());
  std::sort(names.begin(), names.end());
  return names;
}

/// What "model-00002-of-00003.safetensors" says: the set "model-of-00003.safetensors", and 2 of 3.
struct Shard {
  std::string set;
  int number = 0;
  int count = 0;
};
std::optional<Shard> shard_of(const std::string& name) {
  static const std::regex form(R"((.*)-(\d{1,6})-of-(\d{1,6})(\..*))");
  std::smatch m;
  if (!std::regex_match(name, m, form)) return std::nullopt;
  return Shard{m[1].str() + "-of-" + m[3].str() + m[4].str(), std::stoi(m[2].str()), std::stoi(m[3].str())};
}

/// All shards of one set, in order of number as they are in order of name.
bool is_whole_set(const Names& names) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto shard = shard_of(names[i]);
    if (!shard || shard->set != shard_of(names[0])->set || shard->number != static_cast<int>(i) + 1 ||
        shard->count != static_cast<int>(names.size()))
      return false;
  }
  return !names.empty();
}

/// The index, the one file or the whole set of shards among files of one kind; none where it is not clear which.
/// @param usual  a file of this name beside an index is another set
Names choose(const Names& indexes, const Names& files, const std::string& usual) {
  const bool has_usual = std::find(files.begin(), files.end(), usual) != files.end();
  if (indexes.size() == 1 && !has_usual) return indexes;
  if (!indexes.empty()) return {};
  const bool one = files.size() == 1 && !shard_of(files.front());
  return one || is_whole_set(files) ? files : Names();
}

}  // namespace

std::vector<fs::path> weights_in_folder(const fs::path& folder) {
  Names safetensors, safetensors_indexes, pickles, pickle_indexes;
  for (const std::string& name : files_of(folder)) {
    const bool beside = std::any_of(kBeside.begin(), kBeside.end(), [&](auto word) { return name.starts_with(word); });
    if (name.ends_with(".safetensors.index.json")) {
      safetensors_indexes.push_back(name);
    } else if (name.ends_with(".bin.index.json")) {
      pickle_indexes.push_back(name);
    } else if (name.ends_with(".safetensors")) {
      safetensors.push_back(name);
    } else if (!beside &&
               (name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".pth") || name.ends_with(".ckpt"))) {
      pickles.push_back(name);
    }
  }
  Names all = safetensors_indexes;
  for (const Names* more : {&safetensors, &pickle_indexes, &pickles}) all.insert(all.end(), more->begin(), more->end());
  if (all.empty()) throw InputError(quote(folder.string()) + " is a folder without weights (.safetensors, .bin, .pt)");
  // Where both are there, they are two forms of the same, and safetensors the newer one.
  const bool newer = !safetensors.empty() || !safetensors_indexes.empty();
  const Names chosen = newer ? choose(safetensors_indexes, safetensors, "model.safetensors")
                             : choose(pickle_indexes, pickles, "pytorch_model.bin");
  if (chosen.empty())
    throw InputError(quote(folder.string()) + " holds more than one set of weights, or a part of one: " +
                     format_names(all) + "; name the file or index that is meant");
  std::vector<fs::path> paths;
  for (const std::string& name : chosen) paths.push_back(folder / name);
  return paths;
}

}  // namespace hesspect
