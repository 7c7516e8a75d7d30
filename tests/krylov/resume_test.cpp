// A run stopped anywhere and resumed is the run that was never stopped, on any number of ranks.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/core/errors.h"
#include "krylov/runs.h"

namespace hesspect::resume_test {
namespace {

using testing::DenseOperator;
using testing::DiagonalOperator;
using testing::drive;
using testing::pattern_vector;
using testing::Saved;
using testing::Scalars;

constexpr at::ScalarType kSame = at::ScalarType::Undefined;
constexpr at::ScalarType kBfloat16 = at::ScalarType::BFloat16;

LanczosOptions storing(at::ScalarType storage, bool full = true) {
  LanczosOptions options;
  options.basis.storage = storage;
  if (!full) options.reorthogonalisation = Reorthogonalisation::kNone;
  return options;
}

/// Four distinct eigenvalues, the largest of them twice: a space closes every four steps, and the last one sooner.
double multiple(std::int64_t i) { return i < 2 ? 7.0 : static_cast<double>(i % 3); }

/// Stops after every step and every restart, resumes, and compares every state on the way and at the end.
void expect_resumable(LinearOperator& op, const LanczosOptions& options, std::int64_t steps, std::int64_t stride,
                      decltype(drive)& drive = testing::drive) {
  Lanczos whole(op, pattern_vector(op), options);
  std::vector<Saved> stops;
  std::vector<Scalars> states;
  drive(op, whole, steps, 1, [&] {
    stops.push_back(Saved::of(whole));
    states.push_back(Scalars::of(whole));
  });
  ASSERT_EQ(whole.steps(), steps);

  for (const Saved& stop : stops) {
    Lanczos run = stop.resume(op, options);
    const std::int64_t recorded = run.replay_left();
    EXPECT_EQ(run.steps(), 0);
    drive(op, run, steps, stride, [&] {
      // Mid-way it is one of the states of the first run, and what it would record is never less than it was given.
      EXPECT_NE(std::find(states.begin(), states.end(), Scalars::of(run)), states.end()) << run.steps();
      EXPECT_EQ(run.replay_left(), std::max<std::int64_t>(0, recorded - run.steps()));
      if (run.replay_left() > 0) {
        EXPECT_EQ(to_bytes(run.record()), stop.record);
        const LanczosRecord record = run.record();
        EXPECT_TRUE(at::equal(run.stored().basis(record.first_row + record.rows - 1), stop.rows.back()));
      }
    });
    EXPECT_EQ(Scalars::of(run), states.back()) << "stopped after " << recorded;
    const Saved end = Saved::of(run);
    EXPECT_EQ(end.record, stops.back().record);
    for (std::size_t i = 0; i < end.rows.size(); ++i) EXPECT_TRUE(at::equal(end.rows[i], stops.back().rows[i]));
  }
}

TEST(Resume, AnywhereWithRestarts) {
  const auto world = MpiCommunicator::world();
  for (const auto& [dtype, storage] : {std::tuple(at::kDouble, kSame),
                                       {at::kFloat, kSame},
                                       {at::kDouble, at::kFloat},
                                       {at::kDouble, kBfloat16},
                                       {at::kFloat, kBfloat16}}) {
    DiagonalOperator op(*world, 3001, dtype, multiple);
    for (const std::int64_t stride : {1, 5}) expect_resumable(op, storing(storage), 14, stride);
  }
}

TEST(Resume, AnywhereUntilAllDimensionsAreUsed) {
  const auto world = MpiCommunicator::world();
  DenseOperator op(*world, testing::matrix_with_spectrum({5, 5, 5, 1, 1, -2, -2, -2, 0.5, 7}, 5));
  expect_resumable(op, {}, 10, 3);
}

TEST(Resume, AnywhereWithoutReorthogonalisation) {
  const auto world = MpiCommunicator::world();
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    DiagonalOperator op(*world, 3001, dtype, [](std::int64_t i) { return std::cos(static_cast<double>(i)); });
    expect_resumable(op, storing(kSame, false), 14, 4);
    Lanczos run(op, pattern_vector(op), storing(kSame, false));
    run.extend(op, 14);
    EXPECT_EQ(Saved::of(run).rows.size(), 2U);  // not fourteen
  }
}

TEST(Resume, AnywhereWithThickRestarts) {
  const auto world = MpiCommunicator::world();
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    DiagonalOperator op(*world, 3001, dtype, [](std::int64_t i) { return std::cos(static_cast<double>(i)); });
    for (const std::int64_t stride : {1, 5}) expect_resumable(op, {}, 20, stride, testing::drive_thick);
    DiagonalOperator closing(*world, 3001, dtype, multiple);  // thick restarts after breakdowns, breakdowns after those
    for (const std::int64_t stride : {1, 5}) expect_resumable(closing, {}, 24, stride, testing::drive_thick);
    Lanczos run(closing, pattern_vector(closing));
    testing::drive_thick(closing, run, 24, 1);
    EXPECT_GT(run.t().thick_restarts.size(), 2U);
    EXPECT_GT(std::ranges::count_if(run.t().blocks, [](const Tridiagonal::Block& block) { return block.closed; }), 2);
  }
}

// The driver may decide otherwise the second time, having more memory or less: recorded thick restarts are taken again
// all the same, and no others, until the record ends.
TEST(Resume, ThickRestartsAreTheRecords) {
  const auto world = MpiCommunicator::world();
  DiagonalOperator op(*world, 3001, at::kDouble, [](std::int64_t i) { return std::cos(static_cast<double>(i)); });
  Lanczos first(op, pattern_vector(op));
  testing::drive_thick(op, first, 20, 1);
  ASSERT_GT(first.t().thick_restarts.size(), 2U);
  const Saved stop = Saved::of(first);
  EXPECT_EQ(static_cast<std::int64_t>(stop.rows.size()), first.t().rows() + 1);  // not twenty-one

  Lanczos never = stop.resume(op, {});
  EXPECT_THROW(never.basis_rows(), Error);
  EXPECT_THROW(never.orthogonality_loss(), Error);
  never.extend(op, 20);
  EXPECT_EQ(Scalars::of(never), Scalars::of(first));
  EXPECT_TRUE(at::equal(at::cat(never.basis_rows()), at::cat(first.basis_rows())));

  Lanczos always = stop.resume(op, {});
  while (always.replay_left() > 0) {
    always.extend(op, 1);
    const std::size_t keep[] = {0};
    if (always.replay_left() > 0) always.thick_restart(keep);
  }
  EXPECT_EQ(Scalars::of(always), Scalars::of(first));
  first.extend(op, 5);
  always.extend(op, 5);
  EXPECT_EQ(always.t().alpha, first.t().alpha);
}

TEST(Resume, RecordedStepsTakeNoProducts) {
  const auto world = MpiCommunicator::world();
  DiagonalOperator op(*world, 3001, at::kDouble, [](std::int64_t i) { return std::cos(static_cast<double>(i)); });
  Lanczos first(op, pattern_vector(op));
  first.extend(op, 10);
  Lanczos second = Saved::of(first).resume(op, {});
  op.products = 0;
  int called = 0;
  EXPECT_EQ(second.extend(op, 8, [&](const Lanczos&) { ++called; }), 8);
  EXPECT_EQ(called, 0);
  EXPECT_EQ(op.products, 0);
  EXPECT_EQ(second.extend(op, 5, [&](const Lanczos&) { ++called; }), 5);
  EXPECT_EQ(called, 3);
  EXPECT_EQ(op.products, 3);
}

/// A vector's shards, gathered and cut for another number of ranks.
at::Tensor recut(const at::Tensor& shard, const Shard& from, Communicator& comm, const Shard& to) {
  at::Tensor full = at::empty({from.padded()}, at::kDouble), local = at::zeros({to.chunk}, at::kDouble);
  comm.all_gather(shard.to(at::kDouble), full);
  local.narrow(0, 0, to.size()).copy_(full.narrow(0, to.begin(), to.size()));
  return local.to(shard.scalar_type());
}

TEST(Resume, OnAnotherNumberOfRanks) {
  const auto world = MpiCommunicator::world();
  const auto entry = [](std::int64_t i) {
    return i < 5 ? 10.0 + static_cast<double>(i) : std::cos(static_cast<double>(i));
  };
  for (const at::ScalarType storage : {kSame, kBfloat16}) {
    testing::RotatedDiagonalOperator wide(*world, 5003, at::kDouble, entry);
    Lanczos whole(wide, pattern_vector(wide), storing(storage));
    whole.extend(wide, 15);
    const Saved stop = Saved::of(whole);
    whole.extend(wide, 15);

    // Rank 0 alone, and the others together.
    const auto part = world->split(world->rank() == 0 ? 0 : 1, world->rank());
    testing::RotatedDiagonalOperator op(*part, 5003, at::kDouble, entry);
    Saved other{stop.record, {}, {}};
    for (const at::Tensor& row : stop.rows) other.rows.push_back(recut(row, wide.shard(), *world, op.shard()));
    for (const at::Tensor& q : stop.running) other.running.push_back(recut(q, wide.shard(), *world, op.shard()));
    Lanczos run = other.resume(op, storing(storage));
    run.extend(op, 30);
    for (std::size_t i = 0; i < 30; ++i) {
      const double tolerance = i < 15 ? 0 : storage == kSame ? 1e-12 : 1e-5;
      EXPECT_NEAR(run.t().alpha[i], whole.t().alpha[i], tolerance) << i;
      EXPECT_NEAR(run.t().beta[i], whole.t().beta[i], tolerance) << i;
    }
    EXPECT_NEAR(run.t().ritz_pairs().back().value, 14, storage == kSame ? 1e-12 : 2e-5);
  }
}

TEST(Resume, WhatDoesNotFitIsRefusedOnAllRanks) {
  const auto world = MpiCommunicator::world();
  const auto entry = [](std::int64_t i) { return std::cos(static_cast<double>(i)); };
  DiagonalOperator op(*world, 3001, at::kDouble, entry), longer(*world, 3002, at::kDouble, entry);
  DiagonalOperator single(*world, 3001, at::kFloat, entry);
  Lanczos run(op, pattern_vector(op));
  run.extend(op, 5);
  const Saved good = Saved::of(run);
  EXPECT_THROW(good.resume(longer, {}), Error);
  EXPECT_THROW(good.resume(single, {}), Error);
  EXPECT_THROW(good.resume(op, storing(kSame, false)), Error);
  EXPECT_THROW(good.resume(op, storing(kBfloat16)), Error);

  Saved bad = good;  // one rank's shard is short
  if (world->rank() == world->size() - 1) bad.rows[2] = bad.rows[2].narrow(0, 0, 3);
  EXPECT_THROW(bad.resume(op, {}), Error);
  bad = good;
  if (world->rank() == 0) bad.rows.pop_back();  // the reader throws
  EXPECT_ANY_THROW(bad.resume(op, {}));
  EXPECT_EQ(good.resume(op, {}).replay_left(), 5);
}

TEST(LanczosRecordBytes, AreExactAndChecked) {
  LocalCommunicator local;
  DiagonalOperator op(local, 300, at::kDouble, multiple);
  Lanczos run(op, pattern_vector(op));
  drive(op, run, 9, 2);
  const LanczosRecord record = run.record();
  const std::string bytes = to_bytes(record);
  const LanczosRecord back = lanczos_record_from(bytes);
  EXPECT_EQ(back.t.n, 300);
  EXPECT_TRUE(back.full);
  EXPECT_EQ(back.breakdown_tolerance, 1e-12);
  EXPECT_EQ(back.t.start_norm_sq, run.t().start_norm_sq);
  EXPECT_EQ(back.t.alpha, run.t().alpha);
  EXPECT_EQ(back.t.beta, run.t().beta);
  EXPECT_EQ(*std::max_element(back.t.product_norm.begin(), back.t.product_norm.end()), run.t().scale());
  ASSERT_EQ(back.t.blocks.size(), run.t().blocks.size());
  EXPECT_GT(back.t.blocks.size(), 1U);
  EXPECT_EQ(back.t.blocks[0].residual_norm, run.t().blocks[0].residual_norm);
  EXPECT_EQ(back.rows, 10);
  EXPECT_EQ(back.running, 0);

  for (std::size_t size = 0; size < bytes.size(); ++size)
    EXPECT_THROW(lanczos_record_from(bytes.substr(0, size)), InputError) << size;
  EXPECT_THROW(lanczos_record_from(bytes + "x"), InputError);
  EXPECT_THROW(lanczos_record_from("x" + bytes.substr(1)), InputError);
  for (std::size_t at = 0; at < 72; ++at)  // magic and counts: 0x7f… there is never right
    if (at < 8 || at >= 24) {
      std::string damaged = bytes;
      damaged[at] = static_cast<char>(0x7f);
      EXPECT_THROW(lanczos_record_from(damaged), InputError) << at;
    }
  DiagonalOperator other(local, 300, at::kDouble, [](std::int64_t i) { return std::cos(static_cast<double>(i)); });
  Lanczos thick(other, pattern_vector(other));
  testing::drive_thick(other, thick, 20, 1);
  const LanczosRecord restarted = thick.record();
  ASSERT_GT(restarted.t.thick_restarts.size(), 2U);
  EXPECT_GT(restarted.first_row, 20);
  const LanczosRecord again = lanczos_record_from(to_bytes(restarted));
  EXPECT_EQ(again.first_row, restarted.first_row);
  ASSERT_EQ(again.t.thick_restarts.size(), restarted.t.thick_restarts.size());
  for (std::size_t i = 0; i < again.t.thick_restarts.size(); ++i) {
    EXPECT_EQ(again.t.thick_restarts[i].step, restarted.t.thick_restarts[i].step);
    EXPECT_EQ(again.t.thick_restarts[i].theta, restarted.t.thick_restarts[i].theta);
    EXPECT_EQ(again.t.thick_restarts[i].coupling, restarted.t.thick_restarts[i].coupling);
  }
  LanczosRecord moved = restarted;
  moved.t.thick_restarts[1].step += 1;
  EXPECT_THROW(lanczos_record_from(to_bytes(moved)), InputError);
  LanczosRecord lost = restarted;
  lost.t.thick_restarts.pop_back();
  EXPECT_THROW(lanczos_record_from(to_bytes(lost)), InputError);
  LanczosRecord gap = record;
  gap.t.blocks[0].end -= 1;
  EXPECT_THROW(lanczos_record_from(to_bytes(gap)), InputError);
  LanczosRecord short_of_rows = record;
  short_of_rows.rows -= 1;
  EXPECT_THROW(lanczos_record_from(to_bytes(short_of_rows)), InputError);
}

}  // namespace
}  // namespace hesspect::resume_test
