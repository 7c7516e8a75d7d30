#include "sources.h"

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

}  // namespace

SourceHashing::SourceHashing(fs::path model, std::vector<fs::path> weights, fs::path data)
    : sources_(std::async(std::launch::async, [this, model = std::move(model), weights = std::move(weights),
                                               data = std::move(data)] {
                 return Sources{hashed({model}, stop_), hashed(weights, stop_), hashed({data}, stop_)};
               }).share()) {}

}  // namespace hesspect
