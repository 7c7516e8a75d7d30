#include "hesspect/watch/shown.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <thread>

#include "hesspect/core/errors.h"
#include "hesspect/core/product_count.h"

namespace hesspect::shown_test {
namespace {

namespace fs = std::filesystem;

constexpr double kQuick_s = 0.02, kSlow_s = 1000;

struct Folder {
  fs::path path = fs::temp_directory_path() / ("hesspect_shown_" + std::to_string(::getpid()));
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
};

std::string text_of(const fs::path& file) {
  std::ifstream in(file);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

/// @return whether it came to that within 80 s
bool comes(const std::function<bool()>& condition) {
  for (int i = 0; i < 8000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

WatchConfig to_file(const fs::path& file) {
  WatchConfig config;
  config.metrics_file = file;
  return config;
}

SpoolView view_of(int jobs) {
  SpoolView view{"/s", 1, {}};
  view.jobs.resize(static_cast<std::size_t>(jobs));
  return view;
}

std::size_t times_in(const std::string& text, const std::string& piece) {
  std::size_t count = 0;
  for (std::size_t at = text.find(piece); at != std::string::npos; at = text.find(piece, at + 1)) ++count;
  return count;
}

TEST(Shown, WhatIsNewAtOnce) {
  const Folder folder;
  const auto page_has = [&](const char* piece) {
    return text_of(folder.path / "index.html").find(piece) != std::string::npos;
  };
  {
    Shown shown(to_file(folder.path / "m.prom"), folder.path / "index.html", kSlow_s);
    for (int jobs = 1; jobs <= 2; ++jobs) {
      shown.show(view_of(jobs));
      EXPECT_TRUE(comes([&] { return page_has(jobs == 1 ? "<b>1</b><span>queued" : "<b>2</b><span>queued"); }));
    }
    EXPECT_TRUE(
        comes([&] { return text_of(folder.path / "m.prom").find("state=\"queued\"} 2\n") != std::string::npos; }));
    shown.show(view_of(3));
  }
  EXPECT_TRUE(page_has("<b>3</b><span>queued"));  // also what was shown last of all
}

TEST(Shown, CountsProductsByItself) {
  const Folder folder;
  count_products(1000);  // of runs before it
  Shown shown(to_file(folder.path / "m.prom"), folder.path / "index.html", kQuick_s);
  const auto has = [&](const char* piece) { return text_of(folder.path / "m.prom").find(piece) != std::string::npos; };
  SpoolView view = view_of(2);
  view.jobs[1].state = JobView::State::kRunning;
  shown.show(view);
  EXPECT_TRUE(comes([&] { return has("hesspect_products_total 0\n") && has("hesspect_products_per_second NaN\n"); }));
  count_products(1234567);
  EXPECT_TRUE(comes([&] { return has("hesspect_products_total 1234567\n"); }));
  EXPECT_TRUE(comes([&] { return text_of(folder.path / "index.html").find("1,234,567") != std::string::npos; }));
  EXPECT_TRUE(has("hesspect_resident_bytes{rank=\"0\"} "));
  EXPECT_TRUE(comes([&] { return has("hesspect_products_per_second NaN\n"); }));  // and none come any more
}

/// A page and a file that can't be written end nothing: they are warned of once, and written as soon as they can be.
TEST(Shown, GoesOnWithoutItsFiles) {
  const Folder folder;
  const fs::path there = folder.path / "later";
  ::testing::internal::CaptureStderr();
  {
    Shown shown(to_file(there / "m.prom"), there / "index.html", kQuick_s);
    shown.show(view_of(4));
    std::this_thread::sleep_for(std::chrono::milliseconds(150));
    fs::create_directories(there);
    EXPECT_TRUE(comes([&] { return fs::exists(there / "index.html") && fs::exists(there / "m.prom"); }));
  }
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(times_in(said, "cannot write"), 2U) << said;  // the page and the file, each once
  EXPECT_NE(text_of(there / "index.html").find("<b>4</b>"), std::string::npos);
}

TEST(Shown, NothingAskedFor) {
  {
    Shown shown({});
    shown.show(view_of(1));
  }
  WatchConfig config;
  config.metrics_port = 1;
  config.metrics_address = "192.0.2.1";  // no machine's
  EXPECT_THROW(Shown{config}, UsageError);
}

}  // namespace
}  // namespace hesspect::shown_test
