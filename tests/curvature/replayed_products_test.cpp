// When products are recorded and replayed, and what becomes of them where that fails; with a recorder and a clock of
// the test's own instead of a GPU's. And on a GPU, where there is one, real graphs against products launched one by
// one.
#include "../../src/curvature/replayed_products.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <stdexcept>

#include "../../src/curvature/local_loss.h"
#include "support/fixture.h"

namespace hesspect::replayed_products_test {
namespace {

/// Seconds of one product, as a GPU would take them: launches by the host, and what is left to run after the last one.
struct Times {
  double launches = 5, rest = 1, replay = 2;
};

/// Records by keeping the work, and replays by doing it.
class FakeRecorder final : public LaunchRecorder {
 public:
  class Graph final : public LaunchGraph {
   public:
    Graph(FakeRecorder& of, std::function<void()> work) : of_(of), work_(std::move(work)) { ++of_.alive; }
    ~Graph() override { --of_.alive; }
    void replay() override {
      ++of_.replays;
      of_.now += of_.times.replay;
      of_.within_replay = true;
      work_();
      of_.within_replay = false;
      if (of_.replays == of_.bad_replay) of_.spoil();
    }

   private:
    FakeRecorder& of_;
    std::function<void()> work_;
  };

  void rehearse(const std::function<void()>& work) override {
    ++rehearsals;
    work();
    wait();
  }
  std::unique_ptr<LaunchGraph> record(const std::function<void()>& work) override {
    ++recordings;
    if (fails) throw std::runtime_error("operation not permitted when stream is capturing");
    return std::make_unique<Graph>(*this, work);
  }
  void wait() override {
    now += pending;
    pending = 0;
  }
  std::int64_t bytes() const override { return 0; }

  Times times;
  double now = 0, pending = 0;
  bool within_replay = false;
  bool fails = false;
  int bad_replay = 0;  // the one that is wrong
  std::function<void()> spoil;
  int rehearsals = 0, recordings = 0, replays = 0, alive = 0;
};

/// sums[k] += 3 v[k], and how often that was launched one by one.
struct Problem {
  FakeRecorder recorder;
  at::Tensor v = at::ones({1, 4}, at::kDouble), sums = at::zeros({1, 4}, at::kDouble);
  ReplayedProducts products{recorder, "rows 0 to 3", [this] { return recorder.now; }};
  int launched = 0;

  void add() { add(v, sums); }
  void add(const at::Tensor& x, const at::Tensor& y) {
    products.add(x, y, [this, x, y] {
      y.add_(x, 3);
      if (recorder.within_replay) return;
      ++launched;
      recorder.now += recorder.times.launches;
      recorder.pending = recorder.times.rest;
    });
  }
};

TEST(ReplayedProducts, TheThirdProductIsRecordedAndLaterOnesReplayIt) {
  Problem p;
  for (int i = 1; i <= 6; ++i) {
    p.v.fill_(i);
    p.sums.fill_(1);  // a sum may have begun before
    p.add();
    EXPECT_TRUE(at::equal(p.sums, at::full({1, 4}, 1.0 + 3 * i, at::kDouble))) << i;
    EXPECT_EQ(p.products.replays(), i >= 3) << i;
  }
  EXPECT_EQ(p.launched, 3);
  EXPECT_EQ(p.recorder.rehearsals, 1);
  EXPECT_EQ(p.recorder.recordings, 1);
  EXPECT_EQ(p.recorder.replays, 2 + 3);  // checked and timed, and products 4 to 6
}

TEST(ReplayedProducts, NothingIsRecordedWhereTheGpuIsBusy) {
  Problem p;
  p.recorder.times = {.launches = 1, .rest = 5, .replay = 0.1};
  for (int i = 0; i < 5; ++i) p.add();
  EXPECT_EQ(p.recorder.recordings, 0);
  EXPECT_EQ(p.launched, 5);
  EXPECT_TRUE(at::equal(p.sums, at::full({1, 4}, 15.0, at::kDouble)));
}

TEST(ReplayedProducts, AGraphThatIsNoFasterGoes) {
  Problem p;
  p.recorder.times.replay = 5.9;  // of 6
  for (int i = 0; i < 5; ++i) p.add();
  EXPECT_EQ(p.recorder.recordings, 1);
  EXPECT_EQ(p.recorder.alive, 0);
  EXPECT_EQ(p.launched, 5);
  EXPECT_TRUE(at::equal(p.sums, at::full({1, 4}, 15.0, at::kDouble)));
}

TEST(ReplayedProducts, WhatCannotBeRecordedIsLaunched) {
  Problem p;
  p.recorder.fails = true;
  for (int i = 0; i < 5; ++i) p.add();
  EXPECT_EQ(p.recorder.recordings, 1);
  EXPECT_EQ(p.launched, 5);
  EXPECT_TRUE(at::equal(p.sums, at::full({1, 4}, 15.0, at::kDouble)));
}

TEST(ReplayedProducts, AReplayThatDiffersIsNotUsed) {
  for (const int bad : {1, 2})                              // also one that is right once
    for (const double error : {1e-15, 0.5, double(NAN)}) {  // not in rounding either: products must not change half way
      Problem p;
      p.recorder.bad_replay = bad;
      p.recorder.spoil = [&] { p.sums.mul_(1 + error); };
      for (int i = 0; i < 5; ++i) p.add();
      EXPECT_EQ(p.launched, error == 1e-15 ? 6 : 5) << bad << ", " << error;  // once more: are launches the same again?
      EXPECT_EQ(p.recorder.alive, 0);
      EXPECT_TRUE(at::equal(p.sums, at::full({1, 4}, 15.0, at::kDouble)));
    }
}

TEST(ReplayedProducts, AProductThatIsNeverTheSameBitsIsHeldAgainstRounding) {
  for (const double change : {1e-15, 1e-3}) {
    FakeRecorder recorder;
    const at::Tensor v = at::ones({1, 4}, at::kDouble), sums = at::zeros({1, 4}, at::kDouble);
    ReplayedProducts products(recorder, "rows 0 to 3", [&] { return recorder.now; });
    int times = 0;
    const auto product = [&] {
      sums.add_(v, 3 * (1 + change * ++times));
      if (!recorder.within_replay) recorder.now += recorder.times.launches;
    };
    for (int i = 0; i < 4; ++i) products.add(v, sums, product);
    EXPECT_EQ(products.replays(), change < 1e-10);
    EXPECT_TRUE(at::allclose(sums, at::full({1, 4}, 12.0, at::kDouble), 10 * change, 0));
  }
}

TEST(ReplayedProducts, AProductThatIsNotFiniteIsNotRecordedForGood) {
  Problem p;
  p.v.fill_(NAN);
  for (int i = 0; i < 4; ++i) p.add();
  EXPECT_EQ(p.recorder.alive, 0);
  EXPECT_EQ(p.launched, 4);
}

TEST(ReplayedProducts, EachNumberOfVectorsHasAGraphOfItsOwn) {
  Problem p;
  const at::Tensor w = at::ones({3, 4}, at::kDouble), sums = at::zeros({3, 4}, at::kDouble);
  for (int i = 0; i < 5; ++i) {
    p.add();
    p.add(w, sums);
  }
  EXPECT_EQ(p.recorder.alive, 2);
  EXPECT_EQ(p.launched, 6);
  EXPECT_TRUE(at::equal(sums, at::full({3, 4}, 15.0, at::kDouble)));
  for (std::int64_t k = 4; k < 10; ++k) {  // but not any number of them
    const at::Tensor many = at::ones({k, 4}, at::kDouble), of_many = at::zeros({k, 4}, at::kDouble);
    for (int i = 0; i < 5; ++i) p.add(many, of_many);
    EXPECT_TRUE(at::equal(of_many, at::full({k, 4}, 15.0, at::kDouble)));
  }
  EXPECT_EQ(p.recorder.alive, 4);
}

TEST(ReplayedProducts, OtherMemoryIsRecordedAnew) {
  Problem p;
  for (int i = 0; i < 4; ++i) p.add();
  const at::Tensor elsewhere = at::zeros_like(p.sums);
  for (int i = 0; i < 4; ++i) p.add(p.v, elsewhere);
  EXPECT_TRUE(at::equal(elsewhere, at::full({1, 4}, 12.0, at::kDouble)));
  EXPECT_TRUE(at::equal(p.sums, elsewhere));
  EXPECT_EQ(p.recorder.recordings, 2);
  EXPECT_EQ(p.recorder.alive, 1);
}

TEST(ReplayedProducts, LetGoOfGraphsAndOfTheirMemory) {
  Problem p;
  for (int i = 0; i < 4; ++i) p.add();
  const auto users = p.sums.use_count();
  p.products.forget();
  EXPECT_EQ(p.recorder.alive, 0);
  EXPECT_LT(p.sums.use_count(), users);
  for (int i = 0; i < 3; ++i) p.add();
  EXPECT_TRUE(p.products.replays());
  p.products.stop();
  EXPECT_EQ(p.recorder.alive, 0);
  for (int i = 0; i < 4; ++i) p.add();
  EXPECT_EQ(p.recorder.recordings, 2);
  EXPECT_TRUE(at::equal(p.sums, at::full({1, 4}, 33.0, at::kDouble)));
}

// --- products of a program ------------------------------------------------------------------------------------------

/// Its graphs add what the recorded work has added to the sums once, which takes no time.
class RecordsSums final : public LaunchRecorder {
 public:
  struct Graph final : public LaunchGraph {
    Graph(at::Tensor to, at::Tensor what, int& replays) : sums(std::move(to)), added(std::move(what)), count(replays) {}
    void replay() override {
      sums.add_(added);
      ++count;
    }
    at::Tensor sums, added;
    int& count;
  };

  explicit RecordsSums(at::Tensor the_sums) : sums(std::move(the_sums)) {}
  void rehearse(const std::function<void()>& work) override { work(); }
  std::unique_ptr<LaunchGraph> record(const std::function<void()>& work) override {
    const at::Tensor before = sums.clone();
    sums.zero_();
    work();
    const at::Tensor added = sums.clone();
    sums.copy_(before);
    return std::make_unique<Graph>(sums, added, replays);
  }
  void wait() override {}
  std::int64_t bytes() const override { return 0; }

  at::Tensor sums;
  int replays = 0;
};

struct OfProgram {
  test::Fixture fixture;
  Program program;
  LocalLoss local;
  MicroBatch batch;
  std::unique_ptr<BatchProducts> products;
  at::Tensor v, sums;
  RecordsSums* recorder;

  OfProgram(const std::string& name, const ProductChoice& choice)
      : fixture(name),
        program(Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU})),
        local(program, fixture.shard(program), fixture.loss(), fixture.output_index()),
        batch(local.batch(local.micro_batches(program.static_batch().value_or(8)).front())) {
    local.choose(choice);
    v = at::ones({1, program.layout().size()}, at::kDouble);
    sums = at::zeros_like(v);
    auto owned = std::make_unique<RecordsSums>(sums);
    recorder = owned.get();
    local.record_with(std::move(owned));
    products = local.products(batch);
  }

  /// Four products, the same bits each time.
  void take_four() {
    at::Tensor first;
    for (int i = 0; i < 4; ++i) {
      sums.zero_();
      products->add(v, sums);
      if (!first.defined()) first = sums.clone();
      EXPECT_TRUE(at::equal(sums, first));
    }
  }
};

TEST(ReplayedProductsOfAProgram, AreOfWhatIsKept) {
  OfProgram p("mlp_ce", {});
  p.take_four();
  EXPECT_FALSE(p.products->replays());
  for (int i = 0; i < 2; ++i) {
    p.products->keep();
    EXPECT_FALSE(p.products->replays());
    p.take_four();
    EXPECT_TRUE(p.products->replays());
    EXPECT_EQ(p.recorder->replays, 3 * (i + 1));
  }
  p.products->add_gradient(p.sums[0]);  // after which nothing is kept
  EXPECT_FALSE(p.products->replays());
  p.take_four();
  EXPECT_FALSE(p.products->replays());
  p.products->keep();
  p.take_four();
  p.products->drop_recorded(/*for_good=*/false);
  EXPECT_FALSE(p.products->replays());
  p.take_four();
  EXPECT_TRUE(p.products->replays());
  p.products->drop_recorded(/*for_good=*/true);
  p.take_four();
  EXPECT_FALSE(p.products->replays());
}

TEST(ReplayedProductsOfAProgram, AreLaunchedWhereTurnedOffOrWhereAutogradHasAPart) {
  OfProgram off("mlp_ce", {.cuda_graphs = false});
  off.products->keep();
  off.take_four();
  EXPECT_FALSE(off.products->replays());
  OfProgram other("fourier", {});
  ASSERT_TRUE(other.local.tangent_program().uses_fallback());
  other.products->keep();
  other.take_four();
  EXPECT_FALSE(other.products->replays());
}

// --- on a GPU -------------------------------------------------------------------------------------------------------

class CudaGraphs : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "no GPU";
  }
};
class CudaGraphsOfModels : public CudaGraphs, public ::testing::WithParamInterface<const char*> {};

TEST_P(CudaGraphsOfModels, GiveTheProductsThatLaunchesGive) {
  const test::Fixture fixture(GetParam());
  Program program = Program::load(fixture.path(".pt2"), {at::kFloat, c10::Device(at::kCUDA, 0)});
  LocalLoss local(program, fixture.shard(program), fixture.loss(), fixture.output_index());
  local.choose({.cuda_graphs = false});
  const MicroBatch batch = local.batch(local.micro_batches(program.static_batch().value_or(4)).front());
  const std::unique_ptr<BatchProducts> kept = local.products(batch);
  kept->keep();
  ASSERT_NE(local.recorder(), nullptr);
  double now = 0;  // launches seem to take all the time, and a replay none
  ReplayedProducts replayed(*local.recorder(), "the test", [&] { return now; });
  at::manual_seed(5);
  for (const std::int64_t k : {1, 3}) {
    const at::Tensor v = at::empty({k, program.layout().size()}, local.tensor_options()), sums = at::zeros_like(v);
    for (int i = 0; i < 6; ++i) {
      v.copy_(at::randn(v.sizes()));
      sums.fill_(0.5);
      const at::Tensor expected = sums.clone();
      kept->add(v, expected);
      replayed.add(v, sums, [&] {
        kept->add(v, sums);
        now += 1;
      });
      EXPECT_TRUE(at::equal(sums, expected)) << "product " << i << " of " << k;
      EXPECT_EQ(replayed.replays(), k > 1 || i >= 2);
    }
  }
  EXPECT_GT(local.recorder()->bytes(), 0);
}

INSTANTIATE_TEST_SUITE_P(Models, CudaGraphsOfModels, ::testing::Values("mlp_ce", "gpt2", "cnn_bn"));

TEST_F(CudaGraphs, AWorkThatWaitsIsRefusedAndTheProcessGoesOn) {
  const std::unique_ptr<LaunchRecorder> recorder = launch_recorder(c10::Device(at::kCUDA, 0));
  const at::Tensor x = at::ones({8}, at::TensorOptions().device(at::kCUDA).dtype(at::kFloat)), sum = at::zeros_like(x);
  const auto waits = [&] { sum.add_(x * x.sum().item<double>()); };
  EXPECT_ANY_THROW(recorder->record(waits));
  EXPECT_ANY_THROW(recorder->record([&] { sum.add_(at::ones({8}).to(sum.device())); }));  // copies from the host
  EXPECT_ANY_THROW(recorder->record([&] { throw std::runtime_error("of its own"); }));
  waits();
  EXPECT_EQ(sum.sum().item<double>(), 64);
  const auto launches = [&] { sum.add_(at::exp(x - 1)); };
  recorder->rehearse(launches);
  const std::unique_ptr<LaunchGraph> graph = recorder->record(launches);
  EXPECT_EQ(sum.sum().item<double>(), 72);
  graph->replay();
  EXPECT_EQ(sum.sum().item<double>(), 80);
}

}  // namespace
}  // namespace hesspect::replayed_products_test
