// Which tests a program runs: several files' tests are linked into one program, and each ctest entry names its own.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <set>
#include <string>

namespace hesspect::test {

/// Leaves only the tests of the files that are named, without `.cpp`, and of these what --gtest_filter leaves. All
/// files where none is named.
/// @param argc, argv  what InitGoogleTest has left of them
/// @return false, having said so, where a file has no tests: its entry would pass without running any
inline bool choose_files(int argc, char** argv) {
  const std::set<std::string> chosen(argv + 1, argv + argc);
  if (chosen.empty()) return true;
  std::set<std::string> missing = chosen;
  std::string others;
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  for (int s = 0; s < all.total_test_suite_count(); ++s) {
    const testing::TestSuite& suite = *all.GetTestSuite(s);
    for (int t = 0; t < suite.total_test_count(); ++t) {
      const testing::TestInfo& info = *suite.GetTestInfo(t);
      const std::string file = std::filesystem::path(info.file()).stem().string();
      missing.erase(file);
      if (!chosen.contains(file)) others += std::string(":") + suite.name() + "." + info.name();
    }
  }
  for (const std::string& file : missing) std::fprintf(stderr, "there are no tests of %s.cpp here\n", file.c_str());
  std::string& filter = testing::GTEST_FLAG(filter);
  if (!others.empty()) filter += (filter.find('-') == std::string::npos ? "-" : ":") + others.substr(1);
  return missing.empty();
}

}  // namespace hesspect::test
