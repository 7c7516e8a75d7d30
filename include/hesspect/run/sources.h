// The digests of the files that go into a run.
#pragma once

#include <atomic>
#include <filesystem>
#include <future>
#include <vector>

#include "hesspect/io/result_file.h"

namespace hesspect {

struct Sources {
  std::vector<SourceFile> model, weights, data;
};

/// True where the digest is known.
bool is_hashed(const SourceFile& file);

/// Of all input files, in a thread of its own, because large data files take a while.
class SourceHashing {
 public:
  /// @throws what the thread threw
  SourceHashing(std::filesystem::path model, std::vector<std::filesystem::path> weights, std::filesystem::path data);
  /// Does not wait for a large file to be hashed to its end.
  ~SourceHashing() { stop_ = true; }
  SourceHashing(const SourceHashing&) = delete;
  SourceHashing& operator=(const SourceHashing&) = delete;
  const std::shared_future<Sources>& sources() const { return sources_; }
  /// Size and time of change, which stand for the digests until these are there.
  const Sources& unhashed() const { return unhashed_; }

 private:
  Sources unhashed_;
  std::atomic<bool> stop_{false};
  std::shared_future<Sources> sources_;  // its last owner waits for the thread, so it goes first
};

}  // namespace hesspect
