#include "hesspect/series/checkpoints.h"

#include <glob.h>
#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <map>
#include <optional>
#include <regex>
#include <set>
#include <span>

#include "hesspect/core/distributed_checkpoint.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/sha256.h"
#include "hesspect/core/text.h"

namespace hesspect {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kEndings[] = {".safetensors", ".pt", ".pth", ".ckpt", ".bin"};
/// What trainers leave beside the weights.
constexpr std::string_view kBeside[] = {"optimizer", "scheduler", "scaler", "rng_state", "training_args"};

bool is_weights_name(const std::string& name) {
  const bool ending = std::ranges::any_of(kEndings, [&](std::string_view end) { return name.ends_with(end); });
  const bool beside = std::ranges::any_of(kBeside, [&](std::string_view word) { return name.starts_with(word); });
  return ending && !beside && !name.starts_with('.');
}

bool is_shard_name(const std::string& name) {
  static const std::regex form(R"(.*-\d{1,6}-of-\d{1,6}\..*)");
  return std::regex_match(name, form);
}

/// By name, runs of digits by their value.
bool natural_less(const std::string& a, const std::string& b) {
  std::size_t i = 0, j = 0;
  const auto is_digit = [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; };
  while (i < a.size() && j < b.size()) {
    if (is_digit(a[i]) && is_digit(b[j])) {
      std::size_t m = i, n = j;
      while (m < a.size() && is_digit(a[m])) ++m;
      while (n < b.size() && is_digit(b[n])) ++n;
      std::string left = a.substr(i, m - i), right = b.substr(j, n - j);
      left.erase(0, std::min(left.find_first_not_of('0'), left.size()));
      right.erase(0, std::min(right.find_first_not_of('0'), right.size()));
      if (left.size() != right.size()) return left.size() < right.size();
      if (left != right) return left < right;
      i = m;
      j = n;
    } else {
      if (a[i] != b[j]) return a[i] < b[j];
      ++i;
      ++j;
    }
  }
  return a.size() - i < b.size() - j;
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    names.push_back(entry->path().filename().string());
  std::ranges::sort(names, natural_less);
  return names;
}

bool has_weights(const fs::path& folder) {
  return distributed_folder(folder) || std::ranges::any_of(names_in(folder), [](const std::string& name) {
           return is_weights_name(name) || name.ends_with(".index.json");
         });
}

/// The last part of a path, or the last two where that names a format alone ("model.safetensors").
std::string name_of(const fs::path& path) {
  const fs::path plain = path.has_filename() ? path : path.parent_path();
  const std::string last = plain.filename().string();
  const bool tells = std::ranges::any_of(last, [](unsigned char c) { return std::isdigit(c) != 0; });
  const std::string above = plain.parent_path().filename().string();
  return tells || above.empty() ? last : above + "/" + last;
}

double time_of(const fs::path& path) {
  double newest = 0;
  for (const fs::path& file : files_of_checkpoint(path)) {
    struct stat found {};
    if (stat(file.c_str(), &found) == 0)
      newest = std::max(newest,
                        static_cast<double>(found.st_mtim.tv_sec) + 1e-9 * static_cast<double>(found.st_mtim.tv_nsec));
  }
  return newest;
}

bool is_step_folder(const std::string& name) {
  static const std::regex form(R"((checkpoint|ckpt|global_step|step|epoch|iter)[-_=]?\d+.*)", std::regex::icase);
  return std::regex_match(name, form);
}

/// Of a folder's entries those that are checkpoints: folders named by a step or of torch.distributed.checkpoint, and
/// files of weights that are no shards. A folder with one set of weights and no such entry is a checkpoint itself.
std::vector<fs::path> in_folder(const fs::path& folder) {
  if (distributed_folder(folder)) return {folder};
  std::vector<fs::path> found, files;
  bool whole_set = false;
  std::error_code error;
  for (const std::string& name : names_in(folder)) {
    const fs::path path = folder / name;
    if (name.starts_with('.')) continue;
    if (fs::is_directory(path, error)) {
      if (is_step_folder(name) || distributed_folder(path)) found.push_back(path);
    } else if (name.ends_with(".index.json") || is_shard_name(name)) {
      whole_set = true;
    } else if (is_weights_name(name)) {
      files.push_back(path);
    }
  }
  static const std::set<std::string> usual = {"model.safetensors", "pytorch_model.bin", "adapter_model.safetensors",
                                              "adapter_model.bin"};
  const bool is_one = whole_set || (!files.empty() && std::ranges::all_of(files, [&](const fs::path& file) {
                        return usual.contains(file.filename().string());
                      }));
  if (found.empty() && is_one) return {folder};
  if (!is_one) found.insert(found.end(), files.begin(), files.end());
  return found;
}

std::vector<fs::path> matches(const std::string& pattern) {
  std::vector<fs::path> paths;
  glob_t found{};
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0)
    for (std::size_t i = 0; i < found.gl_pathc; ++i) paths.emplace_back(found.gl_pathv[i]);
  globfree(&found);
  std::ranges::sort(paths, natural_less, [](const fs::path& path) { return path.string(); });
  return paths;
}

bool is_pattern(const std::string& text) { return text.find_first_of("*?[") != std::string::npos; }

std::vector<std::string> lines_of(const fs::path& list) {
  std::ifstream in(list);
  if (!in) throw InputError("cannot read the list of checkpoints " + quote(list.string()));
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    if (line.size() > 4096 || line.find('\0') != std::string::npos)
      throw InputError(quote(list.string()) +
                       " is no list of checkpoints: expected a path a line, or a file that ends in .safetensors, .pt, "
                       ".pth, .ckpt or .bin");
    line.erase(0, std::min(line.find_first_not_of(" \t\r"), line.size()));
    line.erase(line.find_last_not_of(" \t\r") + 1);
    if (line.empty() || line.front() == '#') continue;
    const fs::path path(line);
    lines.push_back(path.is_absolute() ? line : (list.parent_path() / path).string());
  }
  return lines;
}

void add_all(const std::string& text, bool must_be, bool may_be_list, std::vector<fs::path>& found) {
  std::error_code error;
  if (fs::is_directory(text, error)) {
    const std::vector<fs::path> inside = in_folder(text);
    found.insert(found.end(), inside.begin(), inside.end());
    if (inside.empty() && must_be)
      throw InputError("--checkpoints " + quote(text) +
                       ": the folder holds no checkpoints (checkpoint-N folders, or files that end in .safetensors, "
                       ".pt, .pth, .ckpt or .bin)");
  } else if (fs::exists(text, error)) {
    if (is_weights_name(fs::path(text).filename().string()) || text.ends_with(".index.json") || !may_be_list) {
      found.emplace_back(text);
    } else {
      for (const std::string& line : lines_of(text)) add_all(line, must_be, /*may_be_list=*/false, found);
    }
  } else if (is_pattern(text)) {
    std::vector<fs::path> paths = matches(text);
    std::erase_if(paths, [&](const fs::path& path) {
      std::error_code ignored;
      return fs::is_directory(path, ignored) ? !has_weights(path) && must_be
                                             : !is_weights_name(path.filename().string());
    });
    found.insert(found.end(), paths.begin(), paths.end());
    if (paths.empty() && must_be) throw InputError("--checkpoints " + quote(text) + " matches no checkpoint");
  } else if (must_be) {
    throw InputError("--checkpoints " + quote(text) + ": no such file or folder");
  }
}

void add_folders(const std::string& text, bool may_be_list, std::vector<fs::path>& folders) {
  std::error_code error;
  if (fs::is_directory(text, error)) return folders.emplace_back(text), void();
  if (may_be_list && fs::is_regular_file(text, error) && !is_weights_name(fs::path(text).filename().string())) {
    for (const std::string& line : lines_of(text)) add_folders(line, false, folders);
    return;
  }
  // Of a pattern the folders that are there now.
  const fs::path parent = fs::path(text).parent_path();
  if (!is_pattern(parent.string())) {
    folders.push_back(parent.empty() ? fs::path(".") : parent);
  } else {
    for (const fs::path& path : matches(parent.string())) folders.push_back(path);
  }
}

/// Over its content as it is read: a mapping would end the process where the file is cut short meanwhile.
std::string digest_of_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  Sha256Stream stream;
  std::vector<char> block(std::size_t{1} << 20);
  while (in && !in.eof()) {
    in.read(block.data(), static_cast<std::streamsize>(block.size()));
    stream.update(std::as_bytes(std::span(block.data(), static_cast<std::size_t>(in.gcount()))));
  }
  if (!in.eof()) throw InputError(quote(path.string()) + " can't be read");
  return stream.digest();
}

}  // namespace

bool is_checkpoint_name(const std::string& name) {
  return is_weights_name(name) || (is_step_folder(name) && fs::path(name).extension() != ".tmp");
}

std::vector<std::string> single_patterns(const std::vector<std::string>& patterns) {
  std::vector<std::string> single;
  for (const std::string& pattern : patterns) {
    std::error_code error;
    if (fs::is_regular_file(pattern, error) && !is_weights_name(fs::path(pattern).filename().string()) &&
        !pattern.ends_with(".index.json")) {
      const std::vector<std::string> lines = lines_of(pattern);
      single.insert(single.end(), lines.begin(), lines.end());
    } else {
      single.push_back(pattern);
    }
  }
  return single;
}

std::int64_t step_of_name(const std::string& name) {
  static const std::regex numbers(R"(([A-Za-z]*)[-_=. ]?(\d+))");
  std::int64_t of_step = -1, of_word = -1, of_other = -1, of_epoch = -1;
  for (std::sregex_iterator one(name.begin(), name.end(), numbers), end; one != end; ++one) {
    std::string word = (*one)[1].str();
    const std::string digits = (*one)[2].str();
    if (digits.size() > 18) continue;
    std::ranges::transform(word, word.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const std::int64_t number = std::stoll(digits);
    if (word.ends_with("step") || word.ends_with("steps")) {
      of_step = number;
    } else if (word.ends_with("checkpoint") || word.ends_with("ckpt") || word.starts_with("iter") ||
               word.ends_with("model")) {
      of_word = number;
    } else if (word.ends_with("epoch")) {
      of_epoch = number;
    } else {
      of_other = number;
    }
  }
  for (const std::int64_t step : {of_step, of_word, of_other, of_epoch})
    if (step >= 0) return step;
  return -1;
}

std::string result_stem(const std::string& name) {
  std::string stem = name;
  std::ranges::replace(stem, '/', '-');
  for (const std::string_view ending : {".safetensors.index.json", ".safetensors", ".pt", ".pth", ".ckpt", ".bin"})
    if (stem.ends_with(ending)) {
      stem.resize(stem.size() - ending.size());
      break;
    }
  return stem;
}

std::vector<FoundCheckpoint> find_checkpoints(const std::vector<std::string>& patterns, bool must_be) {
  std::vector<fs::path> paths;
  for (const std::string& pattern : patterns) add_all(pattern, must_be, /*may_be_list=*/true, paths);
  std::vector<FoundCheckpoint> found;
  std::set<std::string> known;
  for (const fs::path& path : paths) {
    if (!known.insert(path.lexically_normal().string()).second) continue;
    FoundCheckpoint one{path.lexically_normal(), "", -1, 0};
    one.name = name_of(one.path);
    const fs::path plain = one.path.has_filename() ? one.path : one.path.parent_path();
    one.step = step_of_name(plain.filename().string());
    if (one.step < 0) one.step = step_of_name(one.name);
    one.time = time_of(one.path);
    found.push_back(std::move(one));
  }
  return found;
}

std::vector<fs::path> watched_folders(const std::vector<std::string>& patterns) {
  std::vector<fs::path> folders;
  for (const std::string& pattern : patterns) add_folders(pattern, /*may_be_list=*/true, folders);
  std::ranges::sort(folders);
  folders.erase(std::unique(folders.begin(), folders.end()), folders.end());
  return folders;
}

std::vector<fs::path> files_of_checkpoint(const fs::path& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return fs::exists(path, error) ? std::vector{path} : std::vector<fs::path>();
  std::vector<fs::path> files;
  const std::optional<fs::path> distributed = distributed_folder(path);
  for (const std::string& name : names_in(distributed.value_or(path)))
    if (distributed ? name == ".metadata" || name.ends_with(".distcp")
                    : is_weights_name(name) || name.ends_with(".index.json"))
      files.push_back(distributed.value_or(path) / name);
  return files;
}

std::string fingerprint(const fs::path& path) {
  std::string text;
  for (const fs::path& file : files_of_checkpoint(path)) {
    struct stat found {};
    if (stat(file.c_str(), &found) != 0) continue;
    text += file.filename().string() + " " + std::to_string(found.st_size) + " " + std::to_string(found.st_ino) + " " +
            std::to_string(found.st_mtim.tv_sec) + "." + std::to_string(found.st_mtim.tv_nsec) + " " +
            std::to_string(found.st_ctim.tv_sec) + "." + std::to_string(found.st_ctim.tv_nsec) + "; ";
  }
  return text;
}

std::string digest_of(const fs::path& path) {
  const std::vector<fs::path> files = files_of_checkpoint(path);
  if (files.empty()) throw InputError(quote(path.string()) + " is gone");
  std::error_code error;
  if (!fs::is_directory(path, error)) return digest_of_file(path);
  std::string text;
  for (const fs::path& file : files) text += file.filename().string() + " " + digest_of_file(file) + "\n";
  return sha256_bytes(text.data(), text.size());
}

}  // namespace hesspect
