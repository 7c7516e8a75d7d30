// Digests of a run's files: shared out by size, the same whoever hashes them, and not lost where a file is.
#include "hesspect/run/sources.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <numeric>
#include <string>

#include "hesspect/comm/agree.h"
#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/core/errors.h"

namespace hesspect::sources_test {
namespace {

namespace fs = std::filesystem;

// By sha256sum of coreutils: of "abc", and of no byte.
constexpr const char* kAbc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr const char* kEmpty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

TEST(HashingRanks, LoadsAreEven) {
  const std::vector<std::int64_t> bytes{1, 9, 3, 7, 5, 5, 0};
  const std::vector<int> of_file = hashing_ranks(bytes, 3);
  std::vector<std::int64_t> load(3, 0);
  for (std::size_t i = 0; i < bytes.size(); ++i) load.at(static_cast<std::size_t>(of_file[i])) += bytes[i];
  EXPECT_EQ(std::accumulate(load.begin(), load.end(), std::int64_t{0}), 30);
  EXPECT_EQ(load, (std::vector<std::int64_t>{10, 10, 10}));
  EXPECT_EQ(hashing_ranks({0, 0, 0}, 3), (std::vector<int>{0, 1, 2}));  // files without a byte too
  EXPECT_EQ(hashing_ranks({4, 2}, 1), (std::vector<int>{0, 0}));
}

/// A folder with files of these texts, which all ranks see.
struct Folder {
  explicit Folder(Communicator& the_world) : world(the_world) {
    path = world.broadcast_bytes((fs::temp_directory_path() / ("sources_test-" + std::to_string(::getpid()))).string());
    agree(world, [&] {
      if (world.rank() == 0) fs::create_directories(path);
    });
  }
  ~Folder() {
    world.barrier();
    std::error_code error;
    if (world.rank() == 0) fs::remove_all(path, error);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  fs::path file(const std::string& name, const std::string& text) {
    agree(world, [&] {
      if (world.rank() == 0) std::ofstream(path / name) << text;
    });
    return path / name;
  }
  Communicator& world;
  fs::path path;
};

TEST(SourceHashing, DigestsOfAllRanksComeTogether) {
  const auto world = MpiCommunicator::world();
  Folder folder(*world);
  const fs::path model = folder.file("model", "abc"), data = folder.file("data", "");
  std::vector<fs::path> weights;
  for (int i = 0; i < 7; ++i) weights.push_back(folder.file("weights" + std::to_string(i), i % 2 == 0 ? "abc" : ""));
  SourceHashing hashing(model, weights, data, *world);
  EXPECT_FALSE(hashing.is_complete());
  EXPECT_FALSE(is_hashed(hashing.sources().model.front()));  // size and time until then
  hashing.gather(*world);
  ASSERT_TRUE(hashing.is_complete());
  EXPECT_EQ(hashing.sources().model.front().sha256, kAbc);
  EXPECT_EQ(hashing.sources().data.front().sha256, kEmpty);
  ASSERT_EQ(hashing.sources().weights.size(), weights.size());
  for (std::size_t i = 0; i < weights.size(); ++i) {
    EXPECT_EQ(hashing.sources().weights[i].sha256, i % 2 == 0 ? kAbc : kEmpty) << i;
    EXPECT_EQ(hashing.sources().weights[i].path, weights[i].string());
  }
  // Each rank has a share of the nine.
  const double share = static_cast<double>(hashing.mine().size());
  EXPECT_EQ(world->sum(share), 9);
  EXPECT_GE(share, world->size() == 1 ? 9 : 2);  // by bytes, not by files
  EXPECT_EQ(hash_in_parts({data, model}, *world), (std::vector<std::string>{kEmpty, kAbc}));
}

// A rank tells what it has found as it comes; what is told twice counts once, and a file that is gone has no digest.
TEST(SourceHashing, TakesReports) {
  const auto world = MpiCommunicator::world();
  Folder folder(*world);
  const fs::path model = folder.file("model", "abc"), gone = folder.path / "gone", data = folder.file("data", "abc");
  SourceHashing hashing(model, {gone}, data, *world);
  const std::vector<FileDigest> all = hashing.of_group(*world);
  ASSERT_EQ(all.size(), 3U);
  hashing.add({all[0], all[0], all[1]});
  EXPECT_FALSE(hashing.is_complete());
  hashing.add(all);
  ASSERT_TRUE(hashing.is_complete());
  EXPECT_EQ(hashing.sources().model.front().sha256, kAbc);
  EXPECT_EQ(hashing.sources().weights.front().sha256, "");
  EXPECT_EQ(hashing.sources().data.front().sha256, kAbc);
  EXPECT_THROW(hashing.add({{3, kAbc}}), InputError);
  EXPECT_THROW(hash_in_parts({model, gone}, *world), InputError);
}

}  // namespace
}  // namespace hesspect::sources_test
