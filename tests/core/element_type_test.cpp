#include "hesspect/core/element_type.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace hesspect::element_type_test {
namespace {

TEST(ElementTypes, SizesAndNames) {
  EXPECT_EQ(element_size(ElementType::kBool), 1U);
  EXPECT_EQ(element_size(ElementType::kBF16), 2U);
  EXPECT_EQ(element_size(ElementType::kI32), 4U);
  EXPECT_EQ(element_size(ElementType::kF64), 8U);
  EXPECT_EQ(to_string(ElementType::kBF16), "bfloat16");
  EXPECT_EQ(to_string(ElementType::kI64), "int64");
  EXPECT_TRUE(is_floating(ElementType::kF16));
  EXPECT_FALSE(is_floating(ElementType::kI8));
  EXPECT_EQ(element_from_safetensors("BF16"), ElementType::kBF16);
  EXPECT_EQ(element_from_safetensors("C64"), ElementType::kC64);
  EXPECT_EQ(element_size(ElementType::kC128), 16U);
  EXPECT_TRUE(is_complex(ElementType::kC64) && !is_floating(ElementType::kC64) && !is_complex(ElementType::kF32));
  EXPECT_EQ(element_from_safetensors("F8_E4M3"), std::nullopt);
}

template <class Value>
void check_search(ElementType type, Value bad) {
  for (std::int64_t count : {1, 1023, 1024, 1025, 5000}) {
    std::vector<Value> values(static_cast<std::size_t>(count), std::numeric_limits<Value>::lowest());
    EXPECT_EQ(first_non_finite(type, values.data(), count), std::nullopt);
    values.back() = bad;
    EXPECT_EQ(first_non_finite(type, values.data(), count), count - 1);
    // Files need not align their data.
    std::vector<char> shifted(values.size() * sizeof(Value) + 1);
    std::memcpy(shifted.data() + 1, values.data(), values.size() * sizeof(Value));
    EXPECT_EQ(first_non_finite(type, shifted.data() + 1, count), count - 1);
  }
}

TEST(ElementTypes, FirstNonFinite) {
  check_search<double>(ElementType::kF64, std::nan(""));
  check_search<double>(ElementType::kF64, -std::numeric_limits<double>::infinity());
  check_search<float>(ElementType::kF32, std::nanf(""));
  check_search<float>(ElementType::kF32, std::numeric_limits<float>::infinity());
}

TEST(ElementTypes, FirstNonFiniteOfHalves) {
  std::vector<std::uint16_t> half{0x7bff, 0x0001, 0xfc00};  // largest, smallest, -inf
  EXPECT_EQ(first_non_finite(ElementType::kF16, half.data(), 3), 2);
  EXPECT_EQ(first_non_finite(ElementType::kF16, half.data(), 2), std::nullopt);
  std::vector<std::uint16_t> brain{0x7f7f, 0x7c00, 0x7fc0};  // largest, a number, NaN
  EXPECT_EQ(first_non_finite(ElementType::kBF16, brain.data(), 3), 2);
  std::vector<float> complex{1, 2, 3, 4, 5, INFINITY};  // three numbers
  EXPECT_EQ(first_non_finite(ElementType::kC64, complex.data(), 3), 2);
  EXPECT_EQ(first_non_finite(ElementType::kC64, complex.data(), 2), std::nullopt);
  const std::int64_t all_ones = -1;
  EXPECT_EQ(first_non_finite(ElementType::kI64, &all_ones, 1), std::nullopt);
}

}  // namespace
}  // namespace hesspect::element_type_test
