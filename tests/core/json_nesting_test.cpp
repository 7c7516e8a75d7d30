#include "hesspect/core/json_nesting.h"

#include <gtest/gtest.h>

#include <string>

namespace hesspect::json_nesting_test {
namespace {

TEST(JsonNesting, CountsListsAndObjects) {
  EXPECT_FALSE(json_nests_deeper("[{\"a\": [1]}, [[]]]", 3));
  EXPECT_TRUE(json_nests_deeper("[{\"a\": [1]}, [[]]]", 2));
  EXPECT_FALSE(json_nests_deeper("[],[],[],[]", 1));
  EXPECT_TRUE(json_nests_deeper(std::string(kDeepestJson + 1, '[')));
  EXPECT_FALSE(json_nests_deeper(std::string(kDeepestJson, '[')));
}

TEST(JsonNesting, BracketsWithinTextsDoNotCount) {
  EXPECT_FALSE(json_nests_deeper("[\"[[[[{{{{\\\"[[[[\"]", 1));
  EXPECT_TRUE(json_nests_deeper("[\"\\\\\", [[]]]", 2));
}

TEST(JsonNesting, AnyTextWillDo) {
  EXPECT_FALSE(json_nests_deeper("", 0));
  EXPECT_FALSE(json_nests_deeper("]]]]}}}}\"", 0));
  EXPECT_TRUE(json_nests_deeper("]]]][", 0));
  EXPECT_FALSE(json_nests_deeper("\"\\", 0));
}

}  // namespace
}  // namespace hesspect::json_nesting_test
