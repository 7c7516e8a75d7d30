// Memory that runs out: fewer gradient graphs are kept, or all ranks end with one error.
#include <gtest/gtest.h>

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>

#include "hesspect/core/errors.h"
#include "hesspect/curvature/hessian.h"
#include "support/failing_allocator.h"
#include "support/fixture.h"
#include "support/heap.h"

namespace hesspect::graph_memory_test {
namespace {

using test::Fixture;
using test::kHeapIsCounted;

std::int64_t mapped_bytes() {
  std::int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

/// `extra_bytes` more than the process uses now, while it lives: of address space, and of the heap's free blocks.
class AddressSpaceLimit {
 public:
  explicit AddressSpaceLimit(std::int64_t extra_bytes) {
    getrlimit(RLIMIT_AS, &before_);
    rlimit limit = before_;
    limit.rlim_cur =
        static_cast<rlim_t>(mapped_bytes() - static_cast<std::int64_t>(mallinfo2().fordblks) + extra_bytes);
    setrlimit(RLIMIT_AS, &limit);
  }
  ~AddressSpaceLimit() { setrlimit(RLIMIT_AS, &before_); }

 private:
  rlimit before_{};
};

DataShard first_row(DataShard data) {
  for (at::Tensor& input : data.inputs) input = input.narrow(0, 0, 1);
  data.target = data.target.narrow(0, 0, 1);
  data.rows = {0, 1};
  data.global_rows = 1;
  return data;
}

// A budget beyond the memory there is: as many graphs are kept as can be, and the rest is built anew.
TEST(GraphMemory, RunningOutKeepsFewerGraphs) {
  if (!kHeapIsCounted) GTEST_SKIP();
  const Fixture fixture("resnet18");
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  LocalCommunicator comm;
  HessianOptions options;
  options.loss = fixture.loss();
  options.micro_batch = 1;
  options.graph_budget_bytes = std::int64_t{1} << 50;
  options.check_double_backward = false;
  options.product = ProductMode::kAutograd;  // what it keeps is large beside what a product takes
  const DataShard data = fixture.shard(program);
  ASSERT_EQ(data.rows.size(), 5);
  const std::int64_t graph_bytes = HessianOperator(program, first_row(data), comm, options).stats().graph_bytes;
  const at::Tensor x = at::sin(at::arange(program.layout().size(), at::kDouble));
  at::Tensor tight_y = at::empty_like(x), roomy_y = at::empty_like(x);
  {
    // Three vectors of the operator's own, each as large as a graph of this model (its gradient); four graphs and a
    // half.
    const AddressSpaceLimit limit(13 * graph_bytes / 2);
    HessianOperator tight(program, data, comm, options);
    EXPECT_GE(tight.stats().kept_graphs, 1);
    EXPECT_LT(tight.stats().kept_graphs, tight.stats().micro_batches);
    tight.apply(x, tight_y);
  }
  HessianOperator roomy(program, data, comm, options);
  EXPECT_EQ(roomy.stats().kept_graphs, roomy.stats().micro_batches);
  roomy.apply(x, roomy_y);
  EXPECT_TRUE(at::equal(tight_y, roomy_y));
}

// Whichever allocation fails, it fails inside `agree`, which makes it a MemoryError on every rank. The gradient's shard
// was allocated between two messages: a rank that had no room for it left the others waiting.
TEST(Memory, EveryAllocationThatFailsIsAgreedOn) {
  const Fixture fixture("mlp_ce");
  Program program = Program::load(fixture.path(".pt2"), {at::kDouble, at::kCPU});
  LocalCommunicator comm;
  HessianOptions options;
  options.loss = fixture.loss();
  options.micro_batch = 16;
  const DataShard data = fixture.shard(program);
  const std::vector<at::Tensor> x(2, at::ones({program.layout().size()}, at::kDouble));
  std::vector<at::Tensor> y(2, at::empty_like(x[0]));
  test::FailingAllocator allocator;
  std::int64_t count = 0;
  for (bool failed = true; failed; ++count) {
    allocator.fail_after(count);
    try {
      HessianOperator hessian(program, data, comm, options);
      hessian.apply_block(x, y);
    } catch (const MemoryError&) {
    } catch (const std::exception& error) {
      ADD_FAILURE() << "allocation " << count << ": " << error.what();
    }
    failed = allocator.has_failed();
  }
  EXPECT_GT(count, 100);
}

}  // namespace
}  // namespace hesspect::graph_memory_test
