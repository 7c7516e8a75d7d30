#include <algorithm>
#include <limits>

#include "hdf5_tree.h"
#include "hesspect/io/atomic_file.h"
#include "hesspect/io/result_file.h"
#include "result_schema.h"

namespace hesspect {
namespace {

using hdf5::attach_scale;
using hdf5::Group;
using hdf5::make_group;
using hdf5::put;
using hdf5::put_attribute;
using schema::kCurvature;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::vector<std::int64_t> counting(std::size_t count) {
  std::vector<std::int64_t> numbers(count);
  for (std::size_t i = 0; i < count; ++i) numbers[i] = static_cast<std::int64_t>(i);
  return numbers;
}

/// The attributes by which viewers find what to plot over what.
void mark_plot(const Group& group, const std::string& signal, const std::vector<std::string>& axes,
               const std::string& title) {
  put_attribute(group.get(), "signal", signal);
  put_attribute(group.get(), "axes", axes);
  for (std::size_t i = 0; i < axes.size(); ++i)
    put_attribute(group.get(), axes[i] + "_indices", static_cast<std::int64_t>(i));
  put(group.get(), "title", title, {"Title of the plot", ""});
}

void write_density(hid_t entry, const Density& d, const std::string& what) {
  const Group group = make_group(entry, "density", "NXdata");
  mark_plot(group, "density", {"lambda"}, "Spectral density of the " + what);
  put_attribute(group.get(), "SILX_style", R"({"axes_scale_types": ["linear"], "signal_scale_type": "log"})");
  put(group.get(), "lambda", d.lambda, {d.lambda.size()}, {"Eigenvalue", kCurvature});
  put(group.get(), "density", d.density, {d.density.size()}, {"Spectral density", schema::kDensity});
  put(group.get(), "density_errors", d.density_errors, {d.density_errors.size()},
      {"Standard error of the density over probes", schema::kDensity});
  put(group.get(), "sigma", d.sigma, {"Standard deviation of the Gaussian kernel", kCurvature});
  attach_scale(group.get(), "lambda", {"density", "density_errors"}, 0);
}

void write_eigenvalues(hid_t entry, const EigenResult& e, const std::string& what) {
  const Group group = make_group(entry, "eigenvalues", "NXdata");
  mark_plot(group, "eigenvalue", {"index"}, "Extreme eigenvalues of the " + what);
  std::vector<EigenEstimate> all = e.top;
  all.insert(all.end(), e.bottom.begin(), e.bottom.end());
  std::vector<double> value, residual;
  std::vector<bool> converged;
  for (const auto& one : all) {
    value.push_back(one.value);
    residual.push_back(one.residual);
    converged.push_back(one.converged);
  }
  const std::vector<hsize_t> dims{all.size()};
  put(group.get(), "index", counting(all.size()), dims, {"Position in the list", ""});
  put(group.get(), "eigenvalue", value, dims,
      {"Eigenvalues: the largest first, then the smallest ones, largest of them first", kCurvature});
  put(group.get(), "residual", residual, dims,
      {"Bound of the norm of H y - theta y for the unit Ritz vector y, rounding included", kCurvature});
  put(group.get(), "converged", converged, dims, {"1 where the residual met the tolerance", ""});
  put(group.get(), "n_top", static_cast<std::int64_t>(e.top.size()), {"How many of them are the largest", ""});
  put(group.get(), "n_bottom", static_cast<std::int64_t>(e.bottom.size()), {"How many of them are the smallest", ""});
  put(group.get(), "steps", e.steps, {"Lanczos steps taken", ""});
  put(group.get(), "all_converged", std::vector<bool>{e.converged}, {}, {"1 where all of them converged", ""});
  put(group.get(), "exhausted", std::vector<bool>{e.exhausted}, {},
      {"1 where the Krylov space closed before as many were found", ""});
  attach_scale(group.get(), "index", {"eigenvalue", "residual", "converged"}, 0);
}

void write_trace(hid_t entry, const TraceEstimate& t) {
  const Group group = make_group(entry, "trace", "NXcollection");
  put(group.get(), "value", t.value, {"Trace", kCurvature});
  put(group.get(), "stderr", t.standard_error, {"Standard error of the trace", kCurvature});
  put(group.get(), "samples", t.samples, {"Probes the trace is a mean over", ""});
}

/// [probes, steps], NaN where a probe took fewer steps.
template <class Row>
std::vector<double> padded(const std::vector<ProbeQuadrature>& probes, std::size_t steps, Row row) {
  std::vector<double> table(probes.size() * steps, kNaN);
  for (std::size_t p = 0; p < probes.size(); ++p) {
    const std::vector<double> values = row(probes[p]);
    std::copy_n(values.begin(), std::min(values.size(), steps), table.begin() + static_cast<std::ptrdiff_t>(p * steps));
  }
  return table;
}

void write_quadrature(hid_t entry, const std::vector<ProbeQuadrature>& probes) {
  const Group group = make_group(entry, "quadrature", "NXdata");
  mark_plot(group, "ritz", {"probe", "step"}, "Gauss quadrature of each probe");
  std::size_t steps = 0;
  for (const auto& p : probes) steps = std::max(steps, p.alpha.size());
  const std::vector<hsize_t> table{probes.size(), steps};
  const std::vector<hsize_t> column{probes.size()};
  put(group.get(), "alpha", padded(probes, steps, [](auto& p) { return p.alpha; }), table,
      {"Diagonal of the tridiagonal matrix", kCurvature});
  put(group.get(), "beta",
      padded(probes, steps,
             [](auto& p) {
               std::vector<double> beta = p.beta;
               beta.push_back(p.beta_last);
               return beta;
             }),
      table, {"Off-diagonal of the tridiagonal matrix; the last of a probe is the norm of what was left", kCurvature});
  put(group.get(), "ritz", padded(probes, steps, [](auto& p) { return p.ritz; }), table,
      {"Nodes of the quadrature (Ritz values), ascending", kCurvature});
  put(group.get(), "weight", padded(probes, steps, [](auto& p) { return p.weight; }), table,
      {"Weights of the quadrature; a probe's sum to 1", ""});
  std::vector<std::int64_t> number, steps_taken;
  std::vector<double> norm_sq, orthogonality;
  std::vector<bool> breakdown;
  for (const auto& p : probes) {
    number.push_back(p.probe);
    steps_taken.push_back(static_cast<std::int64_t>(p.alpha.size()));
    norm_sq.push_back(p.norm_sq);
    orthogonality.push_back(p.orthogonality_loss);
    breakdown.push_back(p.breakdown);
  }
  put(group.get(), "probe", number, column, {"Number of the probe", ""});
  put(group.get(), "step", counting(steps), {steps}, {"Lanczos step", ""});
  put(group.get(), "steps_taken", steps_taken, column, {"Steps the probe took", ""});
  put(group.get(), "norm_sq", norm_sq, column, {"Squared norm of the probe", ""});
  put(group.get(), "breakdown", breakdown, column, {"1 where an invariant subspace was found", ""});
  put(group.get(), "orthogonality_loss", orthogonality, column,
      {"Loss of orthogonality: largest entry of |(Q'Q - I) g|, g random signs", ""});
  attach_scale(group.get(), "probe",
               {"alpha", "beta", "ritz", "weight", "steps_taken", "norm_sq", "breakdown", "orthogonality_loss"}, 0);
  attach_scale(group.get(), "step", {"alpha", "beta", "ritz", "weight"}, 1);
}

void write_sources(hid_t group, const std::string& name, const std::vector<SourceFile>& files) {
  std::vector<std::string> paths, digests;
  for (const auto& file : files) {
    paths.push_back(file.path);
    digests.push_back(file.sha256);
  }
  put(group, name, paths, {"Files of the " + name, ""});
  put(group, name + "_sha256", digests, {"SHA-256 of the files of the " + name, ""});
}

void write_process(hid_t entry, const ProcessInfo& p) {
  const Group group = make_group(entry, "process", "NXprocess");
  const hid_t g = group.get();
  put(g, "program", std::string("hesspect"), {"Program", ""});
  put(g, "version", p.version, {"Version of the program", ""});
  put(g, "date", p.end_time, {"When the result was written, UTC", ""});
  put(g, "git_revision", p.git_revision, {"Git revision of the program's source", ""});
  put(g, "build_type", p.build_type, {"Build type", ""});
  put(g, "torch_version", p.torch_version, {"LibTorch's version", ""});
  put(g, "hdf5_version", p.hdf5_version, {"HDF5's version", ""});
  put(g, "mpi_version", p.mpi_version, {"MPI's version", ""});
  put(g, "run_id", p.run_id, {"The same for all starts of a resumed run", ""});
  put(g, "command", p.command, {"Subcommand", ""});
  put(g, "argv", p.argv, {"Command line", ""});
  put(g, "config", p.config, {"Resolved configuration, ini", ""});
  put(g, "hosts", p.hosts, {"Host of each rank", ""});
  put(g, "ranks", p.ranks, {"MPI ranks", ""});
  put(g, "threads", p.threads, {"Threads a rank", ""});
  put(g, "seed", p.seed, {"Seed of the probes", ""});
  write_sources(g, "model", p.model);
  write_sources(g, "weights", p.weights);
  write_sources(g, "data", p.data);
  put(g, "weights_format", p.weights_format, {"Format of the weights", ""});
  put(g, "model_torch_version", p.model_torch_version, {"PyTorch's version that exported the model", ""});
  put(g, "dtype", p.dtype, {"Type of parameters and vectors", ""});
  put(g, "device", p.device, {"Where the model ran", ""});
  put(g, "distribution", p.distribution, {"Distribution of the probes' entries", ""});
  put(g, "curvature", p.curvature, {"Which matrix", ""});
  put(g, "loss", p.loss_kind, {"Which loss", ""});
  put(g, "start_time", p.start_time, {"Start, UTC", ""});
  put(g, "end_time", p.end_time, {"End, UTC", ""});
}

/// How the run was laid out, and what the plan said it would cost.
void write_layout(hid_t g, const Diagnostics& d) {
  put(g, "groups", d.groups, {"Groups of ranks, each with probes of its own", ""});
  put(g, "data_ranks", d.data_ranks, {"Ranks a group", ""});
  put(g, "lock_step", d.lock_step, {"Probes that a group ran at a time", ""});
  put(g, "basis_dtype", d.basis_dtype, {"Type of the kept Krylov vectors", ""});
  put(g, "basis_memory", d.basis_memory, {"Where the Krylov vectors were kept", ""});
  put(g, "basis_bytes", d.basis_bytes, {"Krylov basis of a rank", "byte"});
  put(g, "micro_batches", d.micro_batches, {"Micro-batches of rank 0", ""});
  put(g, "kept_graphs", d.kept_graphs, {"Micro-batches of rank 0 whose gradient graph was kept between products", ""});
  put(g, "messages_per_step", d.messages_per_step, {"Collectives of a Lanczos step", ""});
  put(g, "message_bytes_per_step", d.message_bytes_per_step, {"Bytes a rank sends in a Lanczos step", "byte"});
  put(g, "starts", d.starts, {"Starts of the run: 1 and as often as it was resumed", ""});
  put(g, "forecast_memory_bytes", d.forecast_memory_bytes, {"Memory forecast, largest of all ranks", "byte"});
  put(g, "forecast_seconds", d.forecast_s, {"Wall time forecast; NaN: none", "s"});
  put(g, "forecast_hvp_seconds", d.forecast_product_s, {"Wall time of one product forecast; NaN: none", "s"});
  put(g, "gradient_seconds", d.gradient_s, {"Wall time of one gradient, warm; NaN: not measured", "s"});
  put(g, "product_share", d.product_share, {"Part of the elapsed time in products; NaN: not measured", ""});
}

void write_diagnostics(hid_t entry, const Diagnostics& d, const std::vector<std::string>& warnings) {
  const Group group = make_group(entry, "diagnostics", "NXcollection");
  const hid_t g = group.get();
  put(g, "symmetry_error", d.symmetry_error,
      {"|u'Hv - v'Hu| / (|u| |Hv| + |v| |Hu|) for two random vectors; NaN: not measured", ""});
  put(g, "orthogonality_loss", d.orthogonality_loss,
      {"Loss of orthogonality: largest entry of |(Q'Q - I) g|, g random signs; NaN: not measured", ""});
  put(g, "hvp_count", d.products, {"Hessian-vector products", ""});
  put(g, "hvp_seconds", d.product_s, {"Wall time in Hessian-vector products", "s"});
  put(g, "communication_seconds", d.communication_s, {"Part of it in collectives, rank 0", "s"});
  put(g, "cost_in_gradients", d.cost_in_gradients, {"Time of a product over the time of a gradient", ""});
  put(g, "elapsed_seconds", d.elapsed_s, {"Wall time of the run", "s"});
  put(g, "loss", d.loss, {"Mean loss", "loss"});
  put(g, "gradient_norm", d.gradient_norm, {"Norm of the gradient of the mean loss", "loss/parameter"});
  put(g, "n_parameters", d.parameters, {"Parameters, tied ones once", ""});
  put(g, "n_rows", d.rows, {"Rows of data", ""});
  put(g, "n_loss_terms", d.loss_terms, {"Terms the mean loss divides by", ""});
  put(g, "micro_batch", d.micro_batch, {"Rows that went through the model at once", ""});
  put(g, "peak_memory_bytes", d.peak_memory_bytes, {"Peak resident memory, largest of all ranks", "byte"});
  put(g, "peak_device_bytes", d.peak_device_bytes, {"Peak GPU memory, largest of all ranks; 0 on the CPU", "byte"});
  write_layout(g, d);
  put(g, "widened_weights", d.widened_weights, {"Weights stored as bfloat16 or float16 and widened", ""});
  put(g, "warnings", warnings, {"Warnings of the run", ""});
}

}  // namespace

void write_result(const std::filesystem::path& path, const RunResult& r) {
  hdf5::MemoryFile file;
  const hid_t root = file.root();
  put_attribute(root, "NX_class", "NXroot");
  put_attribute(root, "default", "entry");
  put_attribute(root, "creator", "hesspect " + r.process.version);
  put_attribute(root, "file_name", path.filename().string());
  put_attribute(root, "file_time", r.process.end_time);
  put_attribute(root, schema::kMark, schema::kVersion);
  {
    const Group entry = make_group(root, "entry", "NXentry");
    const std::string what = r.process.curvature.empty() ? "curvature" : r.process.curvature;
    put_attribute(entry.get(), "default", r.density ? "density" : r.eigenvalues ? "eigenvalues" : "quadrature");
    put(entry.get(), "title", "hesspect " + r.process.command, {"Title", ""});
    put(entry.get(), "start_time", r.process.start_time, {"Start, UTC", ""});
    put(entry.get(), "end_time", r.process.end_time, {"End, UTC", ""});
    if (r.density) write_density(entry.get(), *r.density, what);
    if (r.eigenvalues) write_eigenvalues(entry.get(), *r.eigenvalues, what);
    if (r.trace) write_trace(entry.get(), *r.trace);
    if (!r.quadrature.empty()) write_quadrature(entry.get(), r.quadrature);
    write_process(entry.get(), r.process);
    write_diagnostics(entry.get(), r.diagnostics, r.warnings);
  }
  write_file_atomically(path, file.bytes());
}

}  // namespace hesspect
