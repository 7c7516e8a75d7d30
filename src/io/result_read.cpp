#include <cmath>

#include "hdf5_tree.h"
#include "hesspect/core/errors.h"
#include "hesspect/io/result_file.h"
#include "result_schema.h"

namespace hesspect {
namespace {

using hdf5::ReadFile;

std::vector<double> column(const ReadFile& file, const std::string& name, std::size_t length) {
  auto values = file.doubles(name);
  if (values.size() != length)
    throw InputError(name + " has " + std::to_string(values.size()) + " entries, not " + std::to_string(length) +
                     ": the result is broken");
  return values;
}

Density read_density(const ReadFile& file) {
  Density d;
  d.lambda = file.doubles("/entry/density/lambda");
  d.density = column(file, "/entry/density/density", d.lambda.size());
  d.density_errors = column(file, "/entry/density/density_errors", d.lambda.size());
  d.sigma = file.real("/entry/density/sigma");
  return d;
}

EigenResult read_eigenvalues(const ReadFile& file) {
  const std::string g = "/entry/eigenvalues/";
  EigenResult e;
  const auto value = file.doubles(g + "eigenvalue");
  const auto residual = column(file, g + "residual", value.size());
  const auto converged = file.integers(g + "converged");
  const auto top = static_cast<std::size_t>(file.integer(g + "n_top"));
  if (converged.size() != value.size() || top > value.size()) throw InputError(g + " has parts of different lengths");
  for (std::size_t i = 0; i < value.size(); ++i)
    (i < top ? e.top : e.bottom).push_back({value[i], residual[i], converged[i] != 0});
  e.steps = file.integer(g + "steps");
  e.converged = file.integer(g + "all_converged") != 0;
  e.exhausted = file.integer(g + "exhausted") != 0;
  return e;
}

std::vector<ProbeQuadrature> read_quadrature(const ReadFile& file) {
  const std::string g = "/entry/quadrature/";
  const auto dims = file.dims(g + "alpha");
  if (dims.size() != 2) throw InputError(g + "alpha is not of the shape [probes, steps]");
  const std::size_t probes = dims[0], steps = dims[1];
  const auto alpha = column(file, g + "alpha", probes * steps), beta = column(file, g + "beta", probes * steps);
  const auto ritz = column(file, g + "ritz", probes * steps), weight = column(file, g + "weight", probes * steps);
  const auto norm_sq = column(file, g + "norm_sq", probes), loss = column(file, g + "orthogonality_loss", probes);
  const auto number = file.integers(g + "probe"), taken = file.integers(g + "steps_taken");
  const auto breakdown = file.integers(g + "breakdown");
  if (number.size() != probes || taken.size() != probes || breakdown.size() != probes)
    throw InputError(g + " has parts of different lengths");
  std::vector<ProbeQuadrature> all(probes);
  for (std::size_t p = 0; p < probes; ++p) {
    if (taken[p] < 1 || static_cast<std::size_t>(taken[p]) > steps) throw InputError(g + "steps_taken is out of range");
    const auto row = [&](const std::vector<double>& table, std::int64_t count) {
      const auto begin = table.begin() + static_cast<std::ptrdiff_t>(p * steps);
      return std::vector<double>(begin, begin + count);
    };
    ProbeQuadrature& q = all[p];
    q.probe = number[p];
    q.alpha = row(alpha, taken[p]);
    q.beta = row(beta, taken[p] - 1);
    q.beta_last = beta[p * steps + static_cast<std::size_t>(taken[p]) - 1];
    q.ritz = row(ritz, taken[p]);
    q.weight = row(weight, taken[p]);
    for (std::size_t i = 0; i < q.ritz.size(); ++i)
      if (!std::isfinite(q.ritz[i]) || !std::isfinite(q.weight[i]))
        throw InputError(g + "ritz and weight hold a value that is not finite: the result is broken");
    q.norm_sq = norm_sq[p];
    q.breakdown = breakdown[p] != 0;
    q.orthogonality_loss = loss[p];
  }
  return all;
}

std::vector<SourceFile> read_sources(const ReadFile& file, const std::string& name) {
  const auto paths = file.strings(name), digests = file.strings(name + "_sha256");
  if (paths.size() != digests.size()) throw InputError(name + " and its SHA-256 have different lengths");
  std::vector<SourceFile> sources;
  for (std::size_t i = 0; i < paths.size(); ++i) sources.push_back({paths[i], digests[i]});
  return sources;
}

ProcessInfo read_process(const ReadFile& file) {
  const std::string g = "/entry/process/";
  ProcessInfo p;
  if (file.has(g + "run_id")) p.run_id = file.text(g + "run_id");  // not in results of version 0.1
  p.version = file.text(g + "version");
  p.git_revision = file.text(g + "git_revision");
  p.build_type = file.text(g + "build_type");
  p.torch_version = file.text(g + "torch_version");
  p.hdf5_version = file.text(g + "hdf5_version");
  p.mpi_version = file.text(g + "mpi_version");
  p.command = file.text(g + "command");
  p.argv = file.strings(g + "argv");
  p.config = file.text(g + "config");
  p.hosts = file.strings(g + "hosts");
  p.ranks = file.integer(g + "ranks");
  p.threads = file.integer(g + "threads");
  p.seed = file.unsigned_integer(g + "seed");
  p.model = read_sources(file, g + "model");
  p.weights = read_sources(file, g + "weights");
  p.data = read_sources(file, g + "data");
  p.weights_format = file.text(g + "weights_format");
  p.model_torch_version = file.text(g + "model_torch_version");
  p.dtype = file.text(g + "dtype");
  p.device = file.text(g + "device");
  p.distribution = file.text(g + "distribution");
  p.curvature = file.text(g + "curvature");
  p.loss_kind = file.text(g + "loss");
  p.start_time = file.text(g + "start_time");
  p.end_time = file.text(g + "end_time");
  return p;
}

/// Results of version 0.1 have none of these: what is not there keeps its default.
void read_layout(const ReadFile& file, const std::string& g, Diagnostics& d) {
  const auto integer = [&](const char* name, std::int64_t& value) {
    if (file.has(g + name)) value = file.integer(g + name);
  };
  const auto real = [&](const char* name, double& value) {
    if (file.has(g + name)) value = file.real(g + name);
  };
  const auto text = [&](const char* name, std::string& value) {
    if (file.has(g + name)) value = file.text(g + name);
  };
  integer("peak_device_bytes", d.peak_device_bytes);
  integer("groups", d.groups);
  integer("data_ranks", d.data_ranks);
  integer("lock_step", d.lock_step);
  text("basis_dtype", d.basis_dtype);
  text("basis_memory", d.basis_memory);
  integer("basis_bytes", d.basis_bytes);
  integer("micro_batches", d.micro_batches);
  integer("kept_graphs", d.kept_graphs);
  integer("messages_per_step", d.messages_per_step);
  integer("message_bytes_per_step", d.message_bytes_per_step);
  integer("starts", d.starts);
  integer("forecast_memory_bytes", d.forecast_memory_bytes);
  real("forecast_seconds", d.forecast_s);
  real("forecast_hvp_seconds", d.forecast_product_s);
  real("gradient_seconds", d.gradient_s);
  real("product_share", d.product_share);
}

Diagnostics read_diagnostics(const ReadFile& file) {
  const std::string g = "/entry/diagnostics/";
  Diagnostics d;
  d.symmetry_error = file.real(g + "symmetry_error");
  d.orthogonality_loss = file.real(g + "orthogonality_loss");
  d.products = file.integer(g + "hvp_count");
  d.product_s = file.real(g + "hvp_seconds");
  d.communication_s = file.real(g + "communication_seconds");
  d.cost_in_gradients = file.real(g + "cost_in_gradients");
  d.elapsed_s = file.real(g + "elapsed_seconds");
  d.loss = file.real(g + "loss");
  d.gradient_norm = file.real(g + "gradient_norm");
  d.parameters = file.integer(g + "n_parameters");
  d.rows = file.integer(g + "n_rows");
  d.loss_terms = file.real(g + "n_loss_terms");
  d.micro_batch = file.integer(g + "micro_batch");
  d.peak_memory_bytes = file.integer(g + "peak_memory_bytes");
  d.widened_weights = file.strings(g + "widened_weights");
  read_layout(file, g, d);
  return d;
}

}  // namespace

RunResult read_result(const std::filesystem::path& path) {
  const ReadFile file(path);
  const auto version = file.root_attribute(schema::kMark);
  if (!version) throw InputError("'" + path.string() + "' is not a result of hesspect");
  if (*version != schema::kVersion)
    throw InputError("'" + path.string() + "' has result layout " + std::to_string(*version) +
                     ", and this version reads layout " + std::to_string(schema::kVersion));
  RunResult r;
  try {
    if (file.has("/entry/density")) r.density = read_density(file);
    if (file.has("/entry/eigenvalues")) r.eigenvalues = read_eigenvalues(file);
    if (file.has("/entry/trace"))
      r.trace = {file.real("/entry/trace/value"), file.real("/entry/trace/stderr"),
                 file.integer("/entry/trace/samples")};
    if (file.has("/entry/quadrature")) r.quadrature = read_quadrature(file);
    r.process = read_process(file);
    r.diagnostics = read_diagnostics(file);
    r.warnings = file.strings("/entry/diagnostics/warnings");
  } catch (const InputError& error) {
    const std::string text = error.what();
    throw InputError(text.starts_with("'") ? text : "'" + path.string() + "': " + text);
  }
  return r;
}

bool is_result(const std::filesystem::path& path) {
  try {
    return ReadFile(path).root_attribute(schema::kMark).has_value();
  } catch (const Error&) {
    return false;
  }
}

}  // namespace hesspect
