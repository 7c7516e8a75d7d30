#include "hesspect/comm/failure.h"

#include <gtest/gtest.h>

#include <new>
#include <stdexcept>

#include "hesspect/core/errors.h"

namespace hesspect::failure_test {
namespace {

int rank() {
  int value = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &value);
  return value;
}

int size() {
  int value = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &value);
  return value;
}

template <class Exception>
Failure failure_of(const Exception& exception) {
  try {
    throw exception;
  } catch (...) {
    return current_failure();
  }
}

TEST(Failure, EveryKindOfExceptionHasItsExitCode) {
  EXPECT_EQ(failure_of(UsageError("u")).exit_code, 2);
  EXPECT_EQ(failure_of(InputError("i")).exit_code, 4);
  EXPECT_EQ(failure_of(InputError("i")).message, "i");
  EXPECT_EQ(failure_of(std::bad_alloc()).exit_code, 5);
  EXPECT_EQ(failure_of(CommError("MPI_Send", 1, "c")).exit_code, 6);
  EXPECT_EQ(failure_of(std::runtime_error("r")).exit_code, 70);
  EXPECT_EQ(failure_of(7).exit_code, 70);
}

TEST(FailureMeeting, RanksThatAllFailEndWithTheCodeOfRank0) {
  FailureMeeting meeting;
  int code = 4 + rank();
  EXPECT_TRUE(meeting.all_failed(code, 30));
  EXPECT_EQ(code, 4);
}

/// An error that met one rank alone: it must not wait for the others, who are in some collective.
TEST(FailureMeeting, ARankThatFailsAloneFindsOut) {
  if (size() == 1) GTEST_SKIP() << "needs two ranks";
  FailureMeeting meeting;
  int code = 70;
  if (rank() == size() - 1) {
    EXPECT_FALSE(meeting.all_failed(code, 0.2));
  }
  MPI_Barrier(MPI_COMM_WORLD);
  EXPECT_TRUE(meeting.all_failed(code, 30));  // so that nothing is left open
}

}  // namespace
}  // namespace hesspect::failure_test
