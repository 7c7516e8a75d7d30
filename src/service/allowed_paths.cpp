#include "hesspect/service/allowed_paths.h"

#include <algorithm>
#include <system_error>

#include "hesspect/config/job_options.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"

namespace hesspect {
namespace {

namespace fs = std::filesystem;

bool is_inside(const fs::path& path, const fs::path& folder) {
  const auto [at, rest] = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  return at == folder.end();
}

}  // namespace

AllowedPaths::AllowedPaths(const std::vector<std::string>& allow, const Spool& spool) {
  std::error_code error;
  for (const std::string& folder : allow) {
    folders_.push_back(fs::canonical(folder, error));
    if (!error && !fs::is_directory(folders_.back(), error)) error = std::make_error_code(std::errc::not_a_directory);
    if (error) throw InputError("--allow " + quote(folder) + ": " + error.message());
  }
  if (allow.empty()) folders_ = {spool.folder(), fs::current_path()};
  for (const std::string& sub : Spool::sub_folders()) own_.push_back(spool.path(sub));
}

void AllowedPaths::require_inside(const std::string& option, const std::string& path, const fs::path& resolved) const {
  for (const fs::path& folder : folders_)
    if (is_inside(resolved, folder)) return;
  std::vector<std::string> names;
  for (const fs::path& folder : folders_) names.push_back(folder.string());
  throw UsageError("--" + option + " " + quote(path) +
                   " lies outside what this service may use: " + format_names(names) + " (serve --allow FOLDER)");
}

std::string AllowedPaths::input(const std::string& option, const std::string& path) const {
  std::error_code error;
  const fs::path resolved = fs::canonical(path, error);
  // Whether a file is there is not said of places that jobs may not look at.
  require_inside(option, path, error ? fs::weakly_canonical(path, error) : resolved);
  if (resolved.empty()) throw InputError("--" + option + " " + quote(path) + ": no such file");
  return resolved.string();
}

std::string AllowedPaths::output(const std::string& option, const std::string& path) const {
  std::error_code error;
  const fs::path full = fs::absolute(path, error);
  const fs::path folder = fs::canonical(full.parent_path(), error);
  const std::string what = "--" + option + " " + quote(path);
  if (error) {
    require_inside(option, path, fs::weakly_canonical(full, error));
    throw InputError(what + ": the folder " + quote(full.parent_path().string()) + " does not exist");
  }
  const fs::path resolved = folder / full.filename();
  require_inside(option, path, resolved);
  if (!full.has_filename() || full.filename() == "." || full.filename() == "..")
    throw UsageError(what + " names no file");
  if (fs::is_symlink(fs::symlink_status(resolved, error)))
    throw UsageError(what + " is a symbolic link: a job's output is a file of its own");
  for (const fs::path& own : own_)
    if (is_inside(resolved, own))
      throw UsageError(what + " lies in a folder of the spool's own, " + quote(own.string()) +
                       ": leave --output out, and the result is done/ID.h5");
  return resolved.string();
}

void AllowedPaths::confine(RunConfig& config) const {
  for_each_input(config, [&](const std::string& option, std::string& path) { path = input(option, path); });
  for_each_output(config, [&](const std::string& option, std::string& path) { path = output(option, path); });
}

}  // namespace hesspect
