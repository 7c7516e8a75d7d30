// Runs in lock-step: bitwise the runs that each would be alone, with one message where each alone sends its own.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/core/errors.h"
#include "krylov/runs.h"
#include "support/forwarding_communicator.h"

namespace hesspect::lock_step_test {
namespace {

using testing::DiagonalOperator;
using testing::ForwardingCommunicator;
using testing::pattern_vector;
using testing::RotatedDiagonalOperator;
using testing::Saved;
using testing::Scalars;

double entry(std::int64_t i) { return i < 5 ? 10.0 + static_cast<double>(i) : std::cos(static_cast<double>(i)); }

at::Tensor eigenvector_shard(const LinearOperator& op) {
  at::Tensor local = at::zeros({op.shard().chunk}, op.options());
  if (op.comm().rank() == 0) local[0] = 2.0;
  return local;
}

TEST(LockStep, EachRunIsTheOneItWouldBeAlone) {
  const auto world = MpiCommunicator::world();
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    RotatedDiagonalOperator op(*world, 20011, dtype, entry);
    LanczosOptions none, narrow;
    none.reorthogonalisation = Reorthogonalisation::kNone;
    narrow.basis.storage = at::ScalarType::BFloat16;
    std::vector<Lanczos> alone, joint;
    for (std::vector<Lanczos>* runs : {&alone, &joint}) {
      runs->emplace_back(op, pattern_vector(op, 0.1));
      runs->emplace_back(op, pattern_vector(op, 0.2), none);
      runs->emplace_back(op, pattern_vector(op, 0.3), narrow);
      runs->back().extend(op, 3);  // ahead of the others
    }
    for (Lanczos& run : alone) run.extend(op, 20);
    std::vector<Lanczos*> all;
    for (Lanczos& run : joint) all.push_back(&run);
    op.products = 0;
    int calls = 0;
    extend_together(op, all, 13);
    extend_together(op, all, 7, [&] { ++calls; });
    EXPECT_EQ(calls, 7);
    EXPECT_EQ(op.products, 60);
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(joint[i].steps(), i == 2 ? 23 : 20);
      EXPECT_EQ(Scalars::of(joint[i]), Scalars::of(alone[i])) << i;
    }
  }
}

TEST(LockStep, OneProductCallAndThreeMessagesAStep) {
  const auto world = MpiCommunicator::world();
  ForwardingCommunicator comm(*world);
  class Blocked : public DiagonalOperator {
   public:
    using DiagonalOperator::DiagonalOperator;
    void apply_block(std::span<const at::Tensor> x, std::span<at::Tensor> y) override {
      sizes.push_back(x.size());
      DiagonalOperator::apply_block(x, y);
    }
    std::vector<std::size_t> sizes;
  } op(comm, 5003, at::kDouble, entry);
  Lanczos a(op, pattern_vector(op, 0.1)), b(op, pattern_vector(op, 0.2)), c(op, eigenvector_shard(op));
  Lanczos* const all[] = {&a, &b, &c};
  comm.sums = 0;
  int calls = 0;
  extend_together(op, all, 4, [&] { ++calls; });
  EXPECT_EQ(op.sizes, (std::vector<std::size_t>{3, 2, 2, 2}));  // c breaks down at once, the others go on
  EXPECT_EQ(comm.sums, 1 + 4 * 3);                              // the first: have all ranks room for the vectors?
  EXPECT_EQ(calls, 4);
  EXPECT_EQ(c.steps(), 1);
  EXPECT_TRUE(c.t().breakdown());
  EXPECT_EQ(a.steps(), 4);
}

TEST(LockStep, ResumedRunsCatchUpFirst) {
  const auto world = MpiCommunicator::world();
  DiagonalOperator op(*world, 5003, at::kDouble, entry);
  Lanczos first(op, pattern_vector(op, 0.1)), second(op, pattern_vector(op, 0.2));
  Lanczos early(op, pattern_vector(op, 0.1));
  early.extend(op, 6);
  first.extend(op, 10);
  second.extend(op, 10);
  Lanczos resumed = Saved::of(early).resume(op, {}), fresh(op, pattern_vector(op, 0.2));
  Lanczos* const all[] = {&resumed, &fresh};
  op.products = 0;
  int calls = 0;
  extend_together(op, all, 10, [&] { ++calls; });
  EXPECT_EQ(op.products, 14);
  EXPECT_EQ(calls, 10);
  EXPECT_EQ(Scalars::of(resumed), Scalars::of(first));
  EXPECT_EQ(Scalars::of(fresh), Scalars::of(second));
}

TEST(LockStep, ANonFiniteProductLeavesAllRunsBetweenSteps) {
  const auto world = MpiCommunicator::world();
  class Failing : public DiagonalOperator {
   public:
    using DiagonalOperator::DiagonalOperator;
    void apply(const at::Tensor& x, at::Tensor& y) override {
      DiagonalOperator::apply(x, y);
      if (products == 6 && comm_.rank() == comm_.size() - 1) y[0] = std::nan("");
    }
  } op(*world, 1000, at::kDouble, entry);
  Lanczos a(op, pattern_vector(op, 0.1)), b(op, pattern_vector(op, 0.2));
  Lanczos* const all[] = {&a, &b};
  try {
    extend_together(op, all, 10);
    ADD_FAILURE() << "no error";
  } catch (const NumericalError& error) {
    EXPECT_EQ(error.step, 2);
  }
  EXPECT_EQ(a.steps(), 2);
  EXPECT_EQ(b.steps(), 2);
  extend_together(op, all, 8);  // the next product is fine
  Lanczos again(op, pattern_vector(op, 0.1));
  again.extend(op, 10);
  EXPECT_EQ(Scalars::of(a), Scalars::of(again));
}

}  // namespace
}  // namespace hesspect::lock_step_test
