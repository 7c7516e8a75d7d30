#include "hesspect/comm/agree.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <new>

#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/core/errors.h"
#include "support/forwarding_communicator.h"

namespace hesspect::agree_test {
namespace {

template <class E>
E caught(Communicator& comm, const std::function<void()>& step) {
  try {
    agree(comm, step);
  } catch (const E& error) {
    return error;
  }
  throw std::logic_error("agree threw nothing");
}

class AgreeTest : public ::testing::Test {
 protected:
  std::unique_ptr<MpiCommunicator> comm = MpiCommunicator::world();
  int last = comm->size() - 1;
  bool on_last() const { return comm->rank() == last; }
};

TEST_F(AgreeTest, NothingFails) {
  int calls = 0;
  agree(*comm, [&] { ++calls; });
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(agreed(*comm, [&] { return comm->rank() + 1; }), comm->rank() + 1);
}

TEST_F(AgreeTest, TypesAndFieldsReachAllRanks) {
  EXPECT_STREQ(caught<UsageError>(*comm,
                                  [&] {
                                    if (on_last()) throw UsageError("usage");
                                  })
                   .what(),
               "usage");
  EXPECT_STREQ(caught<InputError>(*comm,
                                  [&] {
                                    if (on_last()) throw InputError("a \n line\0");
                                  })
                   .what(),
               "a \n line");
  const auto numerical = caught<NumericalError>(*comm, [&] {
    if (on_last()) throw NumericalError(7, HUGE_VAL, "not finite");
  });
  EXPECT_EQ(numerical.step, 7);
  EXPECT_EQ(numerical.value, HUGE_VAL);
  const auto memory = caught<MemoryError>(*comm, [&] {
    if (on_last()) throw MemoryError(1LL << 40, 5, "big");
  });
  EXPECT_EQ(memory.needed_bytes, 1LL << 40);
  EXPECT_EQ(memory.available_bytes, 5);
  EXPECT_EQ(memory.exit_code(), ExitCode::kOutOfMemory);
  const auto failed = caught<CommError>(*comm, [&] {
    if (on_last()) throw CommError("MPI_Send", 3, "lost");
  });
  EXPECT_EQ(failed.call, "MPI_Send");
  EXPECT_EQ(failed.rank, 3);
  EXPECT_EQ(caught<Error>(*comm,
                          [&] {
                            if (on_last()) throw Error(ExitCode::kResubmit, "later");
                          })
                .exit_code(),
            ExitCode::kResubmit);
}

TEST_F(AgreeTest, OtherExceptions) {
  EXPECT_EQ(caught<MemoryError>(*comm,
                                [&] {
                                  if (on_last()) throw std::bad_alloc();
                                })
                .needed_bytes,
            -1);
  const Error other = caught<Error>(*comm, [&] {
    if (on_last()) throw std::out_of_range("beyond");
  });
  EXPECT_EQ(other.exit_code(), ExitCode::kInternal);
  EXPECT_STREQ(other.what(), "beyond");
  EXPECT_EQ(caught<Error>(*comm,
                          [&] {
                            if (on_last()) throw 42;
                          })
                .exit_code(),
            ExitCode::kInternal);
#ifndef __SANITIZE_ADDRESS__  // which ends the program at such a request
  // LibTorch's failed allocation: an exabyte.
  caught<MemoryError>(*comm, [&] {
    if (on_last()) at::empty({std::int64_t{1} << 58}, at::kDouble);
  });
#endif
}

TEST_F(AgreeTest, TheLowestFailingRankSpeaks) {
  const auto error = caught<InputError>(*comm, [&] {
    if (comm->rank() > 0 || comm->size() == 1) throw InputError("rank " + std::to_string(comm->rank()));
  });
  EXPECT_EQ(error.what(), comm->size() == 1 ? std::string("rank 0") : std::string("rank 1"));
}

TEST_F(AgreeTest, SuccessCostsOneSmallSum) {
  testing::ForwardingCommunicator overheard(*comm);
  agree(overheard, [] {});
  EXPECT_EQ(overheard.sums, 1);
  EXPECT_EQ(overheard.gathers, 0);
  caught<InputError>(overheard, [&] {
    if (on_last()) throw InputError("late");
  });
  EXPECT_EQ(overheard.sums, 2);
  EXPECT_EQ(overheard.gathers, 1);
}

}  // namespace
}  // namespace hesspect::agree_test
