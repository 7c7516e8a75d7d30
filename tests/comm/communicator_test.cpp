// The interface's tests, over every backend there is at this number of ranks: local alone, MPI always, NCCL where each
// rank finds a GPU of its own.
#include "hesspect/comm/communicator.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "hesspect/comm/make_communicator.h"
#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/core/errors.h"

namespace hesspect::communicator_test {
namespace {

struct Case {
  const char* backend;
  at::ScalarType dtype;
};

class CommunicatorTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    auto world = MpiCommunicator::world();
    const std::string backend = GetParam().backend;
    if (backend == "local") {
      if (world->size() > 1) GTEST_SKIP() << "one rank only";
      comm_ = std::make_unique<LocalCommunicator>();
    } else if (backend == "mpi") {
      comm_ = std::move(world);
    } else if (backend == "mpi in small pieces") {  // the splitting of long messages, at lengths that fit a test
      comm_ = MpiCommunicator::world(64);
    } else {
      if (world->size() < 2 || world->any(cuda_device_count() < world->size()))
        GTEST_SKIP() << "not a GPU for each of several ranks";
      device_ = choose_device("cuda", *world);
      comm_ = make_communicator(device_, std::move(world));
    }
  }

  /// [n] entries that tell their rank and index.
  at::Tensor mine(std::int64_t n, int rank) const {
    return (at::arange(n, at::kDouble) + 1000.0 * rank).to(at::TensorOptions().dtype(GetParam().dtype).device(device_));
  }
  at::Tensor zeros(std::int64_t n) const {
    return at::zeros({n}, at::TensorOptions().dtype(GetParam().dtype).device(device_));
  }
  int size() const { return comm_->size(); }
  int rank() const { return comm_->rank(); }

  c10::Device device_ = at::kCPU;
  std::unique_ptr<Communicator> comm_;
};

TEST_P(CommunicatorTest, AllReduceSum) {
  for (const std::int64_t n : {0, 1, 37, 5000}) {
    at::Tensor tensor = mine(n, rank()), expected = zeros(n);
    for (int r = 0; r < size(); ++r) expected += mine(n, r);
    comm_->all_reduce_sum(tensor);
    EXPECT_TRUE(at::equal(tensor, expected)) << n;
  }
}

TEST_P(CommunicatorTest, AllGather) {
  for (const std::int64_t m : {0, 1, 37, 5000}) {
    at::Tensor full = zeros(m * size());
    comm_->all_gather(mine(m, rank()), full);
    for (int r = 0; r < size(); ++r) EXPECT_TRUE(at::equal(full.narrow(0, r * m, m), mine(m, r))) << m;
  }
}

// Entries of many sizes and both signs, whose sum depends on its order: MPI's is in rank order, however a message is
// cut; NCCL's is as its rings have it.
TEST_P(CommunicatorTest, ReduceScatterSumIsInRankOrder) {
  const double rounding = GetParam().dtype == at::kFloat ? 0x1p-23 : 0x1p-52;
  for (const std::int64_t m : {0, 1, 37, 5000}) {
    const auto entries = [&](int r) {
      const at::Tensor phase = at::arange(m * size(), at::kDouble) + 17.0 * r;
      return (at::exp(at::sin(phase) * 8) * at::cos(phase * phase)).to(zeros(0).options());
    };
    at::Tensor full = entries(rank()), expected = zeros(m * size()), reversed = zeros(m * size());
    at::Tensor sizes = zeros(m * size()), shard = zeros(m);
    for (int r = 0; r < size(); ++r) {
      expected += entries(r);
      reversed += entries(size() - 1 - r);
      sizes += entries(r).abs();
    }
    if (size() > 2 && m > 1) {
      ASSERT_FALSE(at::equal(expected, reversed));
    }
    comm_->reduce_scatter_sum(full, shard);
    const at::Tensor own = expected.narrow(0, rank() * m, m);
    if (std::string(GetParam().backend) != "nccl") {
      EXPECT_TRUE(at::equal(shard, own)) << m;
    } else {
      const at::Tensor most = sizes.narrow(0, rank() * m, m) * (size() * rounding);
      EXPECT_TRUE(((shard - own).abs() <= most).all().item<bool>()) << m;
    }
  }
}

TEST_P(CommunicatorTest, ScatterAndGatherAreTheHalvesOfAllReduce) {
  const std::int64_t m = 123;
  at::Tensor full = mine(m * size(), rank()), whole = full.clone(), shard = zeros(m), back = zeros(m * size());
  comm_->reduce_scatter_sum(full, shard);
  comm_->all_gather(shard, back);
  comm_->all_reduce_sum(whole);
  EXPECT_TRUE(at::equal(back, whole));
}

// Gathers and sums under way at once, polled by each rank as often as it likes and waited for out of order, with other
// messages between: bitwise what the verbs that wait give.
TEST_P(CommunicatorTest, BegunMessagesAreAsThoseThatWait) {
  constexpr std::int64_t kMessages = 5;
  const auto length = [](std::int64_t i) { return i == 2 ? 0 : 37 + 211 * i; };
  std::vector<at::Tensor> shards, full, gathered, parts, sums, kept;
  std::vector<std::unique_ptr<Pending>> gathers, reductions;
  for (std::int64_t i = 0; i < kMessages; ++i) {
    const std::int64_t m = length(i);
    shards.push_back(mine(m, rank()) + static_cast<double>(i));
    gathered.push_back(zeros(m * size()));
    full.push_back(at::sin(mine(m * size(), rank()) * (0.1 + static_cast<double>(i))));
    kept.push_back(full.back().clone());
    sums.push_back(zeros(m));
  }
  for (std::size_t i = 0; i < kMessages; ++i) {
    gathers.push_back(comm_->begin_all_gather(shards[i], gathered[i]));
    reductions.push_back(comm_->begin_reduce_scatter_sum(full[i], sums[i]));
    for (int k = 0; k < 3 * (rank() + 1); ++k) gathers.back()->poll(), reductions.front()->poll();
    EXPECT_EQ(comm_->sum(1.0), size());
  }
  for (std::size_t i = kMessages; i-- > 0;) {
    reductions[i]->wait();
    reductions[i]->wait();  // again is nothing
    gathers[i]->poll();
  }
  for (const std::unique_ptr<Pending>& gather : gathers) gather->wait();
  for (std::size_t i = 0; i < kMessages; ++i) {
    at::Tensor whole = zeros(gathered[i].numel()), sum = zeros(sums[i].numel());
    comm_->all_gather(shards[i], whole);
    comm_->reduce_scatter_sum(kept[i], sum);
    EXPECT_TRUE(at::equal(gathered[i], whole)) << i;
    EXPECT_TRUE(at::equal(sums[i], sum)) << i;
  }
}

TEST_P(CommunicatorTest, Broadcast) {
  for (int root = 0; root < size(); ++root) {
    at::Tensor tensor = mine(300, rank());
    comm_->broadcast(tensor, root);
    EXPECT_TRUE(at::equal(tensor, mine(300, root)));
  }
}

TEST_P(CommunicatorTest, HostSumsAreBitwiseTheSameAndInRankOrder) {
  std::vector<double> values(50), expected(50);
  const auto entry = [](int r, std::size_t i) { return std::exp(std::sin(static_cast<double>(i) + 17.0 * r) * 20); };
  for (std::size_t i = 0; i < 50; ++i) {
    values[i] = entry(rank(), i);
    for (int r = 0; r < size(); ++r) expected[i] += entry(r, i);
  }
  comm_->all_reduce_sum(std::span<double>(values));
  EXPECT_EQ(values, expected);
  comm_->all_reduce_sum(std::span<double>());
}

TEST_P(CommunicatorTest, BytesOfAnyLength) {
  for (const std::size_t each : {std::size_t{0}, std::size_t{1}, std::size_t{1000}}) {
    const auto text = [&](int r) {
      return std::string(each * static_cast<std::size_t>(r + 1), static_cast<char>('a' + r)) + '\0';
    };
    const std::vector<std::string> all = comm_->all_gather_bytes(text(rank()));
    ASSERT_EQ(all.size(), static_cast<std::size_t>(size()));
    for (int r = 0; r < size(); ++r) EXPECT_EQ(all[static_cast<std::size_t>(r)], text(r));
  }
  EXPECT_EQ(comm_->all_gather_bytes(""), std::vector<std::string>(static_cast<std::size_t>(size())));
  comm_->barrier();
}

TEST_P(CommunicatorTest, BroadcastBytesFromAnyRoot) {
  for (const std::size_t each : {std::size_t{0}, std::size_t{1}, std::size_t{1000}})
    for (int root = 0; root < size(); ++root) {
      const auto text = [&](int r) {
        return std::string(each * static_cast<std::size_t>(r + 1), static_cast<char>('a' + r)) + '\0';
      };
      EXPECT_EQ(comm_->broadcast_bytes(text(rank()), root), text(root));
    }
  EXPECT_EQ(comm_->broadcast_bytes(rank() == 0 ? "" : "not heard"), "");
}

TEST_P(CommunicatorTest, AnyIsTrueEverywhereWhereOneRankSaysSo) {
  EXPECT_FALSE(comm_->any(false));
  for (int r = 0; r < size(); ++r) EXPECT_TRUE(comm_->any(rank() == r));
}

TEST_P(CommunicatorTest, LargestAndSmallestAreExact) {
  constexpr std::int64_t kOdd = (std::int64_t{1} << 60) + 1;  // no double holds it
  EXPECT_EQ(comm_->max(kOdd - 2 * rank()), kOdd);
  EXPECT_EQ(comm_->min(kOdd + 2 * rank()), kOdd);
  EXPECT_EQ(comm_->max(-kOdd + 2 * rank()), -kOdd + 2 * (size() - 1));
  EXPECT_EQ(comm_->min(-5), -5);
}

TEST_P(CommunicatorTest, Sums) {
  const double ranks = size() * (size() - 1) / 2.0;
  EXPECT_EQ(comm_->sum(rank() + 0.5), ranks + 0.5 * size());
  EXPECT_EQ(comm_->sum({1.0, static_cast<double>(rank())}), (std::vector<double>{1.0 * size(), ranks}));
}

TEST_P(CommunicatorTest, Rank0sValuesHoldOnAllRanksToTheBit) {
  EXPECT_TRUE(comm_->of_rank0(rank() == 0));
  EXPECT_FALSE(comm_->of_rank0(rank() != 0));
  struct Plain {
    std::int64_t a;
    double b;
  };
  const Plain plain = comm_->of_rank0(Plain{rank() + (std::int64_t{1} << 60), -0.0 - rank()});
  EXPECT_EQ(plain.a, std::int64_t{1} << 60);
  EXPECT_TRUE(plain.b == 0 && std::signbit(plain.b));
  const double third = std::nextafter(1.0 / 3, rank());
  const std::vector<double> values = comm_->of_rank0(
      std::vector<double>{-0.0 - rank(), third, std::nan(rank() == 0 ? "7" : ""), 1e-320 * (rank() + 1)});
  EXPECT_TRUE(values[0] == 0 && std::signbit(values[0]));
  EXPECT_EQ(values[1], std::nextafter(1.0 / 3, 0));
  EXPECT_TRUE(std::isnan(values[2]));
  EXPECT_EQ(values[3], 1e-320);
  // Each rank's own work may even have found another number of them.
  EXPECT_EQ(comm_->of_rank0(std::vector<double>(static_cast<std::size_t>(2 + rank()), 3.5)),
            std::vector<double>(2, 3.5));
}

TEST_P(CommunicatorTest, TensorsThatDoNotFitAreRefused) {
  at::Tensor strided = zeros(20).narrow(0, 0, 20).as_strided({10}, {2}), ints = zeros(3).to(at::kInt);
  EXPECT_THROW(comm_->all_reduce_sum(strided), Error);
  EXPECT_THROW(comm_->broadcast(ints, 0), Error);
  at::Tensor full = zeros(3 * size() + 1);
  EXPECT_THROW(comm_->all_gather(zeros(3), full), Error);
  at::Tensor shard = zeros(3);
  EXPECT_THROW(comm_->reduce_scatter_sum(full, shard), Error);
}

INSTANTIATE_TEST_SUITE_P(Backends, CommunicatorTest,
                         ::testing::Values(Case{"local", at::kFloat}, Case{"local", at::kDouble},
                                           Case{"mpi", at::kFloat}, Case{"mpi", at::kDouble},
                                           Case{"mpi in small pieces", at::kFloat},
                                           Case{"mpi in small pieces", at::kDouble}, Case{"nccl", at::kFloat},
                                           Case{"nccl", at::kDouble}),
                         [](const ::testing::TestParamInfo<Case>& which) {
                           std::string name = which.param.backend;
                           for (char& c : name)
                             if (c == ' ') c = '_';
                           return name + (which.param.dtype == at::kFloat ? "_float32" : "_float64");
                         });

TEST(MpiCommunicator, SplitsIntoGroups) {
  const auto world = MpiCommunicator::world();
  const int color = world->rank() % 2;
  const auto group = world->split(color, -world->rank());  // in reverse order
  EXPECT_EQ(group->size(), (world->size() + 1 - color) / 2);
  double ranks[1] = {static_cast<double>(world->rank())};
  group->all_reduce_sum(std::span<double>(ranks));
  double expected = 0;
  int before = 0;
  for (int r = color; r < world->size(); r += 2) {
    expected += r;
    before += r > world->rank();
  }
  EXPECT_EQ(ranks[0], expected);
  EXPECT_EQ(group->rank(), before);
}

TEST(MakeCommunicator, SplitsEitherHost) {
  const auto world = MpiCommunicator::world();
  const auto group = split(*world, world->rank() / 2, 0);
  EXPECT_EQ(group->backend(), "mpi");
  EXPECT_EQ(group->size(), std::min(2, world->size() - world->rank() / 2 * 2));
  EXPECT_EQ(group->rank(), world->rank() % 2);
  const LocalCommunicator alone;
  EXPECT_EQ(split(alone, 3, 0)->backend(), "local");
}

TEST(MpiCommunicator, FailingCallsNameCallAndRank) {
  const auto world = MpiCommunicator::world();
  at::Tensor tensor = at::zeros({4});
  try {
    world->broadcast(tensor, 99);
    FAIL();
  } catch (const CommError& error) {
    EXPECT_EQ(error.call, "MPI_Bcast");
    EXPECT_EQ(error.rank, world->rank());
    EXPECT_EQ(error.exit_code(), ExitCode::kCommFailed);
  }
}

TEST(MpiCommunicator, RefusesCudaTensors) {
  if (cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device";
  const auto world = MpiCommunicator::world();
  at::Tensor tensor = at::zeros({4}, at::TensorOptions().device(at::kCUDA));
  EXPECT_THROW(world->all_reduce_sum(tensor), Error);
}

}  // namespace
}  // namespace hesspect::communicator_test
