#include "hesspect/watch/metrics.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>
#include <thread>

#include "hesspect/core/errors.h"
#include "watch/run_python.h"

namespace hesspect::metrics_test {
namespace {

namespace fs = std::filesystem;

struct Folder {
  fs::path path = fs::temp_directory_path() / ("hesspect_metrics_" + std::to_string(::getpid()));
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
};

std::string text_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

TEST(Metrics, TextAsWritten) {
  constexpr MetricEntry entries[] = {{"a_total", MetricKind::kCounter, "How many\nof \\ them"},
                                     {"empty", MetricKind::kGauge, "Never set"},
                                     {"b", MetricKind::kGauge, "B"}};
  Metrics metrics(entries);
  metrics.set("b", {{"z", "1"}, {"a", "say \"hi\"\\\nback"}}, 0.1);
  metrics.set("b", {}, std::numeric_limits<double>::quiet_NaN());
  metrics.set("b", {{"x", "∞"}}, -std::numeric_limits<double>::infinity());
  metrics.add("a_total", {}, 2);
  metrics.add("a_total", {}, 1e15);
  EXPECT_EQ(metrics.text(),
            "# HELP a_total How many\\nof \\\\ them\n# TYPE a_total counter\na_total 1000000000000002\n"
            "# HELP b B\n# TYPE b gauge\nb NaN\nb{a=\"say \\\"hi\\\"\\\\\\nback\",z=\"1\"} 0.1\nb{x=\"∞\"} -Inf\n");
  metrics.clear("b");
  EXPECT_EQ(metrics.text().find("# TYPE b"), std::string::npos);
}

TEST(Metrics, MistakesOfTheCaller) {
  Metrics metrics;
  EXPECT_THROW(metrics.set("hesspect_job", {}, 1), std::logic_error);
  EXPECT_THROW(metrics.set("hesspect_jobs", {{"a-b", "x"}}, 1), std::logic_error);
  EXPECT_THROW(metrics.set("hesspect_jobs", {{"__a", "x"}}, 1), std::logic_error);
  EXPECT_THROW(metrics.set("hesspect_jobs", {{"", "x"}}, 1), std::logic_error);
  EXPECT_THROW(metrics.set("hesspect_jobs", {{"a", "x"}, {"a", "y"}}, 1), std::logic_error);
  EXPECT_EQ(metrics.text(), "");
}

TEST(Metrics, ReadByOthers) {
  const Folder folder;
  Metrics metrics;
  for (const MetricEntry& entry : metric_entries()) {
    metrics.set(entry.name, {}, 1e-310);
    metrics.set(entry.name, {{"phase", "a \"b\"\\\n\xC3\xA4,}="}, {"rank", "0"}}, 123456789.125);
  }
  write_text_file(folder.path / "m.prom", metrics.text());
  EXPECT_TRUE(test::run_python("exposition.py", "'" + (folder.path / "m.prom").string() + "' >/dev/null"));
  std::ofstream(folder.path / "bad.prom") << "hesspect_jobs{state=\"a\"b\"} 1\n";
  EXPECT_FALSE(test::run_python("exposition.py", "'" + (folder.path / "bad.prom").string() + "' 2>/dev/null"));
}

TEST(Metrics, ManyThreads) {
  Metrics metrics;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) metrics.add("hesspect_products_total", {}, 1);
    });
  for (int i = 0; i < 50; ++i) (void)metrics.text();
  for (std::thread& thread : threads) thread.join();
  EXPECT_NE(metrics.text().find("hesspect_products_total 8000\n"), std::string::npos);
}

TEST(Metrics, FamiliesAreDescribed) {
  std::set<std::string_view> names;
  for (const MetricEntry& entry : metric_entries()) {
    EXPECT_TRUE(names.insert(entry.name).second);
    EXPECT_EQ(entry.name.ends_with("_total"), entry.kind == MetricKind::kCounter) << entry.name;
    EXPECT_FALSE(entry.help.empty() || entry.help.ends_with('.')) << entry.name;
  }
}

/// The dashboard's expressions and the page of the documents name what the program writes, and all of it.
TEST(Metrics, DashboardAndPage) {
  std::string names;
  for (const MetricEntry& entry : metric_entries()) names += " " + std::string(entry.name);
  EXPECT_TRUE(test::run_python("check_dashboard.py", names));
  EXPECT_FALSE(test::run_python("check_dashboard.py", "hesspect_jobs 2>/dev/null"));
}

TEST(TextFile, WholeOrAsItWas) {
  const Folder folder;
  const fs::path file = folder.path / "m.prom";
  write_text_file(file, "first\n");
  write_text_file(file, "second\n");
  EXPECT_EQ(text_of(file), "second\n");
  // A folder in its place can't be replaced, on any user's account.
  fs::create_directories(folder.path / "d" / "inside");
  try {
    write_text_file(folder.path / "d", "x");
    FAIL();
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("cannot write '" + (folder.path / "d").string() + "'"), std::string::npos);
  }
  EXPECT_THROW(write_text_file(folder.path / "none" / "m.prom", "x"), InputError);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path), fs::directory_iterator{}), 2);  // no temporary file
}

TEST(TextFile, AFullDisk) {
  const Folder folder;
  // Where the disk is full the temporary file can't be written: stood in for by a limit on the size of files.
  write_text_file(folder.path / "m.prom", "before\n");
  if (::fork() == 0) {
    rlimit none{16, 16};
    ::setrlimit(RLIMIT_FSIZE, &none);
    ::signal(SIGXFSZ, SIG_IGN);
    try {
      write_text_file(folder.path / "m.prom", std::string(1000, 'x'));
    } catch (const InputError&) {
      ::_exit(7);
    }
    ::_exit(0);
  }
  int status = 0;
  ::wait(&status);
  EXPECT_EQ(WEXITSTATUS(status), 7);
  EXPECT_EQ(text_of(folder.path / "m.prom"), "before\n");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path), fs::directory_iterator{}), 1);
}

}  // namespace
}  // namespace hesspect::metrics_test
