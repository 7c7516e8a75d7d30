#include "hdf5_tree.h"
#include "hesspect/io/atomic_file.h"
#include "hesspect/io/result_file.h"
#include "result_estimates.h"
#include "result_schema.h"

namespace hesspect {
namespace {

using hdf5::Group;
using hdf5::make_group;
using hdf5::put;
using hdf5::put_attribute;

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
  put(g, "weights_changes", p.weights_changes, {"What was done to make the weights' names fit", ""});
  put(g, "weights_not_covered", p.weights_not_covered, {"Names that kept what the model had", ""});
  put(g, "model_torch_version", p.model_torch_version, {"PyTorch's version that exported the model", ""});
  put(g, "dtype", p.dtype, {"Type of parameters and vectors", ""});
  put(g, "device", p.device, {"Where the model ran", ""});
  put(g, "distribution", p.distribution, {"Distribution of the probes' entries", ""});
  put(g, "curvature", p.curvature, {"Which matrix", ""});
  put(g, "loss", p.loss_kind, {"Which loss", ""});
  put(g, "reduction", p.reduction, {"Of the loss over all its terms: mean or sum", ""});
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

/// What the products were taken for, and in brackets what else they served.
void write_products(hid_t diagnostics, const ProductCount& c) {
  const Group group = make_group(diagnostics, "products", "NXcollection");
  const hid_t g = group.get();
  put(g, "symmetry", c.symmetry, {"Products for the symmetry error (trace)", ""});
  put(g, "first_probe", c.first_probe,
      {"Products of the first probe's Lanczos run (eigenvalues, density, deflation of the trace)", ""});
  put(g, "density", c.density, {"Products of the other probes' Lanczos runs (their first ones: trace, layers)", ""});
  put(g, "trace", c.trace, {"Products for the trace and the layers alone", ""});
  put(g, "eigenvalues", c.eigenvalues, {"Products of block Lanczos or power iterations", ""});
  put(g, "residuals", c.residuals, {"Products for true residuals", ""});
  put(g, "surplus", c.surplus, {"Products under way in other groups when the accuracy was met", ""});
  put(g, "total", c.symmetry + c.first_probe + c.density + c.trace + c.eigenvalues + c.residuals + c.surplus,
      {"All of these products", ""});
}

std::string default_plot(const RunResult& r) {
  if (r.density) return "density";
  if (r.eigenvalues) return "eigenvalues";
  return r.quadrature.empty() && !r.layers.empty() ? "layers" : "quadrature";
}

void write_diagnostics(hid_t entry, const RunResult& r) {
  const Diagnostics& d = r.diagnostics;
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
  put(g, "unit_rows", d.unit_rows, {"Rows that belong together and were never parted", ""});
  put(g, "row_check", d.row_check, {"How it is known that the loss is a sum over rows", ""});
  put(g, "peak_memory_bytes", d.peak_memory_bytes, {"Peak resident memory, largest of all ranks", "byte"});
  put(g, "peak_device_bytes", d.peak_device_bytes, {"Peak GPU memory, largest of all ranks; 0 on the CPU", "byte"});
  write_layout(g, d);
  put(g, "widened_weights", d.widened_weights, {"Weights stored as bfloat16 or float16 and widened", ""});
  write_products(g, r.counts);
  put(g, "warnings", r.warnings, {"Warnings of the run", ""});
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
    put_attribute(entry.get(), "default", default_plot(r));
    put(entry.get(), "title", "hesspect " + r.process.command, {"Title", ""});
    put(entry.get(), "start_time", r.process.start_time, {"Start, UTC", ""});
    put(entry.get(), "end_time", r.process.end_time, {"End, UTC", ""});
    write_estimates(entry.get(), r, what);
    write_process(entry.get(), r.process);
    write_diagnostics(entry.get(), r);
  }
  write_file_atomically(path, file.bytes());
}

}  // namespace hesspect
