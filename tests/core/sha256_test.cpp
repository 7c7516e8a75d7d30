#include "hesspect/core/sha256.h"

#include <gtest/gtest.h>

#include <atomic>

#include "core/input_error.h"
#include "core/temporary_folder.h"

namespace hesspect::sha256_test {
namespace {

// FIPS 180-2, appendix B.
TEST(Sha256, KnownAnswers) {
  EXPECT_EQ(sha256_bytes("abc", 3), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_bytes(nullptr, 0), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  const std::string million(1'000'000, 'a');
  EXPECT_EQ(sha256_bytes(million.data(), million.size()),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, Files) {
  const test::TemporaryFolder folder;
  const std::string content(3'000'001, 'x');
  EXPECT_EQ(sha256_file(folder.write("big", content)), sha256_bytes(content.data(), content.size()));
  EXPECT_EQ(sha256_file(folder.write("empty", "")), sha256_bytes(nullptr, 0));
  const std::atomic<bool> stop = true;
  EXPECT_EQ(sha256_file(folder.path() / "big", &stop), "");
  EXPECT_CONTAINS(test::input_error([&] { sha256_file(folder.path() / "none"); }), "no such file");
  EXPECT_CONTAINS(test::input_error([&] { sha256_file(folder.path()); }), "is a directory");
  EXPECT_CONTAINS(test::input_error([&] { sha256_file("/dev/null"); }), "not a regular file");
  EXPECT_CONTAINS(test::input_error([&] { sha256_file(""); }), "empty file name");
}

TEST(Sha256, UnreadableFile) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read everything";
  const test::TemporaryFolder folder;
  const auto path = folder.write("secret", "x");
  std::filesystem::permissions(path, std::filesystem::perms::none);
  EXPECT_CONTAINS(test::input_error([&] { sha256_file(path); }), "permission denied");
}

}  // namespace
}  // namespace hesspect::sha256_test
