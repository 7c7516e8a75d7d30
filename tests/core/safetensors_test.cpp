#include "hesspect/core/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>

#include "core/input_error.h"
#include "core/mutation.h"
#include "core/temporary_folder.h"

namespace hesspect::safetensors_test {
namespace {

std::string file_of(const std::string& header, const std::string& data, std::uint64_t length) {
  std::string bytes(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(length >> (8 * i));
  return bytes + header + data;
}
std::string file_of(const std::string& header, const std::string& data) { return file_of(header, data, header.size()); }

class Safetensors : public ::testing::Test {
 protected:
  SafetensorsFile read(const std::string& bytes) const {
    return SafetensorsFile(folder_.write("t.safetensors", bytes));
  }
  std::string error_of(const std::string& bytes) const {
    const std::string message = test::input_error([&] { read(bytes); });
    EXPECT_CONTAINS(message, "t.safetensors");
    return message;
  }
  test::TemporaryFolder folder_;
};

const std::string kTwo =
    R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},)"
    R"("a":{"dtype":"I8","shape":[2,2],"data_offsets":[0,4]},"none":{"dtype":"F64","shape":[0,9],"data_offsets":[12,12]},)"
    R"("one":{"shape":[],"dtype":"BF16","data_offsets":[12,14]}}   )";

TEST_F(Safetensors, ReadsInHeaderOrder) {
  std::string data(14, '\0');
  const std::array<float, 2> b{1.5F, -2};
  std::memcpy(data.data() + 4, b.data(), 8);
  data[3] = 7;
  const auto file = read(file_of(kTwo, data));
  ASSERT_EQ(file.entries().size(), 4U);
  EXPECT_EQ(file.entries()[0].name, "b");
  EXPECT_EQ(file.entries()[1].shape, (std::vector<std::int64_t>{2, 2}));
  EXPECT_EQ(file.entries()[2].bytes, 0U);
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(std::memcmp(file.find("b")->data, b.data(), 8), 0);
  EXPECT_EQ(file.find("a")->data[3], std::byte{7});
  EXPECT_EQ(file.find("one")->type, ElementType::kBF16);
  EXPECT_EQ(file.find("c"), nullptr);
  EXPECT_EQ(file.find("__metadata__"), nullptr);
}

TEST_F(Safetensors, NoTensorsAtAll) { EXPECT_TRUE(read(file_of("{}", "")).entries().empty()); }

TEST_F(Safetensors, HeaderLength) {
  EXPECT_CONTAINS(error_of(""), "0 bytes");
  EXPECT_CONTAINS(error_of("1234567"), "7 bytes");
  EXPECT_CONTAINS(error_of(file_of("{}", "", 3)), "would be 3 bytes long, but only 2");
  EXPECT_CONTAINS(error_of(file_of("{}", "", std::uint64_t{1} << 63)), "would be 9223372036854775808 bytes long");
  EXPECT_CONTAINS(error_of(file_of("{}", "", ~std::uint64_t{0})), "18446744073709551615");
  EXPECT_CONTAINS(error_of(file_of("{}", "", 0)), "not valid JSON");
}

TEST_F(Safetensors, HeaderText) {
  EXPECT_CONTAINS(error_of(file_of("{\"a\"", "")), "not valid JSON");
  EXPECT_CONTAINS(error_of(file_of("{} x", "")), "not valid JSON");
  EXPECT_CONTAINS(error_of(file_of("[]", "")), "unexpected a list");
  EXPECT_CONTAINS(error_of(file_of("7", "")), "unexpected a number");
  EXPECT_CONTAINS(error_of(file_of(R"({"a":1})", "")), "under the name 'a'");
  EXPECT_CONTAINS(error_of(file_of(R"({"a":{"dtype":"F32","shape":[1]}})", "")), "lacks 'data_offsets'");
  EXPECT_CONTAINS(error_of(file_of(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", "1234")), "negative");
  EXPECT_CONTAINS(error_of(file_of(R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", "1234")),
                  "not whole");
  EXPECT_CONTAINS(error_of(file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", "1234")),
                  "unknown key 'x' in tensor 'a'");
  EXPECT_CONTAINS(error_of(file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", "1234")),
                  "1 data offsets");
  EXPECT_CONTAINS(error_of(file_of(R"({"__metadata__":{"a":["b"]}})", "")), "in '__metadata__'");
  EXPECT_CONTAINS(error_of(file_of(R"({"a\u0000\n":{}})", "")), R"('a\x00\n')");
}

TEST_F(Safetensors, DeepNestingCostsNoStack) {
  for (const char* open : {"[", "{\"a\":"}) {
    std::string deep;
    for (int i = 0; i < 1'000'000; ++i) deep += open;
    EXPECT_CONTAINS(error_of(file_of(deep, "")), "not a sound safetensors file");
    EXPECT_CONTAINS(error_of(file_of("{\"a\":{\"shape\":" + deep, "")), "not a sound safetensors file");
  }
}

TEST_F(Safetensors, DuplicateNames) {
  const std::string a = R"("a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]})";
  EXPECT_CONTAINS(error_of(file_of("{" + a + "," + a + "}", "1")), "the name 'a' stands twice");
  EXPECT_CONTAINS(error_of(file_of(R"({"a":{"dtype":"I8","dtype":"I8"}})", "")), "the key 'dtype' stands twice");
}

std::string one_tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"w":{"dtype":")" + dtype + R"(","shape":[)" + shape + R"(],"data_offsets":[)" + offsets + "]}}";
}

TEST_F(Safetensors, Bounds) {
  EXPECT_CONTAINS(error_of(file_of(one_tensor("F8_E5M2", "4", "0,4"), "1234")), "dtype 'F8_E5M2'");
  EXPECT_CONTAINS(error_of(file_of(one_tensor("F32", "2", "0,8"), "1234")), "offsets 0 to 8, outside the 4 bytes");
  EXPECT_CONTAINS(error_of(file_of(one_tensor("F32", "1", "4,0"), "1234")), "offsets 4 to 0");
  EXPECT_CONTAINS(error_of(file_of(one_tensor("F32", "1", "0,18446744073709551615"), "1234")), "outside the 4 bytes");
  EXPECT_CONTAINS(error_of(file_of(one_tensor("F32", "2", "0,4"), "1234")),
                  "needs 8 bytes, but its data offsets span 4");
  // 2^31 · 2^31 · 4 = 2^64: a product that wraps to 0 would pass as an empty tensor.
  EXPECT_CONTAINS(error_of(file_of(one_tensor("F32", "2147483648,2147483648", "0,0"), "")), "overflows");
  EXPECT_CONTAINS(error_of(file_of(one_tensor("F32", "0,18446744073709551615", "0,0"), "")), "overflows");
  EXPECT_CONTAINS(error_of(file_of(one_tensor("I8", "99999999999999999999999", "0,0"), "")), "not whole");
}

TEST_F(Safetensors, OverlapsAndHoles) {
  const auto two = [](const std::string& a, const std::string& b) {
    return R"({"a":{"dtype":"I8","shape":[4],"data_offsets":[)" + a +
           R"(]},"b":{"dtype":"I8","shape":[4],"data_offsets":[)" + b + "]}}";
  };
  EXPECT_EQ(read(file_of(two("4,8", "0,4"), "12345678")).entries().size(), 2U);
  EXPECT_CONTAINS(error_of(file_of(two("0,4", "2,6"), "123456")), "tensors 'a' and 'b' overlap");
  EXPECT_CONTAINS(error_of(file_of(two("0,4", "0,4"), "1234")), "overlap");
  EXPECT_CONTAINS(error_of(file_of(two("0,4", "5,9"), "123456789")), "data bytes 4 to 5, before tensor 'b'");
  EXPECT_CONTAINS(error_of(file_of(two("1,5", "5,9"), "123456789")), "data bytes 0 to 1");
  EXPECT_CONTAINS(error_of(file_of(two("0,4", "4,8"), "123456789")), "last 1 data bytes");
}

TEST_F(Safetensors, FilesThatAreNone) {
  EXPECT_CONTAINS(test::input_error([&] { SafetensorsFile(folder_.path() / "none.safetensors"); }), "no such file");
  EXPECT_CONTAINS(test::input_error([&] { SafetensorsFile{folder_.path()}; }), "is a directory");
}

// Every truncation and some thousands of mutations end in success or an InputError.
TEST_F(Safetensors, Fuzz) {
  const std::string valid = file_of(kTwo, std::string(14, 'x'));
  int read_well = 0;
  const auto attempt = [&](const std::string& bytes) {
    try {
      const auto file = read(bytes);
      std::size_t sum = 0;
      for (const auto& entry : file.entries()) {
        for (std::size_t i = 0; i < entry.bytes; ++i) sum += std::to_integer<std::size_t>(entry.data[i]);
      }
      read_well += sum < ~std::size_t{0} ? 1 : 0;
    } catch (const InputError& error) {
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    }
  };
  for (std::size_t size = 0; size < valid.size(); ++size) attempt(valid.substr(0, size));
  EXPECT_EQ(read_well, 0);
  for (std::uint32_t i = 0; i < 5000; ++i) attempt(test::mutate(valid, i));
  EXPECT_GT(read_well, 0);  // changed data bytes or names
}

}  // namespace
}  // namespace hesspect::safetensors_test
