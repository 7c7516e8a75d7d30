// When what has been begun again and again is given up.
#include "hesspect/core/start_count.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "hesspect/core/host.h"

namespace hesspect::start_count_test {
namespace {

TEST(StartCount, AGainForgetsDeaths) {
  StartCount count{.starts = 1, .deaths = 0, .kept = 0};
  count.add_death(0, false);
  EXPECT_EQ(count.deaths, 1);
  EXPECT_FALSE(count.is_enough(2));
  EXPECT_TRUE(count.is_enough(1));
  count.add_death(7, false);
  EXPECT_EQ(count.deaths, 0);
  EXPECT_EQ(count.kept, 7);
  count.add_death(7, false);
  count.add_death(3, false);  // a checkpoint that was lost
  EXPECT_EQ(count.deaths, 2);
  EXPECT_EQ(count.kept, 3);
  count.add_death(4, false);
  EXPECT_EQ(count.deaths, 0);
}

TEST(StartCount, ADeathWithItsHostIsNone) {
  StartCount count{.starts = 1, .deaths = 1, .kept = 5};
  for (int i = 0; i < 5; ++i) count.add_death(5, true);
  EXPECT_EQ(count.deaths, 1);  // nor does it forget those before
  count.add_death(6, true);
  EXPECT_EQ(count.deaths, 0);
}

TEST(StartCount, AHundredStartsAreEnough) {
  StartCount count{.starts = 99, .deaths = 0, .kept = 0};
  EXPECT_FALSE(count.is_enough(2));
  ++count.starts;
  EXPECT_TRUE(count.is_enough(2));
}

TEST(Boots, OfOneHostAndKnown) {
  EXPECT_TRUE(is_started_anew({"a", "1"}, {"a", "2"}));
  EXPECT_FALSE(is_started_anew({"a", "1"}, {"a", "1"}));
  EXPECT_FALSE(is_started_anew({"a", "1"}, {"b", "2"}));
  EXPECT_FALSE(is_started_anew({"a", ""}, {"a", "2"}));
  EXPECT_FALSE(is_started_anew({"a", "1"}, {"a", ""}));
  EXPECT_FALSE(is_started_anew({}, {"a", "2"}));
}

TEST(Boots, AreRead) {
  const auto file = std::filesystem::temp_directory_path() / ("boot_id." + std::to_string(getpid()));
  EXPECT_EQ(this_boot().id.size(), 36U);  // a UUID
  setenv("HESSPECT_BOOT_ID", file.c_str(), 1);
  EXPECT_EQ(this_boot().id, "");
  std::ofstream(file) << "another\n";
  EXPECT_EQ(this_boot().id, "another");
  EXPECT_EQ(this_boot().host, host_name());
  unsetenv("HESSPECT_BOOT_ID");
  std::filesystem::remove(file);
}

}  // namespace
}  // namespace hesspect::start_count_test
