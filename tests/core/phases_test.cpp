// The clock of a run's phases: nested phases part the time between them, and nothing is lost or counted twice.
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "hesspect/core/phases.h"
#include "hesspect/core/timer.h"

namespace hesspect::phases_test {
namespace {

void pass_ms(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

TEST(Phases, InnerPhasesAreNotTheOuterOnes) {
  const Timer wall;
  Phases phases;
  {
    const PhaseTimer krylov(&phases, Phase::kKrylov);
    pass_ms(20);
    {
      const PhaseTimer product(&phases, Phase::kProducts);
      pass_ms(40);
      const PhaseTimer message(&phases, Phase::kCollectives);
      pass_ms(10);
    }
    phases.move(Phase::kProducts, Phase::kTangents, 0.03);
  }
  const PhaseSeconds s = phases.seconds();
  const double elapsed = wall.elapsed_s();
  EXPECT_GE(s[Phase::kKrylov], 0.02);
  EXPECT_GE(s[Phase::kProducts], 0.01);
  EXPECT_DOUBLE_EQ(s[Phase::kTangents], 0.03);
  EXPECT_GE(s[Phase::kCollectives], 0.01);
  EXPECT_LT(s[Phase::kStart], elapsed - 0.07 + 1e-3);
  EXPECT_NEAR(s.total(), elapsed, 1e-3);
}

TEST(Phases, WithoutAClockATimerDoesNothing) { const PhaseTimer timer(nullptr, Phase::kFiles); }

TEST(Phases, ThePhaseBeforeAnErrorGoesOn) {
  Phases phases;
  try {
    const PhaseTimer timer(&phases, Phase::kFiles);
    throw std::runtime_error("no such file");
  } catch (const std::runtime_error&) {
  }
  const double files = phases.seconds()[Phase::kFiles];
  pass_ms(5);
  EXPECT_EQ(phases.seconds()[Phase::kFiles], files);
}

TEST(Timeline, IsWhatViewersRead) {
  Timeline timeline;
  Phases phases(&timeline);
  {
    const PhaseTimer outer(&phases, Phase::kKrylov);
    const PhaseTimer inner(&phases, Phase::kFiles, "a \"file\"");
    pass_ms(2);
  }
  const nlohmann::json trace = nlohmann::json::parse(timeline.as_json());
  const auto& events = trace.at("traceEvents");
  ASSERT_EQ(events.size(), 3);  // and the process's name
  const auto &inner = events[1], &outer = events[2];
  EXPECT_EQ(inner.at("name"), "a \"file\"");
  EXPECT_EQ(outer.at("name"), "krylov");
  EXPECT_EQ(inner.at("ph"), "X");
  EXPECT_GE(inner.at("dur").get<double>(), 2000);
  EXPECT_LE(outer.at("ts").get<double>(), inner.at("ts").get<double>());
  EXPECT_GE(outer.at("ts").get<double>() + outer.at("dur").get<double>(),
            inner.at("ts").get<double>() + inner.at("dur").get<double>());
  EXPECT_FALSE(trace.contains("note"));
}

/// Each op of each sweep is an event: a long run's would fill memory and no viewer would open them.
TEST(Timeline, ManyEventsAreLeftOutButPhasesStay) {
  Timeline timeline;
  const auto now = Timeline::Clock::now();
  for (int i = 0; i < 200'000; ++i) timeline.add("mm", "value", now, now);
  timeline.add("the end", "phase", now, now);
  const std::string text = timeline.as_json();
  EXPECT_NE(text.find("\"the end\""), std::string::npos);
  EXPECT_NE(text.find("20000 later events are left out"), std::string::npos);
}

}  // namespace
}  // namespace hesspect::phases_test
