// What each group of rows has of a product: against operators of that group's rows alone, whatever ranks, micro-batches
// and ways to take products there are.
#include <gtest/gtest.h>

#include <numeric>

#include "../../src/curvature/grouped_rows.h"
#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/core/errors.h"
#include "hesspect/curvature/hessian.h"
#include "support/fixture.h"

namespace hesspect::row_groups_test {
namespace {

using test::Fixture;

HessianOptions options_for(const Fixture& fixture, std::int64_t micro_batch) {
  HessianOptions options;
  options.loss = fixture.loss();
  options.output_index = fixture.output_index();
  options.micro_batch = micro_batch;
  options.check_double_backward = false;
  return options;
}

at::Tensor whole_vector(std::int64_t n, std::int64_t k) {
  return at::sin(at::arange(n, at::kDouble) * (0.7 + 0.1 * static_cast<double>(k)) + 0.3);
}

at::Tensor shard_of(const LinearOperator& op, std::int64_t k) {
  const Shard& shard = op.shard();
  at::Tensor local = at::zeros({shard.chunk}, op.options());
  local.narrow(0, 0, shard.size()).copy_(whole_vector(shard.n, k).narrow(0, shard.begin(), shard.size()));
  return local;
}

/// Rows [begin, end) of all.
DataShard rows_of(const DataShard& all, std::int64_t begin, std::int64_t end) {
  DataShard part = all;
  for (at::Tensor& input : part.inputs) input = input.narrow(0, begin, end - begin);
  if (part.target.defined()) part.target = part.target.narrow(0, begin, end - begin);
  if (part.weight.defined()) part.weight = part.weight.narrow(0, begin, end - begin);
  part.rows = {0, end - begin};
  return part;
}

constexpr std::int64_t kVectors = 2, kOthers = 2, kGroups = 4;

/// [vectors][groups][1 + others][2]: the first half of the entries, and the others.
struct Expected {
  std::vector<double> dots, share, loss;
  std::vector<std::int64_t> segments, rows;
};

/// By operators of each group's rows, taken by themselves.
Expected expected(const Fixture& fixture, Program& program) {
  const DataShard all = fixture.shard(program);
  const std::int64_t n = program.layout().size(), rows = all.rows.size();
  Expected e;
  e.segments = {0, n / 2, n};
  e.dots.assign(kVectors * kGroups * (1 + kOthers) * 2, 0.0);
  LocalCommunicator alone;
  std::vector<at::Tensor> images;  // of each group and vector: sums over its rows
  double count = 0;
  for (std::int64_t g = 0; g < kGroups; ++g) {
    const std::int64_t begin = rows * g / kGroups, end = rows * (g + 1) / kGroups;
    HessianOperator op(program, rows_of(all, begin, end), alone, options_for(fixture, 0));
    for (std::int64_t k = 0; k < kVectors; ++k) {
      at::Tensor y = at::zeros({op.shard().chunk}, op.options());
      op.apply(shard_of(op, k), y);
      images.push_back(y * op.count());
    }
    e.rows.push_back(end - begin);
    e.share.push_back(op.count());
    e.loss.push_back(op.loss() * op.count());
    count += op.count();
  }
  for (std::int64_t k = 0; k < kVectors; ++k)
    for (std::int64_t g = 0; g < kGroups; ++g)
      for (std::int64_t r = 0; r <= kOthers; ++r)
        for (std::int64_t s = 0; s < 2; ++s) {
          const std::int64_t from = e.segments[static_cast<std::size_t>(s)];
          const std::int64_t length = e.segments[static_cast<std::size_t>(s) + 1] - from;
          const at::Tensor with = whole_vector(n, r == 0 ? k : kVectors + r - 1);
          const at::Tensor image = images[static_cast<std::size_t>(g * kVectors + k)].narrow(0, 0, n) / count;
          e.dots[static_cast<std::size_t>(((k * kGroups + g) * (1 + kOthers) + r) * 2 + s)] =
              with.narrow(0, from, length).dot(image.narrow(0, from, length)).item<double>();
        }
  for (double& share : e.share) share /= count;
  for (double& loss : e.loss) loss /= count;
  return e;
}

void expect_as(const Expected& e, HessianOperator& op, const std::string& what) {
  std::vector<at::Tensor> x, y, others, plain;
  for (std::int64_t k = 0; k < kVectors; ++k) {
    x.push_back(shard_of(op, k));
    y.push_back(at::full_like(x.back(), 99.0));
    plain.push_back(at::full_like(x.back(), 99.0));
  }
  for (std::int64_t o = 0; o < kOthers; ++o) others.push_back(shard_of(op, kVectors + o));
  const std::vector<double> dots = op.apply_in_groups(x, y, others, e.segments);
  op.apply_block(x, plain);
  for (std::size_t k = 0; k < y.size(); ++k) EXPECT_TRUE(at::equal(y[k], plain[k])) << what << ": the product itself";
  ASSERT_EQ(dots.size(), e.dots.size()) << what;
  double scale = 0;
  for (const double dot : e.dots) scale = std::max(scale, std::abs(dot));
  for (std::size_t i = 0; i < dots.size(); ++i) EXPECT_NEAR(dots[i], e.dots[i], 1e-11 * scale) << what << ", " << i;
  const RowGroups& groups = op.row_groups();
  EXPECT_EQ(groups.rows, e.rows) << what;
  for (std::size_t g = 0; g < e.share.size(); ++g) {
    EXPECT_NEAR(groups.share[g], e.share[g], 1e-14) << what;
    EXPECT_NEAR(groups.loss[g], e.loss[g], 1e-12 * std::abs(op.loss())) << what;
  }
  EXPECT_NEAR(std::accumulate(groups.loss.begin(), groups.loss.end(), 0.0), op.loss(), 1e-12 * std::abs(op.loss()));
}

class Groups : public ::testing::TestWithParam<const char*> {};

TEST_P(Groups, HaveOfAProductWhatTheirRowsAloneGive) {
  const Fixture fixture(GetParam());
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  auto world = MpiCommunicator::world();
  const Expected e = expected(fixture, program);
  for (const auto mode : {ProductMode::kKept, ProductMode::kRebuilt, ProductMode::kSegments, ProductMode::kAutograd})
    for (const std::int64_t micro_batch : {2, 3, 1000}) {
      HessianOptions options = options_for(fixture, micro_batch);
      options.product = mode;
      options.row_groups = kGroups;
      HessianOperator op(program, fixture.shard(program, world->size(), world->rank(), kGroups), *world, options);
      expect_as(e, op, to_string(mode) + ", micro-batch " + std::to_string(micro_batch));
    }
}

INSTANTIATE_TEST_SUITE_P(Models, Groups, ::testing::Values("mlp_ce", "causal_lm_weights", "widedeep", "mlp_mse"),
                         [](const auto& test) { return std::string(test.param); });

TEST(RowGroups, AreRefusedWhereThereAreTooFewRows) {
  const Fixture fixture("mlp_ce");
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  auto world = MpiCommunicator::world();
  HessianOptions options = options_for(fixture, 2);
  options.row_groups = 1'000'000;
  EXPECT_THROW(HessianOperator(program, fixture.shard(program, world->size(), world->rank()), *world, options),
               UsageError);
}

TEST(RowGroups, AreLeftOutWhereMicroBatchesWouldBecomeMany) {
  const Fixture fixture("mlp_ce");
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  auto world = MpiCommunicator::world();
  const auto groups_with = [&](std::int64_t micro_batch) {
    HessianOptions options = options_for(fixture, micro_batch);
    options.row_groups = kAutoRowGroups;
    HessianOperator op(program, fixture.shard(program, world->size(), world->rank()), *world, options);
    std::vector<at::Tensor> x{shard_of(op, 0)}, y{at::zeros_like(x[0])};
    const std::vector<double> dots = op.apply_in_groups(x, y, {}, {0, op.shard().n});
    EXPECT_EQ(static_cast<std::int64_t>(dots.size()), op.row_groups().count());
    return op.row_groups().count();
  };
  EXPECT_EQ(groups_with(1000), 0);
  EXPECT_GE(groups_with(2), kLeastAutoGroups);
}

// Cuts are the same from every rank's view, whole units, and no row is lost.
TEST(Cuts, AtTheGroupsEdges) {
  for (const std::int64_t rows : {60, 61, 997})
    for (const std::int64_t unit : {1, 3})
      for (const std::int64_t groups : {4, 7, 16})
        for (const int ranks : {1, 2, 5}) {
          const std::int64_t whole = rows / unit * unit;
          const RowGrouping grouping{whole, unit, 2, groups};
          for (std::int64_t g = 0; g < groups; ++g) {
            EXPECT_EQ(grouping.group_of(grouping.begin(g)), g);
            EXPECT_EQ(grouping.group_of(grouping.begin(g + 1) - 1), g);
          }
          std::int64_t at = 0;
          for (int rank = 0; rank < ranks; ++rank)
            for (const GroupedRange& one : cut_at_groups(grouping, shard_rows(whole, ranks, rank, unit), 3 * unit)) {
              EXPECT_EQ(one.range.begin, at);
              EXPECT_LE(one.range.size(), 3 * unit);
              EXPECT_EQ(one.range.size() % unit, 0);
              // Single rows beside a rank's edge may count for a neighbour.
              EXPECT_LE(std::abs(grouping.group_of(one.range.begin) - one.group), 1);
              at = one.range.end;
            }
          EXPECT_EQ(at, whole);
        }
}

}  // namespace
}  // namespace hesspect::row_groups_test
