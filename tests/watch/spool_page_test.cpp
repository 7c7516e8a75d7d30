#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <ctime>
#include <filesystem>

#include "hesspect/watch/spool_view.h"
#include "watch/run_python.h"

namespace hesspect::spool_page_test {
namespace {

namespace fs = std::filesystem;
using State = JobView::State;

constexpr double kNow = 1'790'000'000;  // 2026-09-21 14:13:20 UTC

JobView job(const std::string& id, State state) {
  JobView made;
  made.id = id;
  made.name = "step " + id;
  made.state = state;
  made.submitted = kNow - 600;
  if (state != State::kQueued) made.started = kNow - 125;
  if (state != State::kQueued && state != State::kRunning) made.ended = kNow - 5;
  return made;
}

SpoolView full_view() {
  SpoolView view{"/scratch/run <7>/spool", kNow, {}};
  JobView done = job("000100", State::kDone);
  done.products = 131072;
  done.lambda1 = 1.5e-7;
  done.trace = -118.7;
  done.result = "done/000100/result.h5";
  JobView failed = job("000200", State::kFailed);
  failed.exit_code = 4;
  failed.line = "cannot read '<script>alert(1)</script>' & \"more\"\n\x1b[31m";
  failed.ended = kNow - 60;
  JobView running = job("000300", State::kRunning);
  running.products = 40;
  running.products_per_s = 3.25;
  view.jobs = {done,
               failed,
               running,
               job("000400", State::kQueued),
               job("000350", State::kQueued),
               job("000500", State::kCancelled)};
  view.jobs[3].priority = 5;
  return view;
}

std::string between(const std::string& text, const std::string& from, const std::string& to) {
  const std::size_t begin = text.find(from);
  return begin == std::string::npos ? "" : text.substr(begin, text.find(to, begin) - begin);
}

TEST(SpoolPage, ShowsAllStates) {
  ::setenv("TZ", "UTC", 1);
  ::tzset();
  const std::string page = spool_page(full_view(), 7);
  EXPECT_NE(page.find("<meta http-equiv=\"refresh\" content=\"7\">"), std::string::npos);
  EXPECT_NE(page.find("As of 2026-09-21 14:13:20 UTC"), std::string::npos);
  for (const char* piece : {"<b>2</b><span>queued", "<b>1</b><span>running", "<b>1</b><span>done",
                            "<b>1</b><span>failed", "<b>1</b><span>cancelled", "131,072", "1.5·10<sup>−7</sup>",
                            "−118.7", "3.25/s", "2m05s", "done/000100/result.h5", "failed (4)"})
    EXPECT_NE(page.find(piece), std::string::npos) << piece;
  const std::string waiting = between(page, "Waiting", "Ended");
  EXPECT_LT(waiting.find("step 000400"), waiting.find("step 000350"));  // as the view has them
  const std::string ended = between(page, "Ended", "</main>");
  EXPECT_LT(ended.find("step 000100"), ended.find("step 000200"));  // the last first
}

TEST(SpoolPage, NothingOfAJobIsMarkup) {
  const std::string page = spool_page(full_view());
  EXPECT_EQ(page.find("<script"), std::string::npos);
  EXPECT_NE(page.find("&lt;script&gt;alert(1)&lt;/script&gt;&#39; &amp; &quot;more&quot;"), std::string::npos);
  EXPECT_NE(page.find("/scratch/run &lt;7&gt;/spool"), std::string::npos);
  EXPECT_EQ(page.find('\x1b'), std::string::npos);
}

TEST(SpoolPage, ManyAndNone) {
  SpoolView view{"/s", kNow, {}};
  EXPECT_NE(spool_page(view).find("Nothing runs."), std::string::npos);
  for (int i = 0; i < 5000; ++i) view.jobs.push_back(job(std::to_string(i), State::kDone));
  const std::string page = spool_page(view);
  EXPECT_NE(page.find("and 4,800 more"), std::string::npos);
  EXPECT_NE(page.find("<b>5,000</b>"), std::string::npos);
  EXPECT_LT(page.size(), 200'000U);
}

/// Well-formed, of nothing that lies elsewhere, and in a browser of both themes' colours and no wider than its window.
TEST(SpoolPage, InABrowser) {
  const fs::path folder = fs::temp_directory_path() / ("hesspect_page_" + std::to_string(::getpid()));
  fs::create_directories(folder);
  write_spool_page(full_view(), folder / "index.html");
  EXPECT_TRUE(test::run_python("look_at_page.py", "'" + (folder / "index.html").string() + "'"));
  fs::remove_all(folder);
}

TEST(SpoolMetrics, OfTheView) {
  Metrics metrics;
  SpoolView view = full_view();
  set_spool_metrics(metrics, view);
  const std::string text = metrics.text();
  for (const char* piece :
       {"hesspect_jobs{state=\"queued\"} 2\n", "hesspect_jobs{state=\"done\"} 1\n",
        "hesspect_jobs{state=\"cancelled\"} 1\n", "hesspect_lambda_max 1.5e-07\n", "hesspect_trace -118.7\n"})
    EXPECT_NE(text.find(piece), std::string::npos) << piece;
  view.jobs.clear();
  set_spool_metrics(metrics, view);
  EXPECT_NE(metrics.text().find("hesspect_jobs{state=\"done\"} 0\n"), std::string::npos);
}

}  // namespace
}  // namespace hesspect::spool_page_test
