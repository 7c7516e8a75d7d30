#include "hesspect/core/log.h"

#include <gtest/gtest.h>

#include "core/input_error.h"

namespace hesspect::log_test {
namespace {

template <class Action>
std::string stderr_of(Action&& action) {
  ::testing::internal::CaptureStderr();
  action();
  set_log_level(LogLevel::kInfo);
  return ::testing::internal::GetCapturedStderr();
}

TEST(Log, LevelsAndPrefixes) {
  const auto say_all = [] {
    log_debug("a");
    log_info("b");
    log_warning("c");
    log_error("d");
  };
  EXPECT_EQ(stderr_of(say_all), "hesspect: b\nhesspect: warning: c\nhesspect: error: d\n");
  EXPECT_EQ(stderr_of([&] {
              set_log_level(LogLevel::kDebug);
              say_all();
            }),
            "hesspect: debug: a\nhesspect: b\nhesspect: warning: c\nhesspect: error: d\n");
  EXPECT_EQ(stderr_of([&] {
              set_log_level(LogLevel::kQuiet);
              say_all();
            }),
            "hesspect: error: d\n");
}

TEST(Log, AMessageIsOneLineWhateverItHolds) {
  EXPECT_EQ(stderr_of([] { log_error("bad name 'a\nb\x1b[31m' {} %v"); }),
            "hesspect: error: bad name 'a\\nb\\x1b[31m' {} %v\n");
}

TEST(Log, ProgressText) {
  EXPECT_EQ(format_progress("lanczos", 12, 80, 80, 6), "lanczos: 12/80 products, 15%, 2.0/s, 34.0 s left");
  EXPECT_EQ(format_progress("lanczos", 2, 80, 80, 240), "lanczos: 2/80 products, 2%, 2m00s each, 2h36m left");
  EXPECT_EQ(format_progress("lanczos", 0, 80, 80, 1), "lanczos: 0/80 products, 0%");
  EXPECT_EQ(format_progress("lanczos", 4, 0, 0, 2), "lanczos: 4 products, 2.0/s");
  EXPECT_EQ(format_progress("lanczos", 12, 80, 190, 6),
            "lanczos: 12 of 80 to 190 products, 2.0/s, 34.0 s to 1m29s left");
  EXPECT_EQ(format_progress("lanczos", 80, 80, 190, 40),
            "lanczos: 80 of at most 190 products, 2.0/s, at most 55.0 s left");
  EXPECT_EQ(format_progress("lanczos", 90, 80, 80, 90), "lanczos: 90/80 products, 100%, 1.0/s, 0.0 s left");
}

// Not on a terminal here: no line within the first 30 s, one at the end.
TEST(Log, ProgressOffATerminal) {
  const std::string text = stderr_of([] {
    Progress progress("probe 0", 3);
    for (int i = 1; i <= 3; ++i) progress.update(i);
    progress.finish();
    progress.finish();
  });
  EXPECT_CONTAINS(text, "hesspect: probe 0: 3 products in ");
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
  EXPECT_EQ(text.find('\r'), std::string::npos);
  EXPECT_EQ(stderr_of([] {
              set_log_level(LogLevel::kQuiet);
              Progress progress("probe 0", 3);
              progress.update(3);
              progress.finish();
            }),
            "");
}

}  // namespace
}  // namespace hesspect::log_test
