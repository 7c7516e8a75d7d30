// What a Hessian-vector product costs, in gradients: per micro-batch size, gradient graphs kept or rebuilt, one vector
// at a time or several in lock-step.
//
// Usage: product_cost MODEL.pt2 DATA.h5 LOSS ROWS [MICRO_BATCH…]   (README.md beside this file has the results)
#include <malloc.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "hesspect/core/timer.h"
#include "hesspect/curvature/hessian.h"

namespace {

using namespace hesspect;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Median seconds of a joint product of `vectors` vectors, per vector.
double seconds_per_product(HessianOperator& hessian, int vectors) {
  std::vector<at::Tensor> x, y;
  for (int i = 0; i < vectors; ++i) {
    x.push_back(at::randn({hessian.shard().chunk}));
    y.push_back(at::empty_like(x.back()));
  }
  hessian.apply_block(x, y);
  std::vector<double> seconds;
  for (int i = 0; i < 5; ++i) {
    const Timer timer;
    hessian.apply_block(x, y);
    seconds.push_back(timer.elapsed_s() / vectors);
  }
  return median(seconds);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 5) {
    std::fprintf(stderr, "usage: product_cost MODEL.pt2 DATA.h5 LOSS ROWS [MICRO_BATCH...]\n");
    return 2;
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // a line as soon as it is known
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 2147483647);
  mallopt(M_TOP_PAD, 256 << 20);
  if (const char* threads = std::getenv("OMP_NUM_THREADS")) at::set_num_threads(std::atoi(threads));
  Program program = Program::load(argv[1], {});
  const auto data = ArrayFile::open(argv[2]);
  DatasetSpec spec{argv[2], {}, "", std::atoll(argv[4])};
  for (const InputSpec& input : program.inputs()) spec.inputs.push_back(input.name);
  HessianOptions options;
  options.loss.kind = loss_kind_from(argv[3]);
  if (needs_target(options.loss.kind)) spec.target = "target";
  LocalCommunicator comm;
  std::vector<std::int64_t> sizes;
  for (int i = 5; i < argc; ++i) sizes.push_back(std::atoll(argv[i]));
  if (sizes.empty()) sizes = {0};
  std::printf("%12s %9s %12s %8s %8s %8s %14s\n", "micro-batch", "graphs", "gradient s", "K=1", "K=2", "K=4",
              "graph bytes");
  for (const std::int64_t size : sizes)
    for (const std::int64_t budget : {std::int64_t{0}, std::int64_t{-1}}) {
      options.micro_batch = size;
      options.graph_budget_bytes = budget;
      HessianOperator hessian(program, load_shard(*data, spec, 1, 0), comm, options);
      const HessianStats& stats = hessian.stats();
      double cost[3];
      for (int i = 0; i < 3; ++i) cost[i] = seconds_per_product(hessian, 1 << i) / stats.gradient_s;
      std::printf("%12lld %4lld/%-4lld %12.4f %8.2f %8.2f %8.2f %14lld\n", static_cast<long long>(stats.micro_batch),
                  static_cast<long long>(stats.kept_graphs), static_cast<long long>(stats.micro_batches),
                  stats.gradient_s, cost[0], cost[1], cost[2], static_cast<long long>(stats.graph_bytes));
    }
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "product_cost: %s\n", e.what());
  return 1;
}
