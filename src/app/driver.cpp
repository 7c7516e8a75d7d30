#include "driver.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <future>
#include <limits>

#include "build_info.h"
#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"
#include "hesspect/core/memory.h"
#include "hesspect/core/sha256.h"
#include "hesspect/core/text.h"
#include "hesspect/core/timer.h"
#include "hesspect/io/atomic_file.h"
#include "hesspect/io/result_file.h"
#include "hesspect/krylov/vector_math.h"
#include "hesspect/spectrum/density.h"
#include "hesspect/spectrum/eigenvalues.h"
#include "hesspect/spectrum/probe.h"
#include "hesspect/spectrum/trace.h"
#include "problem.h"
#include "summary.h"

namespace hesspect {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
/// Numbers of the two vectors of the symmetry check, away from a run's own probes and from restarts (2^63 on).
constexpr std::uint64_t kSymmetryProbes = std::uint64_t{1} << 62;
/// Above these a product is not symmetric to rounding, and something is wrong with the model's operators.
constexpr double kSymmetryFloat = 1e-4, kSymmetryDouble = 1e-10;
/// Above this they are no rounding at all: the results would mean nothing.
constexpr double kGrossAsymmetry = 1e-3;
constexpr double kNoCurvature = 1e-6;  // in loss/parameter²

double reduced_dot(Communicator& comm, const at::Tensor& a, const at::Tensor& b) {
  double sum[1] = {dot_product(a, b)};
  comm.all_reduce_sum(std::span<double>(sum));
  return sum[0];
}

struct Symmetry {
  double error = 0;      // |u·Hv − v·Hu| / (‖u‖ ‖Hv‖ + ‖v‖ ‖Hu‖)
  double curvature = 0;  // mean of ‖Hv‖ / ‖v‖ and ‖Hu‖ / ‖u‖: the scale of H
};

/// Two products with Gaussian vectors. Collective.
Symmetry check_symmetry(LinearOperator& op, std::uint64_t seed) {
  const at::Tensor u = probe_vector(op, ProbeDistribution::kGaussian, seed, kSymmetryProbes);
  const at::Tensor v = probe_vector(op, ProbeDistribution::kGaussian, seed, kSymmetryProbes + 1);
  at::Tensor hu = at::zeros_like(u), hv = at::zeros_like(v);
  op.apply(u, hu);
  op.apply(v, hv);
  Communicator& comm = op.comm();
  const auto norm = [&](const at::Tensor& x) { return std::sqrt(reduced_dot(comm, x, x)); };
  const double nu = norm(u), nv = norm(v);
  const double scale = nu * norm(hv) + nv * norm(hu);
  if (scale == 0) return {};
  return {std::abs(reduced_dot(comm, u, hv) - reduced_dot(comm, v, hu)) / scale, scale / (2 * nu * nv)};
}

/// @throws UsageError if the output is the same file as one of these
void require_no_input(const std::string& output, const std::vector<std::filesystem::path>& inputs) {
  for (const auto& input : inputs) {
    std::error_code error;  // where one of them does not exist
    if (std::filesystem::equivalent(output, input, error) && !error)
      throw UsageError("the output " + quote(output) + " is the input " + quote(input.string()));
  }
}

std::vector<SourceFile> hashed(const std::vector<std::filesystem::path>& paths, const std::atomic<bool>& stop) {
  std::vector<SourceFile> files;
  for (const auto& path : paths) {
    std::error_code error;
    const auto absolute = std::filesystem::absolute(path, error);
    files.push_back({(error ? path : absolute).string(), ""});
    try {
      files.back().sha256 = sha256_file(path, &stop);
    } catch (const InputError&) {
      // It was read before, and is gone or changed now: the run is still worth keeping. An empty digest says so.
    }
  }
  return files;
}

struct Sources {
  std::vector<SourceFile> model, weights, data;
};

/// Of all input files; on rank 0 beside the computation, because large data files take a while.
/// @param stop  outlives the future; once true, the rest is left out
std::future<Sources> hash_sources(const RunConfig& config, const Problem& problem, const std::atomic<bool>& stop) {
  const bool here = problem.comm->rank() == 0;
  return std::async(here ? std::launch::async : std::launch::deferred,
                    [here, &stop, model = config.model.model, data = config.data.data, weights = problem.weight_files] {
                      if (!here) return Sources{};
                      return Sources{hashed({model}, stop), hashed(weights, stop), hashed({data}, stop)};
                    });
}

/// A future's destructor waits: an error shall not wait for a large data file to be hashed.
struct StopAtEnd {
  std::atomic<bool>& stop;
  ~StopAtEnd() { stop = true; }
};

/// Everything but the sources and the times.
ProcessInfo process_info(const Invocation& run, const std::vector<std::string>& argv, const Problem& problem) {
  const BuildInfo build = build_info();
  ProcessInfo p;
  p.command = to_string(run.command);
  p.argv = argv;
  p.config = to_ini(run.config);
  p.version = build.version;
  p.git_revision = build.git_revision;
  p.build_type = build.build_type;
  p.torch_version = build.torch;
  p.hdf5_version = build.hdf5;
  p.mpi_version = build.mpi;
  p.model_torch_version = problem.program->torch_version();
  p.hosts = problem.placement.hosts;
  p.seed = run.config.quadrature.seed;
  p.weights_format = problem.weights_format;
  p.ranks = problem.comm->size();
  p.threads = problem.threads;
  p.dtype = run.config.compute.dtype;
  p.device = problem.device.is_cuda() ? "cuda" : "cpu";
  p.distribution = std::string(to_string(run.config.quadrature.distribution));
  p.curvature = run.config.curvature.curvature;
  p.loss_kind = run.config.loss.loss;
  return p;
}

/// One run over its operator.
class Run {
 public:
  Run(const Invocation& invocation, Problem& problem)
      : invocation_(invocation),
        config_(invocation.config),
        problem_(problem),
        op_(*problem.op),
        progress_(to_string(invocation.command), expected_products()) {
    probe_options_.seed = config_.quadrature.seed;
    probe_options_.distribution = config_.quadrature.distribution;
    probe_options_.steps = steps();
    if (!config_.quadrature.reorthogonalize) probe_options_.lanczos.reorthogonalisation = Reorthogonalisation::kNone;
  }

  /// Collective.
  RunResult compute() {
    agree(op_.comm(), [&] { require_room_for_basis(); });
    RunResult r;
    const Symmetry symmetry = check_symmetry(op_, config_.quadrature.seed);
    r.diagnostics.symmetry_error = symmetry.error;
    // The same numbers on all ranks. Where there is next to no curvature, the products are rounding alone.
    if (symmetry.error > kGrossAsymmetry && symmetry.curvature > kNoCurvature)
      throw InputError("products are not symmetric (relative error " + number(r.diagnostics.symmetry_error) +
                       "): an op of the model has a wrong second derivative, or the model is not deterministic");
    r.diagnostics.orthogonality_loss = kNaN;
    if (invocation_.command == Command::kEigs) {
      eigenvalues_alone(r);
    } else {
      probes(r);
    }
    progress_.finish();
    draw(r);
    measure(r);
    warn(r);
    return r;
  }

 private:
  /// A basis that cannot fit would meet the kernel's killer in the middle of the run: memory is given before it is
  /// there.
  /// @throws MemoryError with the steps that would fit
  void require_room_for_basis() const {
    if (!config_.quadrature.reorthogonalize || problem_.device.is_cuda()) return;
    const bool eigen = wants_eigenvalues() || invocation_.command == Command::kEigs;
    const std::int64_t most = std::min(op_.shard().n, std::max(steps(), eigen ? config_.eigs.max_steps : 0));
    const std::int64_t vector_bytes = op_.shard().chunk * (config_.compute.dtype == "float64" ? 8 : 4);
    const std::int64_t available = available_memory_bytes() / std::max(1, problem_.placement.ranks_on_node);
    const std::int64_t needed = (most + 2) * vector_bytes;
    if (needed <= available) return;
    throw MemoryError(needed, available,
                      "a Krylov basis of " + format_count(most) + " vectors takes " + format_bytes(needed) +
                          " a rank, and " + format_bytes(available) + " is free: at most " +
                          format_count(std::max<std::int64_t>(0, available / vector_bytes - 2)) +
                          " --steps and --max-steps would fit, or use more ranks on more nodes, or "
                          "--reorthogonalization none");
  }

  bool wants_eigenvalues() const {
    return invocation_.command == Command::kAnalyze && config_.eigs.top + config_.eigs.bottom > 0;
  }
  /// The trace takes a probe's first product alone.
  std::int64_t steps() const { return invocation_.command == Command::kTrace ? 1 : config_.quadrature.steps; }

  /// An upper bound: eigenvalues may converge, and probes break down, earlier.
  std::int64_t expected_products() const {
    const std::int64_t n = problem_.program->layout().size();
    const std::int64_t a_probe = std::min(steps(), n);
    const std::int64_t eigen = std::min(config_.eigs.max_steps, n);
    if (invocation_.command == Command::kEigs) return 2 + eigen;
    return 2 + config_.quadrature.probes * a_probe +
           (wants_eigenvalues() ? std::max<std::int64_t>(0, eigen - a_probe) : 0);
  }

  EigenOptions eigen_options() const {
    return {config_.eigs.top, config_.eigs.bottom, config_.eigs.max_steps, config_.eigs.rtol_eigs,
            config_.quadrature.seed};
  }
  StepCallback on_step() {
    return [this](const Lanczos&) { progress_.update(op_.stats().products); };
  }

  void eigenvalues_alone(RunResult& r) {
    const at::Tensor start = probe_vector(op_, probe_options_.distribution, probe_options_.seed, 0);
    Lanczos run(op_, start, probe_options_.lanczos);
    r.eigenvalues = eigenvalues(op_, run, eigen_options(), on_step());
    r.quadrature.push_back(quadrature_of(run, 0));
    r.diagnostics.orthogonality_loss = run.orthogonality_loss();
    r.quadrature.back().orthogonality_loss = r.diagnostics.orthogonality_loss;
  }

  /// The first probe's run also gives the eigenvalues: it is taken further until they have converged.
  void probes(RunResult& r) {
    for (std::int64_t p = 0; p < config_.quadrature.probes; ++p) {
      ProbeOptions options = probe_options_;
      options.measure_orthogonality = p == 0 && config_.quadrature.reorthogonalize && steps() > 1;
      if (config_.quadrature.probes > 1)
        progress_.set_label(to_string(invocation_.command) + ", probe " + std::to_string(p + 1) + " of " +
                            std::to_string(config_.quadrature.probes));
      ProbeRun run = run_probe(op_, p, options, on_step());
      if (options.measure_orthogonality) {
        r.diagnostics.orthogonality_loss = run.quadrature.orthogonality_loss;
      } else {
        run.quadrature.orthogonality_loss = kNaN;
      }
      r.quadrature.push_back(std::move(run.quadrature));
      if (p == 0 && wants_eigenvalues()) {
        progress_.set_label("analyze, eigenvalues");
        r.eigenvalues = eigenvalues(op_, *run.lanczos, eigen_options(), on_step());
        progress_.set_total(op_.stats().products + (config_.quadrature.probes - 1) * steps());
      }
    }
    progress_.set_label(to_string(invocation_.command));
  }

  void draw(RunResult& r) const {
    const Command command = invocation_.command;
    if (command != Command::kEigs) r.trace = trace_from(r.quadrature);
    if (command == Command::kAnalyze || command == Command::kDensity) {
      std::vector<double> widths{0};  // chosen
      if (config_.quadrature.sigma > 0) widths.insert(widths.begin(), config_.quadrature.sigma);
      for (const double sigma : widths) {
        DensityOptions options;
        options.sigma = sigma;
        try {
          r.density = density(r.quadrature, options);
          break;
        } catch (const UsageError& error) {  // known only now: the run is still worth keeping
          say(r,
              std::string(error.what()) + (sigma > 0 ? "; the density has a chosen width" : "; there is no density"));
        }
      }
    }
  }

  /// Collective.
  void measure(RunResult& r) {
    const HessianStats& stats = op_.stats();
    Diagnostics& d = r.diagnostics;
    d.products = stats.products;
    d.product_s = stats.product_s;
    d.communication_s = stats.communication_s;
    d.cost_in_gradients = stats.products > 0 && stats.gradient_s > 0
                              ? stats.product_s / static_cast<double>(stats.products) / stats.gradient_s
                              : kNaN;
    d.loss = op_.loss();
    d.loss_terms = op_.count();
    d.gradient_norm = std::sqrt(reduced_dot(op_.comm(), op_.gradient(), op_.gradient()));
    d.parameters = op_.shard().n;
    d.rows = problem_.rows;
    d.micro_batch = stats.micro_batch;
    d.widened_weights = problem_.overlay.widened;
    for (const std::string& bytes : op_.comm().all_gather_bytes(std::to_string(peak_memory_bytes())))
      d.peak_memory_bytes = std::max<std::int64_t>(d.peak_memory_bytes, std::stoll(bytes));
  }

  static void say(RunResult& r, const std::string& text) {
    r.warnings.push_back(text);
    log_warning(text);
  }

  void warn(RunResult& r) const {
    const auto& d = r.diagnostics;
    const double bound = config_.compute.dtype == "float64" ? kSymmetryDouble : kSymmetryFloat;
    if (!(d.symmetry_error <= bound))
      say(r, "products are not symmetric: relative error " + number(d.symmetry_error) + ", expected below " +
                 number(bound));
    if (!d.widened_weights.empty())
      say(r, format_count(static_cast<std::int64_t>(d.widened_weights.size())) +
                 " weights stored as bfloat16 or float16 were widened: " + format_names(d.widened_weights, 3));
    if (r.eigenvalues && !r.eigenvalues->converged)
      say(r, "not all eigenvalues converged in " + std::to_string(r.eigenvalues->steps) +
                 " steps: raise --max-steps or --rtol-eigs");
  }

  const Invocation& invocation_;
  const RunConfig& config_;
  Problem& problem_;
  HessianOperator& op_;
  Progress progress_;
  ProbeOptions probe_options_;
};

}  // namespace

int run_spectrum(const Invocation& run, const std::vector<std::string>& argv, std::unique_ptr<Communicator> host) {
  const Timer timer;
  const std::string start_time = utc_time();
  const OutputConfig& output = run.config.output;
  agree(*host, [&] {
    if (host->rank() != 0) return;
    require_no_input(output.output, {run.config.model.model, run.config.model.weights, run.config.data.data});
    check_output(output.output, output.force);
  });
  Problem problem = set_up(run.config, std::move(host));
  agree(*problem.comm, [&] {
    if (problem.comm->rank() == 0) require_no_input(output.output, problem.weight_files);
  });
  log_info(describe(problem));
  std::atomic<bool> stop = false;
  std::future<Sources> sources = hash_sources(run.config, problem, stop);
  const StopAtEnd stop_at_end{stop};

  RunResult result = Run(run, problem).compute();
  result.process = process_info(run, argv, problem);
  result.process.start_time = start_time;
  agree(*problem.comm, [&] {
    if (problem.comm->rank() != 0) return;
    Sources files = sources.get();
    result.process.model = std::move(files.model);
    result.process.weights = std::move(files.weights);
    result.process.data = std::move(files.data);
    result.process.end_time = utc_time();
    result.diagnostics.elapsed_s = timer.elapsed_s();
  });
  for (const auto& line : summary(result)) log_info(line);  // before a write that may fail
  agree(*problem.comm, [&] {
    if (problem.comm->rank() == 0) write_result(output.output, result);
  });
  log_info("  result        " + quote(output.output));
  const bool converged = !result.eigenvalues || result.eigenvalues->converged;
  return static_cast<int>(converged ? ExitCode::kDone : ExitCode::kNotConverged);
}

int smooth_again(const Invocation& run, const std::vector<std::string>& argv, Communicator& host) {
  const OutputConfig& output = run.config.output;
  agree(host, [&] {
    if (host.rank() != 0) return;
    check_output(output.output, output.force);
    RunResult result = read_result(output.from);
    if (result.quadrature.empty()) throw InputError(quote(output.from) + " holds no probes to smooth");
    if (result.process.command == to_string(Command::kTrace))
      throw InputError(quote(output.from) + " is a result of trace: one product a probe gives no density");
    DensityOptions options;
    options.sigma = run.config.quadrature.sigma;
    result.density = density(result.quadrature, options);
    result.process.argv = argv;
    RunConfig config = from_ini(result.process.config, "the configuration in " + quote(output.from));
    config.quadrature.sigma = options.sigma;
    result.process.config = to_ini(config);
    result.process.end_time = utc_time();
    write_result(output.output, result);
    log_info("density of " + std::to_string(result.quadrature.size()) + " probes with sigma " +
             number(result.density->sigma) + " in " + quote(output.output));
  });
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace hesspect
