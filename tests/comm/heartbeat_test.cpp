// That nobody who lives is taken for lost. Who is lost is told by heartbeat_program.cpp.
#include "hesspect/comm/heartbeat.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "hesspect/comm/make_communicator.h"
#include "hesspect/core/timer.h"

namespace hesspect::heartbeat_test {
namespace {

constexpr double kLostAfterS = 1.5, kLongS = 2 * kLostAfterS;

class HeartbeatTest : public ::testing::Test {
 protected:
  Heartbeat::OnLost count() {
    return [this](int, const std::string&, double) { ++lost; };
  }
  std::unique_ptr<Communicator> world = make_host_communicator();
  std::atomic<int> lost = 0;
};

void compute(double seconds) {
  const Timer timer;
  volatile double x = 1;
  while (timer.elapsed_s() < seconds) x = x * 1.0000001;
}

TEST_F(HeartbeatTest, RanksThatComputeOrWaitInACollectiveLive) {
  {
    const Heartbeat heartbeat(*world, kLostAfterS, count());
    for (const int busy : {0, world->size() - 1}) {
      if (world->rank() == busy) compute(kLongS);
      world->barrier();
    }
  }
  EXPECT_EQ(lost, 0);
}

TEST_F(HeartbeatTest, RanksMayLeaveLongBeforeOthers) {
  for (const int last : {0, world->size() - 1}) {
    {
      const Heartbeat heartbeat(*world, kLostAfterS, count());
      if (world->rank() == last) std::this_thread::sleep_for(std::chrono::duration<double>(2 * kLostAfterS));
    }
    EXPECT_EQ(lost, 0);
  }
}

TEST_F(HeartbeatTest, ManyShortOnes) {
  for (int i = 0; i < 50; ++i) const Heartbeat heartbeat(*world, 10, count());
  world->barrier();
  EXPECT_EQ(lost, 0);
}

TEST_F(HeartbeatTest, AnErrorDoesNotWaitForTheOthers) {
  const Timer timer;
  if (world->rank() == 0) {
    EXPECT_THROW(
        {
          const Heartbeat heartbeat(*world, 1000, count());
          throw std::runtime_error("rank 0 alone");
        },
        std::runtime_error);
    EXPECT_LT(timer.elapsed_s(), 60);
    world->barrier();
  } else {
    EXPECT_THROW(
        {
          const Heartbeat heartbeat(*world, 1000, count());
          world->barrier();  // rank 0 is out by now
          throw std::runtime_error("the others later");
        },
        std::runtime_error);
  }
  EXPECT_EQ(lost, 0);
}

TEST_F(HeartbeatTest, OffWhereNothingIsAsked) {
  const Heartbeat heartbeat(*world, 0, count());
  LocalCommunicator alone;
  const Heartbeat of_one(alone, 10, count());
}

}  // namespace
}  // namespace hesspect::heartbeat_test
