// The same α and β on any number of ranks, compared with the run of one rank in the same process.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "hesspect/comm/make_communicator.h"
#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/core/errors.h"
#include "hesspect/krylov/lanczos.h"
#include "krylov/test_operators.h"

namespace hesspect::lanczos_mpi_test {
namespace {

using testing::DenseOperator;
using testing::DiagonalOperator;
using testing::pattern_vector;
using testing::RotatedDiagonalOperator;

template <class MakeOperator>
void expect_same_run(MakeOperator&& make, std::int64_t steps, double tolerance) {
  LocalCommunicator alone;
  const auto world = MpiCommunicator::world();
  auto serial = make(static_cast<Communicator&>(alone));
  auto spread = make(static_cast<Communicator&>(*world));
  Lanczos one(serial, pattern_vector(serial)), many(spread, pattern_vector(spread));
  EXPECT_EQ(one.extend(serial, steps), many.extend(spread, steps));
  ASSERT_EQ(one.t().alpha.size(), many.t().alpha.size());
  for (std::size_t i = 0; i < one.t().alpha.size(); ++i) {
    EXPECT_NEAR(one.t().alpha[i], many.t().alpha[i], tolerance) << i;
    EXPECT_NEAR(one.t().beta[i], many.t().beta[i], tolerance) << i;
  }
  EXPECT_EQ(one.t().breakdown(), many.t().breakdown());
  EXPECT_NEAR(many.orthogonality_loss(), 0, 1e-5);

  // Bitwise the same on all ranks.
  std::string bytes(reinterpret_cast<const char*>(many.t().alpha.data()), many.t().alpha.size() * sizeof(double));
  bytes.append(reinterpret_cast<const char*>(many.t().beta.data()), many.t().beta.size() * sizeof(double));
  for (const std::string& other : world->all_gather_bytes(bytes)) EXPECT_EQ(other, bytes);
}

TEST(LanczosMpi, RotatedDiagonalWithAnUnevenTail) {
  expect_same_run(
      [](Communicator& comm) {
        return RotatedDiagonalOperator(comm, 10007, at::kDouble, [](std::int64_t i) {
          return i < 5 ? 10.0 + static_cast<double>(i) : std::cos(static_cast<double>(i));
        });
      },
      20, 1e-12);
}

TEST(LanczosMpi, Dense) {
  const at::Tensor matrix = testing::gaussian_matrix(101, 7);
  expect_same_run([&](Communicator& comm) { return DenseOperator(comm, matrix); }, 40, 1e-12);
}

TEST(LanczosMpi, FewerEntriesThanRanks) {  // some ranks hold nothing but padding
  const at::Tensor matrix = testing::matrix_with_spectrum({3, 1}, 7);
  expect_same_run([&](Communicator& comm) { return DenseOperator(comm, matrix); }, 10, 1e-12);
}

TEST(LanczosMpi, Float32) {
  expect_same_run(
      [](Communicator& comm) {
        return RotatedDiagonalOperator(comm, 10007, at::kFloat, [](std::int64_t i) {
          return i < 5 ? 10.0 + static_cast<double>(i) : std::cos(static_cast<double>(i));
        });
      },
      8, 1e-3);
}

TEST(LanczosMpi, ANonFiniteShardIsAnErrorOnAllRanks) {
  const auto world = MpiCommunicator::world();
  class Failing : public DiagonalOperator {
   public:
    explicit Failing(Communicator& comm)
        : DiagonalOperator(comm, 1000, at::kDouble, [](std::int64_t i) { return static_cast<double>(i); }) {}
    void apply(const at::Tensor& x, at::Tensor& y) override {
      DiagonalOperator::apply(x, y);
      if (products == 3 && comm_.rank() == comm_.size() - 1) y[0] = std::nan("");
    }
  } op(*world);
  Lanczos run(op, pattern_vector(op));
  try {
    run.extend(op, 10);
    ADD_FAILURE() << "no error";
  } catch (const NumericalError& error) {
    EXPECT_EQ(error.step, 2);
  }
}

}  // namespace
}  // namespace hesspect::lanczos_mpi_test
