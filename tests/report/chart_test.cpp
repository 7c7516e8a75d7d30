// The page and its charts: well-formed, without a word of HTML that came out of a file, and with no reference outside.
#include "../../src/report/chart.h"

#include <gtest/gtest.h>

#include <cmath>

#include "hesspect/report/report.h"
#include "report/known_result.h"

namespace hesspect::chart_test {
namespace {

TEST(Axis, PlacesValues) {
  const Axis linear = Axis::linear(-1, 3);
  EXPECT_DOUBLE_EQ(linear.at(0), 0.25);
  const Axis log = Axis::log(1e-2, 1e2);
  EXPECT_NEAR(log.at(1), 0.5, 1e-15);
  const Axis symlog = Axis::symlog(-10, 10, 0.1);
  EXPECT_NEAR(symlog.at(0), 0.5, 1e-15);
  EXPECT_NEAR(symlog.at(0.5) + symlog.at(-0.5), 1, 1e-15);
  EXPECT_NEAR(symlog.at(10), 1, 1e-15);
  // sign(x) log(1 + |x|/t)
  EXPECT_NEAR(symlog.at(1), 0.5 + 0.5 * std::log(11) / std::log(101), 1e-15);
}

TEST(Axis, HasFewTicksAndZeroAmongThem) {
  for (const Axis& axis : {Axis::symlog(-1e-3, 1e4, 1e-8), Axis::symlog(-50, 50, 0.1), Axis::log(1e-9, 1e9),
                           Axis::linear(-3, 17), Axis::linear(0, 1e-7)}) {
    const auto ticks = axis.ticks();
    EXPECT_GE(ticks.size(), 3U);
    EXPECT_LE(ticks.size(), 9U);
    for (std::size_t i = 1; i < ticks.size(); ++i) EXPECT_GT(axis.at(ticks[i].first), axis.at(ticks[i - 1].first));
  }
  const auto ticks = Axis::symlog(-1e-3, 1e4, 1e-8).ticks();
  EXPECT_TRUE(std::ranges::any_of(ticks, [](const auto& tick) { return tick.first == 0; }));
}

TEST(Chart, BreaksItsLineWhereThereIsNoNumber) {
  Chart chart("t", Axis::linear(0, 4), Axis::linear(0, 1), "x", "y");
  chart.line({0, 1, 2, 3, 4}, {0, 1, NAN, 1, 0}, "curve");
  const std::string svg = chart.svg();
  const std::size_t begin = svg.find(" d=\"") + 4;
  const std::string path = svg.substr(begin, svg.find('"', begin) - begin);
  EXPECT_EQ(std::ranges::count(path, 'M'), 2);
  EXPECT_EQ(std::ranges::count(path, 'L'), 2);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
}

TEST(Report, NothingOutOfAFileBecomesHtml) {
  RunResult r = testing::known_result({10, 8, 6, 4, 2, 0.5, -1});
  r.layers = {{"<script>alert(1)</script>", 3, {1.5, 0.1}}, {"b\"&\x01", 4, {-0.5, 0.1}}};
  r.trace = TraceEstimate{29.5, 0.1, 0.2, 0.9, 4, 2, 0, 0, "hutchinson", true};
  r.warnings = {"a <b> warning"};
  const std::string html = report_html({{"r<i>.h5", r}}, {});
  for (const char* piece :
       {"<script", "<i>", "<b> warning", "\x01", "http", "url(", "src=", "@import", ">nan", " nan", ">inf"})
    EXPECT_EQ(html.find(piece), std::string::npos) << piece;
  EXPECT_NE(html.find("&lt;script&gt;"), std::string::npos);
  EXPECT_GE(std::ranges::count(html, '<'), 400);
  const std::string json = report_json({{"r.h5", r}}, {});
  EXPECT_NE(json.find("\"lambda_1\""), std::string::npos);
  EXPECT_EQ(json.find(": nan"), std::string::npos);
}

/// t² + t⁴ beside t²: the quadratic model's curve breaks where it leaves the picture, and the page has a picture of
/// each.
TEST(Report, DrawsLandscapes) {
  RunResult r;
  Landscape l;
  l.alpha = {-1, -0.5, 0, 0.5, 1};
  l.beta = {0};
  l.directions = {{"eigenvector 1", 1, 0, 2, -1, 1, 0.3, 0.5, 0.3, 0.5}};
  for (const double t : l.alpha) {
    l.loss.push_back({t * t + t * t * t * t});
    l.quadratic.push_back({t * t});
  }
  r.landscape = l;
  std::string html = report_html({{"l.h5", r}}, {});
  EXPECT_NE(html.find("The loss along eigenvector 1"), std::string::npos);
  EXPECT_NE(html.find("model within 10 % of its change"), std::string::npos);
  l.beta = l.alpha;
  l.directions.push_back(l.directions.front());
  for (std::size_t i = 0; i < 5; ++i) {
    l.loss[i].assign(5, l.loss[i].front());
    l.quadratic[i].assign(5, l.quadratic[i].front());
  }
  l.loss[4][4] = NAN;  // one cell less
  r.landscape = l;
  html = report_html({{"l.h5", r}}, {});
  std::size_t cells = 0;
  for (std::size_t at = html.find("<rect"); at != std::string::npos; at = html.find("<rect", at + 1)) ++cells;
  EXPECT_EQ(cells, 24U);
  l.loss.pop_back();  // a table that does not fit
  r.landscape = l;
  EXPECT_EQ(report_html({{"l.h5", r}}, {}).find("<rect"), std::string::npos);
  EXPECT_NE(report_json({{"l.h5", r}}, {}).find("\"bend\": 2.0"), std::string::npos);
}

TEST(Report, SaysWhatTheDataMakeOfIt) {
  RunResult a = testing::known_result({10, 8, 6}), b = testing::known_result({11, 8, 6});
  EXPECT_NE(data_error({{"a.h5", a}}).front().find("not measured"), std::string::npos);
  for (RunResult* r : {&a, &b}) r->process.model = {{"m.pt2", "aa"}};
  a.process.data = {{"first.h5", "12"}};
  b.process.data = {{"second.h5", "34"}};
  const std::string sentence = data_error({{"a.h5", a}, {"b.h5", b}}).front();
  EXPECT_NE(sentence.find("same weights on other rows; λ₁ 10 and 11"), std::string::npos) << sentence;
  b.process.model = {{"m.pt2", "bb"}};
  EXPECT_NE(data_error({{"a.h5", a}, {"b.h5", b}}).front().find("not measured"), std::string::npos);
}

}  // namespace
}  // namespace hesspect::chart_test
