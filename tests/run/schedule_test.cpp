// The schedule of a run, walked through with made-up results: groups take tasks and finish them in any order.
#include "schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "hesspect/core/overloaded.h"
#include "hesspect/core/probe_numbers.h"
#include "hesspect/run/answers.h"
#include "hesspect/spectrum/probe.h"

namespace hesspect::schedule_test {
namespace {

constexpr std::int64_t kDimensions = 10'000;

struct Wish {
  std::optional<TraceMethod> trace = TraceMethod::kDeflated;
  double rtol = 0.02, w1 = 0;
  std::int64_t probes = 1, steps = 20, max_products = 0;
  bool diagonal = false, block = false, parts = false;
};

Goals goals_for(const Wish& wish) {
  Goals goals;
  goals.n = kDimensions;
  goals.runs = wish.probes;
  goals.steps = goals.most_steps = wish.steps;
  goals.max_products = wish.max_products;
  goals.density = DensityGoal{wish.w1, 0};
  if (wish.trace) {
    goals.trace = TraceGoal{};
    goals.trace->method = *wish.trace;
    goals.trace->rule.rtol = wish.rtol;
    if (wish.diagonal) goals.trace->diagonal_file = "d.h5";
  }
  if (wish.block) {
    goals.eigen = EigenGoal{};
    goals.eigen->solver = EigenSolver::kBlock;
  }
  if (wish.parts) {
    goals.blocks = BlocksGoal{};
    for (std::int64_t i = 0; i < 5; ++i)
      goals.blocks->parts.push_back({std::to_string(i), {{100 * i, 101 * i + 1}}, {}});
  }
  return goals;
}

Plan plan_for(int groups) {
  Plan plan;
  plan.groups = groups;
  plan.lock_step = 2;
  plan.joint = 4;
  return plan;
}

/// A probe's number decides its numbers, as a seed would.
double noise(std::int64_t probe) { return std::sin(12.9898 * static_cast<double>(probe % 1000 + 1)); }

/// Carries out tasks at once, as groups would in time.
class World {
 public:
  World(const Wish& wish, int groups, std::uint64_t seed, LedgerState state = {})
      : ledger(std::move(state), goals_for(wish), groups),
        goals_(goals_for(wish)),
        plan_(plan_for(groups)),
        schedule_(goals_, plan_),
        busy_(static_cast<std::size_t>(groups)),
        random_(seed) {
    for (std::int64_t i = 0; i < kSymmetryProbes; ++i) take(trace_probe(i));
  }

  void run() {
    products = ledger.finished_runs() > 0 ? 0 : kSymmetryProbes;
    for (int round = 0; round < 1'000'000; ++round) {
      const std::size_t group = random_() % busy_.size();
      if (busy_[group]) {
        finish(group);
        continue;
      }
      Task task = schedule_.next(ledger, static_cast<int>(group));
      look_at_range();
      if (std::holds_alternative<Done>(task)) return;
      if (std::holds_alternative<Wait>(task)) {
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
    if (goals_.samples_trace())
      for (const DeflatedSample& one : trace_answer(goals_, ledger).samples) probes.push_back(one.probe);
    return probes;
  }
  std::size_t runs_used() const { return density_answer(goals_, ledger).quadratures.size(); }
  bool done() const { return schedule_.done(ledger); }
  Task next(int group) { return schedule_.next(ledger, group); }
  ProductRange expected() const { return schedule_.expected(ledger); }

  Ledger ledger;
  std::int64_t products = 0;
  std::vector<std::int64_t> blocks;  // in the order of their ends
  ProductRange first_range;          // what was expected at first

 private:
  void take(std::int64_t probe) { ledger.add(TraceSample{probe, 100 + noise(probe), 2, {}}); }

  void look_at_range() {
    const ProductRange range = expected();
    EXPECT_LE(range.least, range.most);
    if (first_range.most == 0) first_range = range;
  }

  void finish(std::size_t group) {
    const Task task = *busy_[group];
    busy_[group].reset();
    std::visit(Overloaded{[&](const RunLanczos& runs) {
                            for (const std::int64_t probe : runs.probes) run(probe, group);
                          },
                          [&](const RebuildBasis&) { deflate(group); },
                          [&](const SampleTrace& trace) {
                            for (const std::int64_t probe : trace.probes) take(probe);
                            products += static_cast<std::int64_t>(trace.probes.size());
                          },
                          [&](const CorrectSamples& correct) {
                            EXPECT_EQ(group, 0U);
                            for (const TraceSample& one : correct.samples)
                              ledger.add(DeflatedSample{one.probe, 0.5 * noise(one.probe), 0.5, {}});
                          },
                          [&](const SolveEigen&) { ledger.set_eigenvalues({}); },
                          [&](const EstimateTrace&) { ledger.set_trace({}); },
                          [&](const WriteDiagonal&) { ledger.set_diagonal_written(); },
                          [&](const AnalyseBlock& block) {
                            const Part& part = goals_.blocks->parts.at(static_cast<std::size_t>(block.part));
                            EXPECT_EQ(ledger.block(part.name), nullptr);
                            blocks.push_back(block.part);
                            ledger.add(FinishedBlock{part.name, {}, 0, {}});
                          },
                          [](const auto&) {}},
               task);
    ledger.set_tally(0, {products, 0, 0});
  }

  void run(std::int64_t probe, std::size_t group) {
    EXPECT_TRUE(probe != 0 || group == 0);
    FinishedProbe done;
    const auto m = static_cast<std::size_t>(goals_.steps);
    std::vector<double> alpha(m, 0.01 * noise(probe)), beta(m, 0.5);
    beta.pop_back();
    done.quadrature = quadrature_from(alpha, beta);
    done.quadrature.probe = probe;
    done.quadrature.beta_last = 0.5;
    done.quadrature.norm_sq = static_cast<double>(kDimensions);
    ledger.add(done);
    products += goals_.steps;
    if (probe < goals_.runs) take(probe);
    if (probe == 0) deflate(group);
  }

  void deflate(std::size_t group) {
    if (!goals_.deflates()) return;
    EXPECT_EQ(group, 0U);
    ledger.set_deflation({19, 90, 0, {}});
  }

  const Goals goals_;
  const Plan plan_;
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
          wish.block = wish.parts = true;
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
    // The largest first; and with blocks or without, the whole's work is the same.
    EXPECT_EQ(one.blocks, wish.parts ? (std::vector<std::int64_t>{4, 3, 2, 1, 0}) : std::vector<std::int64_t>());
    const auto samples = one.samples_used();
    several += samples.size() > 4;
    for (int groups = 2; groups <= 4; ++groups)
      for (std::uint64_t seed = 0; seed < 3; ++seed) {
        World many(wish, groups, seed);
        many.run();
        if (HasFatalFailure()) return;
        EXPECT_EQ(many.runs_used(), one.runs_used());
        EXPECT_EQ(many.blocks.size(), one.blocks.size());
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
  LedgerState state = before.ledger.state(0);
  state.deflated.resize(3);  // the rest was not corrected yet when the run was stopped
  World after(wish, 2, 1, state);
  after.run();
  EXPECT_EQ(after.samples_used(), samples);
  EXPECT_EQ(after.products, 0);
}

TEST(Schedule, NothingIsDealtOnceAllIsThere) {
  World before(Wish{}, 1, 1);
  before.run();
  World after(Wish{}, 2, 1, before.ledger.state(0));
  EXPECT_TRUE(after.done());
  EXPECT_TRUE(std::holds_alternative<Done>(after.next(0)));
  EXPECT_TRUE(std::holds_alternative<Done>(after.next(1)));
}

/// MiniLM's run promised 51 products at first, then 75, 91, 123, 190, each with a time left: what can't be known is a
/// range, and the run ends within what it said.
TEST(Schedule, WhatIsExpectedIsARangeThatHolds) {
  int ranges = 0;
  for (const Wish& wish : wishes()) {
    World one(wish, 1, 1);
    one.run();
    if (HasFatalFailure()) return;
    if (wish.trace == TraceMethod::kXTrace || wish.block) continue;  // whose made-up runs take no products here
    EXPECT_GE(one.products, one.first_range.least);
    EXPECT_LE(one.products, one.first_range.most)
        << "rtol " << wish.rtol << " w1 " << wish.w1 << " probes " << wish.probes;
    EXPECT_EQ(one.expected().least, one.products);
    EXPECT_EQ(one.expected().most, one.products);
    ranges += one.first_range.most > one.first_range.least;
  }
  EXPECT_GT(ranges, 5);
}

/// Each question of a group took work that grew with all samples before: with so many a run stood still, and this test
/// would not end within its time.
TEST(Schedule, ManySamplesTakeTimeInProportion) {
  Wish wish;
  wish.rtol = 2.4e-5;
  World one(wish, 1, 1);
  one.run();
  EXPECT_GT(one.samples_used().size(), 100'000U);
}

}  // namespace
}  // namespace hesspect::schedule_test
