// The digests of the files that go into a run, hashed in parts: each file by one rank, beside its work.
//
//   SourceHashing hashing(model, weights, data, world);   // every rank's thread begins
//   …
//   if (hashing.is_done()) report(hashing.mine());        // what a rank has found is told to rank 0 as it comes,
//   hashing.gather(world);                                // or by all together at the end, who then wait for it
//   set_sources(result.process, hashing.sources());
//
// SHA-256 goes through a file from its first byte to its last: one file is one thread's work, however large it is.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <future>
#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/io/result_file.h"

namespace hesspect {

struct Sources {
  std::vector<SourceFile> model, weights, data;
};

/// True where the digest is known.
bool is_hashed(const SourceFile& file);

/// What a rank has found of a file: its place among the run's (model, weights, data), and its digest; "" where it is
/// gone or can't be read any more.
struct FileDigest {
  std::int64_t file = 0;
  std::string sha256;
};

/// Which rank hashes each file: the largest first, each by the rank that has the least to read.
/// @param bytes  [files] @return [files]
std::vector<int> hashing_ranks(const std::vector<std::int64_t>& bytes, int ranks);

/// The digests of files that are the same on all ranks, each hashed by one of them; waits. Collective.
/// @throws InputError for one that can't be read
std::vector<std::string> hash_in_parts(const std::vector<std::filesystem::path>& files, Communicator& world);

/// On every rank, whose share is hashed in a thread of its own, because large files take a while.
class SourceHashing {
 public:
  /// Files are the same on all ranks; rank 0's sizes decide who hashes which. Collective.
  SourceHashing(std::filesystem::path model, std::vector<std::filesystem::path> weights, std::filesystem::path data,
                Communicator& world);
  /// Does not wait for a large file to be hashed to its end.
  ~SourceHashing() { stop_ = true; }
  SourceHashing(const SourceHashing&) = delete;
  SourceHashing& operator=(const SourceHashing&) = delete;

  /// The files that are hashed: model, weights, data.
  const std::vector<std::filesystem::path>& files() const { return files_; }
  /// Whether this rank's share is hashed.
  bool is_done() const;
  /// This rank's share; waits for it. @throws what the thread threw
  const std::vector<FileDigest>& mine() const { return mine_.get(); }

  // What rank 0 has heard.

  /// Takes what a rank has found. @throws InputError for a file that is none of the run's
  void add(const std::vector<FileDigest>& found);
  /// Whether all digests are here.
  bool is_complete() const { return missing_ == 0; }
  /// What the ranks of a group have found; waits for them. Collective over the group.
  std::vector<FileDigest> of_group(Communicator& group) const;
  /// Waits for all ranks' shares and tells them all to all; does nothing where that has been done. Collective.
  void gather(Communicator& world);
  /// The same where no rank has to wait. Collective.
  void gather_if_done(Communicator& world);
  /// The digests, once all are here; until then size and time of change stand for them.
  const Sources& sources() const { return is_complete() ? hashed_ : unhashed_; }
  const Sources& unhashed() const { return unhashed_; }

 private:
  SourceFile& place(std::int64_t file);

  std::vector<std::filesystem::path> files_;
  Sources unhashed_, hashed_;
  std::vector<bool> is_known_;  // of each file
  std::size_t missing_ = 0;
  bool is_gathered_ = false;  // the same on all ranks
  std::atomic<bool> stop_{false};
  std::shared_future<std::vector<FileDigest>> mine_;  // its last owner waits for the thread, so it goes first
};

}  // namespace hesspect
