#include "hdf5_tree.h"
#include "hesspect/core/errors.h"
#include "hesspect/io/result_file.h"
#include "result_estimates.h"
#include "result_schema.h"

namespace hesspect {
namespace {

using hdf5::ReadFile;

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
  if (file.has(g + "weights_changes")) {  // not in older results
    p.weights_changes = file.strings(g + "weights_changes");
    p.weights_not_covered = file.strings(g + "weights_not_covered");
  }
  p.model_torch_version = file.text(g + "model_torch_version");
  p.dtype = file.text(g + "dtype");
  p.device = file.text(g + "device");
  p.distribution = file.text(g + "distribution");
  p.curvature = file.text(g + "curvature");
  p.loss_kind = file.text(g + "loss");
  if (file.has(g + "reduction")) p.reduction = file.text(g + "reduction");
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
  integer("unit_rows", d.unit_rows);
  text("row_check", d.row_check);
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

ProductCount read_products(const ReadFile& file) {
  const std::string g = "/entry/diagnostics/products/";
  ProductCount c;
  c.symmetry = file.integer(g + "symmetry");
  c.first_probe = file.integer(g + "first_probe");
  c.density = file.integer(g + "density");
  c.trace = file.integer(g + "trace");
  c.eigenvalues = file.integer(g + "eigenvalues");
  c.residuals = file.integer(g + "residuals");
  c.surplus = file.integer(g + "surplus");
  return c;
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
  if (*version < 1 || *version > schema::kVersion)
    throw InputError("'" + path.string() + "' has result layout " + std::to_string(*version) +
                     ", and this version reads layouts 1 to " + std::to_string(schema::kVersion));
  RunResult r;
  try {
    read_estimates(file, r);
    r.process = read_process(file);
    r.diagnostics = read_diagnostics(file);
    if (file.has("/entry/diagnostics/products")) r.counts = read_products(file);
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
