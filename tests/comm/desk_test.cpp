#include "hesspect/comm/desk.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "hesspect/comm/make_communicator.h"

namespace hesspect::desk_test {
namespace {

class DeskTest : public ::testing::Test {
 protected:
  std::unique_ptr<Communicator> world = make_host_communicator();
};

TEST_F(DeskTest, AnswersKnowWhoAskedAndMayBeOfAnyLength) {
  Desk desk(*world,
            [](int rank, const std::string& question) { return std::to_string(rank) + ":" + question + question; });
  for (const std::size_t length : {0, 1, 1000, 3 << 20}) {
    const std::string question(length, static_cast<char>('a' + world->rank()));
    EXPECT_TRUE(desk.ask(question) == std::to_string(world->rank()) + ":" + question + question) << length;
  }
  world->barrier();
}

TEST_F(DeskTest, DealsEachNumberOnce) {
  constexpr int kNumbers = 300;
  int next = 0;  // not atomic: answers are given one at a time
  Desk desk(*world, [&](int, const std::string&) { return next < kNumbers ? std::to_string(next++) : std::string(); });
  std::vector<double> drawn(kNumbers);
  for (std::string number = desk.ask("next"); !number.empty(); number = desk.ask("next"))
    drawn[static_cast<std::size_t>(std::stoi(number))] += 1;
  world->all_reduce_sum(std::span<double>(drawn));
  EXPECT_EQ(drawn, std::vector<double>(kNumbers, 1.0));
}

TEST_F(DeskTest, AnswersWhileRank0IsElsewhere) {
  if (world->size() == 1) GTEST_SKIP() << "nobody to ask";
  std::atomic<int> asked = 0;
  Desk desk(*world, [&](int, const std::string& question) {
    ++asked;
    return question;
  });
  if (world->rank() == 0) {  // no call of MPI from here until all others have been answered
    const int expected = 20 * (world->size() - 1);
    const auto start = std::chrono::steady_clock::now();
    while (asked < expected && std::chrono::steady_clock::now() - start < std::chrono::seconds(60))
      std::this_thread::yield();
    EXPECT_GE(asked, expected);
  } else {
    for (int i = 0; i < 20; ++i) {
      EXPECT_EQ(desk.ask(std::to_string(i)), std::to_string(i));
    }
  }
  // Now rank 0 waits inside a collective that the others join only when they have had answers from it.
  for (int i = 0; i < 20 && world->rank() != 0; ++i) EXPECT_EQ(desk.ask("again"), "again");
  world->barrier();
}

TEST_F(DeskTest, Rank0AsksItselfBesideTheOthers) {
  int sum = 0;
  Desk desk(*world, [&](int, const std::string& question) { return std::to_string(sum += std::stoi(question)); });
  for (int i = 0; i < 200; ++i) desk.ask("1");
  world->barrier();
  const std::string total = desk.ask("0");
  EXPECT_EQ(total, std::to_string(200 * world->size()));
  world->barrier();
}

TEST_F(DeskTest, OneAfterAnother) {
  for (int i = 0; i < 5; ++i) {
    Desk desk(*world, [i](int, const std::string&) { return std::to_string(i); });
    EXPECT_EQ(desk.ask(""), std::to_string(i));
    world->barrier();
  }
}

}  // namespace
}  // namespace hesspect::desk_test
