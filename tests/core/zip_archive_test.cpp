#include "hesspect/core/zip_archive.h"

#include <gtest/gtest.h>

#include "core/input_error.h"
#include "core/mutation.h"
#include "core/temporary_folder.h"
#include "core/zip_writer.h"

namespace hesspect::zip_archive_test {
namespace {

using test::zip_of;

TEST(ZipArchive, Reads) {
  const test::TemporaryFolder folder;
  for (bool zip64 : {false, true}) {
    const ZipArchive archive(folder.write("a.zip", zip_of({{"root/x", "hello"}, {"root/empty", ""}}, zip64)));
    ASSERT_EQ(archive.entries().size(), 2U);
    EXPECT_EQ(archive.root(), "root");
    const ZipEntry* x = archive.find("root/x");
    ASSERT_NE(x, nullptr);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(x->data.data()), x->data.size()), "hello");
    EXPECT_TRUE(archive.find("root/empty")->data.empty());
    EXPECT_EQ(archive.find("x"), nullptr);
  }
}

TEST(ZipArchive, Refuses) {
  const test::TemporaryFolder folder;
  const auto error_of = [&](const std::string& bytes) {
    return test::input_error([&] { ZipArchive(folder.write("a.zip", bytes)); });
  };
  EXPECT_CONTAINS(error_of(""), "no end record");
  EXPECT_CONTAINS(error_of("PK\x03\x04 and nothing else that is of use here"), "no end record");
  EXPECT_CONTAINS(error_of(zip_of({{"a", "1"}, {"a", "2"}}, false)), "the name 'a' twice");
  std::string packed = zip_of({{"a", "1"}}, false);
  packed[packed.find("PK\x01\x02") + 10] = 8;  // deflated
  EXPECT_CONTAINS(error_of(packed), "entry 'a' is compressed");
  std::string far = zip_of({{"a", "1"}}, false);
  far[far.find("PK\x01\x02") + 44] = 0x7f;  // local header at 8 MB
  EXPECT_CONTAINS(error_of(far), "truncated?");
}

TEST(ZipArchive, Fuzz) {
  const test::TemporaryFolder folder;
  for (bool zip64 : {false, true}) {
    const std::string valid = zip_of({{"root/x", "hello"}, {"root/y", "there"}}, zip64);
    const auto attempt = [&](const std::string& bytes) {
      try {
        const ZipArchive archive(folder.write("a.zip", bytes));
        std::size_t sum = 0;
        for (const auto& entry : archive.entries()) {
          for (std::byte b : entry.data) sum += std::to_integer<std::size_t>(b);
        }
        EXPECT_LT(sum, std::size_t{1} << 40);
      } catch (const InputError&) {
      }
    };
    for (std::size_t size = 0; size < valid.size(); ++size) attempt(valid.substr(0, size));
    for (std::uint32_t i = 0; i < 4000; ++i) attempt(test::mutate(valid, i));
  }
}

}  // namespace
}  // namespace hesspect::zip_archive_test
