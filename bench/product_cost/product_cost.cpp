// What a Hessian-vector product costs, in gradients: per micro-batch size, gradient graphs kept or rebuilt.
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

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) try {
  using namespace hesspect;
  if (argc < 5) {
    std::fprintf(stderr, "usage: product_cost MODEL.pt2 DATA.h5 LOSS ROWS [MICRO_BATCH...]\n");
    return 2;
  }
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
  std::printf("%12s %8s %12s %12s %10s %14s\n", "micro-batch", "graphs", "gradient s", "product s", "ratio",
              "graph bytes");
  for (const std::int64_t size : sizes)
    for (const std::int64_t budget : {std::int64_t{0}, std::int64_t{-1}}) {
      options.micro_batch = size;
      options.graph_budget_bytes = budget;
      HessianOperator hessian(program, load_shard(*data, spec, 1, 0), comm, options);
      at::Tensor x = at::randn({program.layout().size()}), y = at::empty_like(x);
      hessian.apply(x, y);
      std::vector<double> seconds;
      for (int i = 0; i < 5; ++i) {
        const Timer timer;
        hessian.apply(x, y);
        seconds.push_back(timer.elapsed_s());
      }
      const HessianStats& stats = hessian.stats();
      std::printf("%12lld %4lld/%-4lld %12.4f %12.4f %10.2f %14lld\n", static_cast<long long>(stats.micro_batch),
                  static_cast<long long>(stats.kept_graphs), static_cast<long long>(stats.micro_batches),
                  stats.gradient_s, median(seconds), median(seconds) / stats.gradient_s,
                  static_cast<long long>(stats.graph_bytes));
    }
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "product_cost: %s\n", e.what());
  return 1;
}
