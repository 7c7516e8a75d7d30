// What is a checkpoint, of which step, and whether it is whole.
#include "hesspect/series/checkpoints.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <fstream>

#include "hesspect/core/errors.h"

namespace hesspect::checkpoints_test {
namespace {

namespace fs = std::filesystem;

class Checkpoints : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("checkpoints_test." + std::to_string(getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path write(const std::string& name, const std::string& content) {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << content;
    return folder_ / name;
  }

  /// One float32 tensor "a" of two entries.
  static std::string safetensors() {
    const std::string header = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
    std::string bytes(8, '\0');
    const std::uint64_t length = header.size();
    std::memcpy(bytes.data(), &length, 8);
    return bytes + header + std::string(8, '\1');
  }

  std::vector<std::string> names(const std::vector<std::string>& patterns) {
    std::vector<std::string> found;
    for (const FoundCheckpoint& one : find_checkpoints(patterns, true)) found.push_back(one.name);
    return found;
  }

  fs::path folder_;
};

TEST_F(Checkpoints, StepsInNames) {
  EXPECT_EQ(step_of_name("checkpoint-500"), 500);
  EXPECT_EQ(step_of_name("epoch=3-step=500.ckpt"), 500);
  EXPECT_EQ(step_of_name("step=500-epoch=3.ckpt"), 500);
  EXPECT_EQ(step_of_name("model_500.safetensors"), 500);
  EXPECT_EQ(step_of_name("global_step1200"), 1200);
  EXPECT_EQ(step_of_name("llama-7b-step0500.pt"), 500);
  EXPECT_EQ(step_of_name("epoch-7.pt"), 7);
  EXPECT_EQ(step_of_name("final.pt"), -1);
}

TEST_F(Checkpoints, WhatAFolderHolds) {
  write("run/checkpoint-10/model.safetensors", safetensors());
  write("run/checkpoint-10/optimizer.pt", "x");
  write("run/checkpoint-9/model.safetensors", safetensors());
  write("run/config.json", "{}");
  EXPECT_EQ(names({(folder_ / "run").string()}), (std::vector<std::string>{"checkpoint-9", "checkpoint-10"}));
  // A folder with one set of weights is one checkpoint.
  EXPECT_EQ(names({(folder_ / "run/checkpoint-9").string()}), (std::vector<std::string>{"checkpoint-9"}));
  write("flat/model_9.safetensors", safetensors());
  write("flat/model_10.safetensors", safetensors());
  write("flat/optimizer_10.pt", "x");
  EXPECT_EQ(names({(folder_ / "flat").string()}),
            (std::vector<std::string>{"model_9.safetensors", "model_10.safetensors"}));
  EXPECT_EQ(names({(folder_ / "flat/*_1*.safetensors").string(), (folder_ / "flat").string()}),
            (std::vector<std::string>{"model_10.safetensors", "model_9.safetensors"}));
  EXPECT_THROW(find_checkpoints({(folder_ / "flat/none*").string()}, true), InputError);
  EXPECT_TRUE(find_checkpoints({(folder_ / "flat/none*").string()}, false).empty());
}

TEST_F(Checkpoints, Wholeness) {
  const std::string whole = safetensors();
  EXPECT_EQ(why_not_whole(write("a.safetensors", whole), ""), "");
  for (std::size_t bytes = 0; bytes < whole.size(); ++bytes)
    EXPECT_NE(why_not_whole(write("a.safetensors", whole.substr(0, bytes)), ""), "") << bytes;
  write("a.safetensors", whole);
  EXPECT_NE(why_not_whole(folder_ / "a.safetensors", ".done"), "");
  write("a.safetensors.done", "");
  EXPECT_EQ(why_not_whole(folder_ / "a.safetensors", ".done"), "");
  EXPECT_NE(why_not_whole(write("a.pt", std::string("PK\3\4 an archive without its end")), ""), "");

  write("sharded/model-00001-of-00002.safetensors", whole);
  // Trainers write the index last: the shards' names count them.
  EXPECT_NE(why_not_whole(folder_ / "sharded", "").find("model-00002-of-00002"), std::string::npos);
  write("sharded/model.safetensors.index.json",
        R"({"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}})");
  EXPECT_NE(why_not_whole(folder_ / "sharded", ""), "");
  write("sharded/model-00002-of-00002.safetensors", whole.substr(0, whole.size() - 1));
  EXPECT_NE(why_not_whole(folder_ / "sharded", ""), "");
  write("sharded/model-00002-of-00002.safetensors", whole);
  EXPECT_EQ(why_not_whole(folder_ / "sharded", ""), "");
}

TEST_F(Checkpoints, NamesOfWhatIsGone) {
  for (const char* name : {"checkpoint-500", "epoch=3-step=500.ckpt", "step-5.safetensors", "global_step1200", "a.pt"})
    EXPECT_TRUE(is_checkpoint_name(name)) << name;
  for (const char* name : {"optimizer.pt", ".hidden.pt", "tmp-checkpoint-5", "step-5.safetensors.tmp", "config.json"})
    EXPECT_FALSE(is_checkpoint_name(name)) << name;
}

TEST_F(Checkpoints, FingerprintsAndDigestsTellContentApart) {
  const fs::path file = write("a.safetensors", safetensors());
  const std::string print = fingerprint(file), digest = digest_of(file);
  EXPECT_EQ(fingerprint(file), print);
  write("a.safetensors", safetensors() + "x");
  EXPECT_NE(fingerprint(file), print);
  EXPECT_NE(digest_of(file), digest);
  fs::remove(file);
  EXPECT_EQ(fingerprint(file), "");
  EXPECT_THROW(digest_of(file), InputError);
}

}  // namespace
}  // namespace hesspect::checkpoints_test
