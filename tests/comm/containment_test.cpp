// Runs that fail on one rank alone, wherever the others are at that moment.
#include "hesspect/comm/containment.h"

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include <functional>
#include <new>
#include <stdexcept>

#include "hesspect/comm/agree.h"
#include "hesspect/comm/desk.h"
#include "hesspect/comm/failure.h"
#include "hesspect/comm/make_communicator.h"

namespace hesspect::containment_test {
namespace {

class ContainmentTest : public ::testing::Test {
 protected:
  std::unique_ptr<Communicator> host = make_host_communicator();

  /// @return what this rank's run ended with: "", "peer" or the error's text
  std::string contained(const std::function<void(Communicator&)>& run) {
    Containment containment(*host);
    std::string end;
    try {
      run(containment.world());
    } catch (const PeerFailed&) {
      end = "peer";
    } catch (...) {
      end = current_failure().message;
    }
    if (!end.empty()) containment.fail(end != "peer");
    EXPECT_TRUE(containment.meet(60));
    return end;
  }

  /// All is as it was: a sum over the host's ranks, and a run.
  void expect_usable() {
    EXPECT_EQ(host->sum(1.0), host->size());
    EXPECT_EQ(contained([&](Communicator& world) { EXPECT_EQ(world.sum(1.0), host->size()); }), "");
  }
};

TEST_F(ContainmentTest, ARunThatEndsWell) {
  for (int i = 0; i < 40; ++i)
    EXPECT_EQ(contained([&](Communicator& world) {
                const auto group = split(world, world.rank() % 2, world.rank());
                at::Tensor numbers = at::ones({7}, at::kDouble);
                group->all_reduce_sum(numbers);
                EXPECT_EQ(numbers.sum().item<double>(), 7.0 * group->size());
              }),
              "");
}

TEST_F(ContainmentTest, AnErrorThatIsAgreedOn) {
  EXPECT_EQ(contained([](Communicator& world) {
              agree(world, [&] {
                if (world.rank() == 0) throw InputError("bad");
              });
            }),
            "bad");
  expect_usable();
}

/// Of each rank, before each of many messages, on the world and on two groups of it.
TEST_F(ContainmentTest, OneRankAloneAnywhere) {
  constexpr int kMessages = 12;
  for (int failing = 0; failing < host->size(); ++failing)
    for (int at = 0; at < kMessages; ++at) {
      const std::string end = contained([&](Communicator& world) {
        const auto group = split(world, world.rank() % 2, world.rank());
        for (int i = 0; i < kMessages; ++i) {
          if (i == at && world.rank() == failing) throw std::bad_alloc();
          at::Tensor mine = at::ones({3}, at::kDouble), all = at::empty({3 * group->size()}, at::kDouble);
          switch (i % 4) {
            case 0: group->all_gather(mine, all); break;
            case 1: world.all_gather_bytes(std::string(static_cast<std::size_t>(i), 'x')); break;
            case 2: group->reduce_scatter_sum(all, mine); break;
            default: world.broadcast_bytes("word", world.size() - 1);
          }
        }
      });
      EXPECT_EQ(end, host->rank() == failing ? "out of memory" : host->size() == 1 ? "" : "peer");
    }
  expect_usable();
}

/// It leaves after all of its messages, when the others may be done.
TEST_F(ContainmentTest, OneRankAtTheVeryEnd) {
  for (int i = 0; i < 10; ++i)
    EXPECT_EQ(contained([&](Communicator& world) {
                world.barrier();
                if (world.rank() == world.size() - 1) throw std::runtime_error("late");
              }),
              host->rank() == host->size() - 1 ? "late" : "");
  expect_usable();
}

/// Whoever asks rank 0, which is gone, hears of it.
TEST_F(ContainmentTest, WhileOthersAsk) {
  if (host->size() == 1) GTEST_SKIP() << "needs two ranks";
  for (int i = 0; i < 5; ++i) {
    const std::string end = contained([&](Communicator& world) {
      Desk desk(world, [](int, const std::string& question) { return question; });
      if (world.rank() == 0) throw std::bad_alloc();
      while (true) desk.ask("is anybody there?");
    });
    EXPECT_EQ(end, host->rank() == 0 ? "out of memory" : "peer");
  }
  expect_usable();
}

TEST_F(ContainmentTest, SeveralRanksForReasonsOfTheirOwn) {
  const std::string end = contained([&](Communicator& world) {
    if (world.rank() > 0) throw std::runtime_error("rank " + std::to_string(world.rank()));
    world.barrier();
  });
  EXPECT_EQ(end, host->rank() > 0 ? "rank " + std::to_string(host->rank()) : host->size() == 1 ? "" : "peer");
  expect_usable();
}

TEST_F(ContainmentTest, BroadcastsToRanksThatComeLater) {
  for (int i = 0; i < 20; ++i)
    EXPECT_EQ(broadcast_patiently(*host, host->rank() == 0 ? std::to_string(i) : ""), std::to_string(i));
}

}  // namespace
}  // namespace hesspect::containment_test
