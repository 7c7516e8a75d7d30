#include "hesspect/run/sources.h"

#include "hesspect/core/errors.h"
#include "hesspect/core/sha256.h"

namespace hesspect {
namespace {

namespace fs = std::filesystem;

std::vector<SourceFile> hashed(const std::vector<fs::path>& paths, const std::atomic<bool>& stop) {
  std::vector<SourceFile> files;
  for (const auto& path : paths) {
    std::error_code error;
    const auto absolute = fs::absolute(path, error);
    files.push_back({(error ? path : absolute).string(), ""});
    try {
      files.back().sha256 = sha256_file(path, &stop);
    } catch (const InputError&) {
      // It was read before, and is gone or changed now: the run is still worth keeping. An empty digest says so.
    }
  }
  return files;
}

std::vector<SourceFile> sizes_and_times(const std::vector<fs::path>& paths) {
  std::vector<SourceFile> files;
  for (const auto& path : paths) {
    std::error_code error;
    const auto absolute = fs::absolute(path, error);
    const auto bytes = fs::file_size(path, error);
    const auto changed = fs::last_write_time(path, error).time_since_epoch().count();
    files.push_back({absolute.string(), std::to_string(bytes) + " bytes of " + std::to_string(changed)});
  }
  return files;
}

}  // namespace

bool is_hashed(const SourceFile& file) { return file.sha256.find(' ') == std::string::npos; }

SourceHashing::SourceHashing(fs::path model, std::vector<fs::path> weights, fs::path data)
    : unhashed_{sizes_and_times({model}), sizes_and_times(weights), sizes_and_times({data})},
      sources_(std::async(std::launch::async, [this, model = std::move(model), weights = std::move(weights),
                                               data = std::move(data)] {
                 return Sources{hashed({model}, stop_), hashed(weights, stop_), hashed({data}, stop_)};
               }).share()) {}

}  // namespace hesspect
