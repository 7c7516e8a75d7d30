// Products on request: a process that holds one problem in one mode and times a product whenever it is asked to, so
// that bench/versus/products.py can alternate between it and other tools.
//
// Usage: product_server MODE MODEL.pt2 DATA LOSS ROWS MICRO_BATCH DTYPE [WEIGHTS.safetensors]
// MODE: kept, rebuilt, segments or autograd, ggn (kept), or bf16 (kept, matrices multiplied in it). Targets of
// causal_lm are taken as shifted already. Says `ready KEPT MICRO_BATCHES BYTES`, the last being the most that were
// resident before any derivative; answers each line of its input by a line:
//   product K  CPU-seconds and wall seconds of a product of K vectors at once
//   check      vᵀHv and |Hv| of v = (1, …, 1) / √n, which no order of the parameters changes
//   precision  what bf16 changes: ‖H̃v − Hv‖ / ‖Hv‖ for random signs v, and for Hv in v's place; 0 0 in the other modes
//   memory     the most bytes that were resident so far
//   share      seconds of each op in a product, an op a line, then an empty line; not of autograd
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "../../src/curvature/local_loss.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/timer.h"
#include "hesspect/curvature/hessian.h"
#include "hesspect/model/state_dict.h"
#include "hesspect/tangent/precision.h"

namespace {

using namespace hesspect;

ProductMode mode_from(const std::string& name) {
  if (name == "kept" || name == "ggn" || name == "bf16") return ProductMode::kKept;
  if (name == "rebuilt") return ProductMode::kRebuilt;
  if (name == "segments") return ProductMode::kSegments;
  if (name == "autograd") return ProductMode::kAutograd;
  throw UsageError("mode '" + name + "'; it may be kept, rebuilt, segments, autograd, ggn or bf16");
}

double cpu_seconds() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Not getrusage's, which remembers the process that this one was forked from.
long long peak_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("VmHWM:", 0) == 0) return std::atoll(line.c_str() + 6) * 1024;
  return 0;
}

/// Products of the operator with K vectors, made once for each K.
class Products {
 public:
  Products(HessianOperator& hessian, std::int64_t n) : hessian_(hessian), n_(n) {}

  void time(std::size_t vectors) {
    fill(vectors);
    const double cpu = cpu_seconds();
    const Timer wall;
    hessian_.apply_block({x_.data(), vectors}, {y_.data(), vectors});
    std::printf("%.6f %.6f\n", cpu_seconds() - cpu, wall.elapsed_s());
  }

  void check() {
    const at::Tensor v =
        at::full({hessian_.shard().chunk}, 1.0 / std::sqrt(static_cast<double>(n_)), hessian_.options());
    at::Tensor y = at::empty_like(v);
    hessian_.apply(v, y);
    const at::Tensor exact = y.to(at::kDouble);
    std::printf("%.9g %.9g\n", exact.dot(v.to(at::kDouble)).item<double>(), exact.norm().item<double>());
  }

 private:
  void fill(std::size_t vectors) {
    while (x_.size() < vectors) {
      x_.push_back(at::randn({hessian_.shard().chunk}, hessian_.options()));
      y_.push_back(at::empty_like(x_.back()));
    }
  }

  HessianOperator& hessian_;
  std::int64_t n_;
  std::vector<at::Tensor> x_, y_;
};

/// Seconds by op of one product of the first micro-batch, the mean of five warm ones.
void print_share(Program& program, DataShard shard, const HessianOptions& options) {
  LocalLoss local(program, std::move(shard), options.loss, 0);
  local.choose({.tangent = true,
                .segments = options.product == ProductMode::kSegments,
                .curvature = options.curvature,
                .precision = options.precision});
  const MicroBatch batch = local.batch({0, options.micro_batch});
  const std::unique_ptr<BatchProducts> products = local.products(batch);
  if (keeps(options.product)) products->keep();
  const at::Tensor v = at::randn({1, program.layout().size()}, local.tensor_options());
  const at::Tensor sum = at::zeros_like(v);
  constexpr int kTimes = 5;
  products->add(v, sum);
  const auto total = [&] {
    std::vector<std::pair<std::string, double>> seconds;
    for (const OpSeconds& op : local.tangent_program().seconds())
      seconds.emplace_back(op.op + (op.own ? " own" : " fallback"), op.total_s());
    return seconds;
  };
  auto before = total();
  for (int i = 0; i < kTimes; ++i) products->add(v, sum);
  for (const auto& [op, seconds] : total()) {
    double earlier = 0;
    for (const auto& [name, s] : before)
      if (name == op) earlier = s;
    std::printf("%s %.6f\n", op.c_str(), (seconds - earlier) / kTimes);
  }
  std::printf("\n");
}

void serve(int argc, char** argv) {
  const std::string mode = argv[1], dtype = argv[7];
  const at::ScalarType type = dtype == "float64" ? at::kDouble : at::kFloat;
  Program program = Program::load(argv[2], {type, at::kCPU});
  if (argc > 8) program.overlay(read_state_dict(argv[8]));
  const auto data = ArrayFile::open(argv[3]);
  DatasetSpec spec{argv[3], {}, "", std::atoll(argv[5])};
  for (const InputSpec& input : program.inputs()) spec.inputs.push_back(input.name);
  HessianOptions options;
  options.loss.kind = loss_kind_from(argv[4]);
  options.loss.shift = 0;
  options.micro_batch = std::atoll(argv[6]);
  options.product = mode_from(mode);
  if (mode == "ggn") options.curvature = Curvature::kGgn;
  if (mode == "bf16") options.precision = MatrixPrecision::kBf16;
  require_units(options.precision, matrix_units(at::kCPU));
  if (needs_target(options.loss.kind)) spec.target = "target";
  LocalCommunicator comm;
  DataShard shard = load_shard(*data, spec, 1, 0);
  const long long start_bytes = peak_bytes();
  HessianOperator hessian(program, std::move(shard), comm, options);
  Products products(hessian, program.layout().size());
  const HessianStats& stats = hessian.stats();
  std::printf("ready %lld %lld %lld\n", static_cast<long long>(stats.kept_graphs),
              static_cast<long long>(stats.micro_batches), start_bytes);
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string word;
    std::size_t vectors = 1;
    words >> word >> vectors;
    if (word == "product")
      products.time(vectors);
    else if (word == "check")
      products.check();
    else if (word == "precision")
      std::printf("%.3g %.3g\n", hessian.precision_effect().error, hessian.precision_effect().leading_error);
    else if (word == "memory")
      std::printf("%lld\n", peak_bytes());
    else if (word == "share")
      print_share(program, load_shard(*data, spec, 1, 0), options);
    else
      throw UsageError("'" + line + "': product K, check, precision, memory or share");
  }
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 8) {
    std::fprintf(stderr, "usage: product_server MODE MODEL.pt2 DATA LOSS ROWS MICRO_BATCH DTYPE [WEIGHTS]\n");
    return 2;
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // a line as soon as it is known
  if (const char* threads = std::getenv("OMP_NUM_THREADS")) at::set_num_threads(std::atoi(threads));
  serve(argc, argv);
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "product_server: %s\n", e.what());
  return 1;
}
