// The schedule of a run, walked through with made-up results: groups take tasks and finish them in any order.
#include "schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>

namespace hesspect {
namespace {

constexpr std::int64_t kDimensions = 10'000;

struct Wish {
  std::optional<TraceMethod> trace = TraceMethod::kDeflated;
  double rtol = 0.02, w1 = 0;
  std::int64_t probes = 1, steps = 20, max_products = 0;
  bool diagonal = false, block = false;
};

Goals goals_for(const Wish& wish) {
  Goals goals;
  goals.command = "analyze";
  goals.density = true;
  goals.probes = wish.probes;
  goals.probe.steps = wish.steps;
  goals.max_steps = wish.steps;
  goals.w1 = wish.w1;
  goals.trace = wish.trace;
  goals.rule.rtol = wish.rtol;
  goals.block = wish.block;
  goals.max_products = wish.max_products;
  if (wish.diagonal) goals.diagonal = "d.h5";
  return goals;
}

/// A probe's number decides its numbers, as a seed would.
double noise(std::int64_t probe) { return std::sin(12.9898 * static_cast<double>(probe % 1000 + 1)); }

/// Carries out tasks at once, as groups would in time.
class World {
 public:
  World(const Wish& wish, int groups, std::uint64_t seed)
      : goals_(goals_for(wish)),
        schedule_(goals_, kDimensions, groups),
        busy_(static_cast<std::size_t>(groups)),
        random_(seed) {
    if (!wish.diagonal || wish.trace == TraceMethod::kDeflated)
      for (std::int64_t i = 0; i < kSymmetryProbes; ++i) take(static_cast<std::int64_t>(kTraceProbes) + i);
    products = kSymmetryProbes;
  }

  void run() {
    for (int round = 0; round < 100'000; ++round) {
      const std::size_t group = random_() % busy_.size();
      if (busy_[group]) {
        finish(group);
        continue;
      }
      Task task = schedule_.next(state, static_cast<int>(group), 2);
      if (task.kind == Task::Kind::kDone) return;
      if (task.kind == Task::Kind::kWait) {
        const bool idle = std::none_of(busy_.begin(), busy_.end(), [](const auto& one) { return one.has_value(); });
        waits_ = idle ? waits_ + 1 : 0;
        ASSERT_LT(waits_, 200) << "all groups wait for nothing";
        continue;
      }
      waits_ = 0;
      busy_[group] = std::move(task);
    }
    FAIL() << "no end";
  }

  std::vector<std::int64_t> samples_used() const {
    std::vector<std::int64_t> probes;
    for (const DeflatedSample& one : schedule_.trace_answer(state).samples) probes.push_back(one.probe);
    return probes;
  }
  const Schedule& schedule() const { return schedule_; }

  RunState state;
  std::int64_t products = 0;

 private:
  void take(std::int64_t probe) { state.samples.push_back({probe, 100 + noise(probe), 2, {}}); }

  void finish(std::size_t group) {
    const Task task = *busy_[group];
    busy_[group].reset();
    switch (task.kind) {
      case Task::Kind::kLanczos:
        for (const std::int64_t probe : task.probes) {
          EXPECT_TRUE(probe != 0 || group == 0);
          FinishedProbe done;
          const auto m = static_cast<std::size_t>(goals_.probe.steps);
          std::vector<double> alpha(m, 0.01 * noise(probe)), beta(m, 0.5);
          beta.pop_back();
          done.quadrature = quadrature_from(alpha, beta);
          done.quadrature.probe = probe;
          done.quadrature.beta_last = 0.5;
          done.quadrature.norm_sq = static_cast<double>(kDimensions);
          state.finished.push_back(done);
          products += goals_.probe.steps;
          if (probe < goals_.probes) take(probe);
          if (probe == 0) deflate(group);
        }
        break;
      case Task::Kind::kRebuild: deflate(group); break;
      case Task::Kind::kTrace:
        for (const std::int64_t probe : task.probes) take(probe);
        products += static_cast<std::int64_t>(task.probes.size());
        break;
      case Task::Kind::kCorrect:
        EXPECT_EQ(group, 0U);
        for (const std::int64_t probe : task.probes) state.deflated.push_back({probe, 0.5 * noise(probe), 0.5, {}});
        break;
      case Task::Kind::kEigenvalues: state.eigenvalues = EigenResult{}; break;
      case Task::Kind::kOwnTrace: state.trace = TraceEstimate{}; break;
      case Task::Kind::kDiagonal: schedule_.diagonal_is_written(); break;
      default: break;
    }
  }

  void deflate(std::size_t group) {
    if (goals_.trace != TraceMethod::kDeflated) return;
    EXPECT_EQ(group, 0U);
    state.deflation = DeflationState{19, 90, {}};
    schedule_.deflation_is_there();
  }

  const Goals goals_;
  Schedule schedule_;
  std::vector<std::optional<Task>> busy_;
  std::mt19937_64 random_;
  int waits_ = 0;
};

std::vector<Wish> wishes() {
  std::vector<Wish> all;
  for (const auto trace : std::initializer_list<std::optional<TraceMethod>>{
           std::nullopt, TraceMethod::kDeflated, TraceMethod::kHutchinson, TraceMethod::kXTrace})
    for (const double rtol : {0.0, 0.2, 0.004})
      for (const double w1 : {0.0, 0.06, 1e-6})
        for (const std::int64_t probes : {1, 4}) {
          Wish wish;
          wish.trace = trace;
          wish.rtol = rtol;
          wish.w1 = w1;
          wish.probes = probes;
          all.push_back(wish);
          wish.max_products = 120;
          wish.block = true;
          all.push_back(wish);
          if (trace == TraceMethod::kDeflated || trace == TraceMethod::kHutchinson) {
            wish.diagonal = true;
            all.push_back(wish);
          }
        }
  return all;
}

TEST(Schedule, EndsAndDependsOnNoGroups) {
  int several = 0;
  for (const Wish& wish : wishes()) {
    SCOPED_TRACE(testing::Message() << "trace " << (wish.trace ? to_string(*wish.trace) : "none") << " rtol "
                                    << wish.rtol << " w1 " << wish.w1 << " probes " << wish.probes << " most "
                                    << wish.max_products << " diagonal " << wish.diagonal);
    World one(wish, 1, 1);
    one.run();
    if (HasFatalFailure()) return;
    if (wish.max_products > 0) {
      EXPECT_LE(one.products, wish.max_products);
    }
    const auto samples = one.samples_used();
    several += samples.size() > 4;
    for (int groups = 2; groups <= 4; ++groups)
      for (std::uint64_t seed = 0; seed < 3; ++seed) {
        World many(wish, groups, seed);
        many.run();
        if (HasFatalFailure()) return;
        EXPECT_EQ(many.schedule().lanczos_wanted(many.state), one.schedule().lanczos_wanted(one.state));
        if (wish.max_products == 0) {
          EXPECT_EQ(many.samples_used(), samples);
        }
      }
  }
  EXPECT_GT(several, 5);  // the walks are not all trivial
}

TEST(Schedule, ResumedRunsMakeProbeZerosBasisAgain) {
  Wish wish;
  wish.rtol = 0.004;
  World before(wish, 1, 1);
  before.run();
  const auto samples = before.samples_used();
  ASSERT_GT(samples.size(), 4U);
  World after(wish, 1, 2);
  after.state = before.state;
  after.state.deflated.resize(3);  // the rest was not corrected yet when the run was stopped
  after.products = 0;
  after.run();
  EXPECT_EQ(after.samples_used(), samples);
  EXPECT_EQ(after.products, 0);
}

TEST(Schedule, NothingIsDealtOnceAllIsThere) {
  World before(Wish{}, 1, 1);
  before.run();
  Schedule schedule(goals_for({}), kDimensions, 2);
  EXPECT_TRUE(schedule.done(before.state));
  EXPECT_EQ(schedule.next(before.state, 0, 4).kind, Task::Kind::kDone);
  EXPECT_EQ(schedule.next(before.state, 1, 4).kind, Task::Kind::kDone);
}

}  // namespace
}  // namespace hesspect
