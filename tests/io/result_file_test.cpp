#include "hesspect/io/result_file.h"

#include <gtest/gtest.h>
#include <hdf5.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <fstream>

#include "hesspect/core/errors.h"
#include "hesspect/io/atomic_file.h"

namespace hesspect::result_file_test {
namespace {

namespace fs = std::filesystem;

/// A folder of its own, removed at the end.
class ResultFile : public ::testing::Test {
 protected:
  ResultFile() {
    std::string name = (fs::temp_directory_path() / "hesspect_io_XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~ResultFile() override { fs::remove_all(folder_); }
  std::size_t files() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }
  fs::path folder_;
};

/// All different, so that no two can be mixed up. Python's checks know them.
void set_layout(Diagnostics& d) {
  d.peak_device_bytes = 101;
  d.groups = 102;
  d.data_ranks = 103;
  d.lock_step = 104;
  d.basis_dtype = "bfloat16";
  d.basis_memory = "host";
  d.basis_bytes = 105;
  d.micro_batches = 106;
  d.kept_graphs = 107;
  d.cuda_graphs = 112;
  d.messages_per_step = 108;
  d.message_bytes_per_step = 109;
  d.starts = 110;
  d.forecast_memory_bytes = 111;
  d.forecast_s = 0.5;
  d.forecast_product_s = 0.25;
  d.gradient_s = 0.125;
  d.product_share = 0.0625;
  d.phases[Phase::kKrylov] = 0.375;
  d.phases.matrix_products = 0.03125;
}

CumulativeDensity sample_cumulative() {
  CumulativeDensity c;
  c.lambda = {-1, 0, 3};
  c.cumulative = {0.25, 0.75, 1};
  c.lower = {0.125, 0.5, 1};
  c.upper = {0.375, 1, 1};
  c.confidence = 0.95;
  c.band = "jackknife";
  c.probes = 4;
  c.converged = false;
  c.w1 = 0.75;
  c.w1_sampling = 0.5;
  c.w1_quadrature = 0.25;
  c.range_lo = -1.5;
  c.range_hi = 3.5;
  c.exact_points = 2.5;
  c.zero_width = 1e-6;
  c.weight_at_zero = {0.5, 0.0625};
  c.negative_mass = {0.25, 0.03125};
  c.moments = {{1, 0.1}, {2, 0.2}, {3, 0.3}, {4, std::nan("")}};
  return c;
}

BlocksResult sample_blocks() {
  BlockResult a;
  a.name = "layer1.0 (a)";
  a.parameters = 100;
  a.tensors = {"a.weight", "a.bias"};
  EigenResult e;
  e.top = {{3, 1e-9, 2e-9, 0.5, true}};
  e.bottom = {{-1, 1e-9, 2e-9, 0.25, true}};
  a.eigenvalues = e;
  a.trace = TraceEstimate{50, 2, 3, 0.9, 6, 6, 40, 7, "deflated", true};
  a.norm_sq = {9, 1};
  a.cumulative = sample_cumulative();
  a.density = Density{{-1, 0, 1.5}, {0.1, 0.7, 0.2}, {0, 0.01, 0.02}, 0.25};
  ProbeQuadrature q;
  q.alpha = q.ritz = {7};
  q.weight = {1};
  a.quadrature = {q};
  a.products = 120;
  a.product_s = 0.5;
  BlockResult b;  // of 'trace'
  b.name = "b";
  b.parameters = 4;
  b.trace = TraceEstimate{8, 0, 0, 0.9, 0, 0, 8, 4, "exact", true};
  BlocksResult blocks;
  blocks.each = {a, b};
  blocks.rest = 90;
  blocks.norm_sq = {16, 2};
  blocks.off_block_share = {0.25, 0.125};
  blocks.js_distance = {{0, 0.75}, {0.75, 0}};
  blocks.js_error = {{0, 0.0625}, {0.0625, 0}};
  blocks.js_lower = {{0, 0.5}, {0.5, 0}};
  blocks.js_upper = {{0, 0.875}, {0.875, 0}};
  blocks.js_mean = 0.75;
  blocks.js_mean_lower = 0.5;
  blocks.js_sigma = 0.03125;
  return blocks;
}

DataError sample_data_error() {
  DataError e;
  e.groups = {{10, 10, 9}, {0.25, 0.5, 0.25}, {0.5, 1, 0.25}};
  e.confidence = 0.95;
  e.loss_value = 1.75;
  e.loss = {0.125, 1.5, 2};
  e.trace = {0.5, 49, 51};
  e.trace_from = "eigenvectors and probes";
  e.trace_of_group = {50, 49, 52};
  const double nan = std::nan("");
  e.eigenvalues = {{{0.25, 2, 4}, 0.0625, {3, 3.5, 2.5}}, {{nan, nan, nan}, nan, {nan, nan, nan}}};
  e.layers = {{0.5, 1, 2}, {0.25, -1, 1}};
  return e;
}

FeaturesResult sample_features() {
  FeatureResult table;
  table.name = "film.weight";
  table.kind = "table";
  table.tensors = {"film.weight"};
  table.parameters = 30;
  table.in_use = 12;
  table.look_ups = 9;
  table.rows = 7;
  table.nested = true;
  table.largest = {3, 1e-9};
  table.trace = 6;
  table.trace_half_width = 0.5;
  table.norm = 2;
  table.changes = {{0.25, 0.125, 0.75, 0.5, 0.5, 0.0625, 0.75, 1, true},
                   {2, std::nan(""), 3, std::nan(""), 3, 4, 5, std::nan(""), false}};
  table.products = 40;
  table.product_s = 0.5;
  table.converged = false;
  FeatureResult bias;  // of which the data tell no frequency
  bias.name = "bias";
  bias.kind = "tensors";
  bias.tensors = {"a.bias", "b.bias"};
  bias.parameters = bias.in_use = 4;
  bias.largest = {1, 0};
  bias.trace = 2;
  bias.trace_half_width = 0;
  bias.norm = 1;
  bias.changes = {{0.5, 0.5, 0.5, 0, 0.5, 0, 0.5, 0.5}, {1, 1, 1, 0, 1, 0, 1, 1}};
  FeaturesResult f;
  f.each = {table, bias};
  f.rho = {0.125, 1};
  f.draws = 8;
  f.loss = 0.5;
  f.rounding = 1e-16;
  f.data_rows = 14;
  f.correlations = {{"frequency and largest eigenvalue", {0.5, -0.25, 0.75, 6}, ""}, {"other", {}, "too few features"}};
  return f;
}

Landscape sample_landscape() {
  Landscape l;
  l.directions = {{"eigenvector of 3", 1, 0.5, 3, -1, 1, 0.25, 0.5, 1, std::numeric_limits<double>::infinity()},
                  {"random 0", 2, -0.5, 1, -2, 2, 0, 0.125, 0.5, 0.75}};
  l.loss_at_start = 1.5;
  l.cross = 0.0625;
  l.alpha = {-1, 0, 1};
  l.beta = {-2, 2};
  l.loss = {{4, 5}, {2, 3}, {std::nan(""), 6}};
  l.quadratic = {{4, 4}, {2, 2}, {5, 5}};
  l.rounding = 1e-7;
  return l;
}

Sharpness sample_sharpness() {
  Sharpness s;
  s.loss = 1.5;
  s.gradient_norm = 0.5;
  s.parameter_norm = 20;
  s.lambda_1 = 3;
  s.lambda_1_error = 1e-9;
  s.ascents = {{0.05, false, 0.1, 0.2, 0.025}, {0.5, true, 0.3, std::nan(""), 0.25}};
  s.steps = {{"gradient descent", 0.625, 0.9, 1.1, 0.91, 1.12}};
  s.adam.emplace();
  s.adam->lambda_1 = 40;
  s.adam->steps = {{"Adam", 0.95, 0.9, 1.1, 0.91, 1.12}};
  s.adam->step_most = 17;
  s.adam->file = "adam.pt";
  s.blocks.emplace();
  s.blocks->each = {{"a", 12, 3, 1e-9, 2.0 / 3, 0.9, 1.1, 40, 1e-8, 0.95, 0.91, 1.12, true, 30},
                    BlockSteps{.name = "b", .parameters = 2, .converged = false}};
  s.information.emplace();
  s.information->fisher_rao = 3.5;
  s.information->empirical_over_fisher = {1.5, 1.25, 1.75};
  s.information->samples = 10;
  s.flatness = RelativeFlatness{"", "head.weight", 4, 8, {2, 1, 3}, 0.9, 10};
  s.critical = {0.75, 2.5, 2.25};
  s.basin = {0.15, {0.5, std::numeric_limits<double>::infinity()}};
  return s;
}

InputSharpness sample_inputs() {
  InputSharpness inputs;
  inputs.variables = {"x", "embedding_1"};
  inputs.dimensions = 12;
  inputs.direction = "gradient";
  inputs.most_products = 9;
  inputs.confidence = 0.95;
  inputs.rows = {{0, 0.5, 1.5, 2, 0.1, -3, 0.2, true, 0.25, 4}, InputRow{.row = 1}};
  inputs.fragile = {inputs.rows[0]};
  inputs.quantiles = {{0.5, {1, 0.5, 2}, {3, 2.5, 4}, {5, 4.5, 6}, {7, 6.5, 8}}};
  return inputs;
}

InitialDistance sample_initial() {
  InitialDistance initial;
  initial.files = {"start.safetensors"};
  initial.sha256 = {"abc"};
  initial.layers = {{"a.weight", 6, 1.5, {2.25, 0.5}}, {"a.bias", 94, 2}};
  initial.distance = 2.5;
  initial.weighted_trace = {7, 0.25};
  initial.half_width = 0.5;
  initial.confidence = 0.95;
  initial.samples = 3;
  return initial;
}

RunResult sample() {
  RunResult r;
  r.density = Density{{-1, 0, 1.5}, {0.1, 0.7, 1e-300}, {0, 0.01, 0.02}, 0.25};
  EigenResult e;
  e.top = {{3.5, 1e-9, 2e-9, 1e-17, true}, {2, 1e-3, std::nan(""), 1e-3, false}};
  e.bottom = {{-0.5, 1e-8, 3e-8, 4e-8, true}};
  e.steps = 42;
  e.residual_products = 3;
  e.thick_restarts = 1;
  e.exhausted = true;
  r.eigenvalues = e;
  r.trace = TraceEstimate{12.5, 0.5, 0.9, 0.95, 3, 2, 10, 7, "deflated", false};
  r.samples = {{0, 2, 4.5, {}}, {5, 3, 8, {}}, {9, 2.5, 7, {}}};  // their mean and the captured part are the trace
  r.cumulative = sample_cumulative();
  r.layers = {{"a.weight", 100, {10, 1}}, {"a.bias", 94, {2.5, std::nan("")}}};
  r.counts = {2, 80, 40, 5, 6, 3, 1};
  ProbeQuadrature a;
  a.probe = 0;
  a.alpha = {1, 2, 3};
  a.beta = {0.5, 0.25};
  a.beta_last = 0.125;
  a.ritz = {0.9, 2, 3.1};
  a.weight = {0.5, 0.25, 0.25};
  a.norm_sq = 194;
  a.orthogonality_loss = 1e-15;
  ProbeQuadrature b;  // broke down after one step
  b.probe = 5;
  b.alpha = {7};
  b.beta_last = 0;
  b.ritz = {7};
  b.weight = {1};
  b.norm_sq = 194;
  b.breakdown = true;
  r.quadrature = {a, b};
  r.blocks = sample_blocks();
  r.data_error = sample_data_error();
  r.features = sample_features();
  r.process.selected = {"a.weight", "a.bias"};
  r.diagnostics.model_parameters = 1000;
  r.process.command = "analyze";
  r.process.argv = {"hesspect", "analyze", "--model", "modèle.pt2"};
  r.process.config = "seed = 1\n";
  r.process.version = "0.1.0";
  r.process.hosts = {"a", "b"};
  r.process.seed = UINT64_MAX;
  r.process.model = {{"m.pt2", "00ff"}};
  r.process.data = {{"d.h5", "11"}};
  r.process.weights_changes = {"'module.' taken off its names"};
  r.process.weights_not_covered = {"a", "b"};
  r.process.ranks = 2;
  r.process.curvature = "hessian";
  r.process.start_time = "2026-01-01T00:00:00Z";
  r.process.end_time = "2026-01-01T00:01:00Z";
  r.diagnostics.symmetry_error = std::nan("");
  r.diagnostics.products = 240;
  r.diagnostics.widened_weights = {"w"};
  set_layout(r.diagnostics);
  r.process.run_id = "5eed";
  r.inputs = sample_inputs();
  r.landscape = sample_landscape();
  r.sharpness = sample_sharpness();
  r.initial = sample_initial();
  r.quality.emplace();
  r.quality->own.file = "train.h5";
  r.quality->other.file = "test.h5";
  r.quality->other.accuracy = {0.75, 0.5, 0.875};
  r.quality->gap = {0.5, 0.25, 0.75};
  r.warnings = {"one", "two"};
  return r;
}

TEST_F(ResultFile, ReadsBackTheSame) {
  const RunResult r = sample();
  write_result(folder_ / "r.h5", r);
  EXPECT_EQ(files(), 1u);
  EXPECT_TRUE(is_result(folder_ / "r.h5"));
  const RunResult back = read_result(folder_ / "r.h5");
  EXPECT_EQ(back.density->lambda, r.density->lambda);
  EXPECT_EQ(back.density->density, r.density->density);
  EXPECT_EQ(back.density->density_errors, r.density->density_errors);
  EXPECT_EQ(back.density->sigma, 0.25);
  ASSERT_EQ(back.eigenvalues->top.size(), 2u);
  ASSERT_EQ(back.eigenvalues->bottom.size(), 1u);
  EXPECT_EQ(back.eigenvalues->top[1].value, 2);
  EXPECT_FALSE(back.eigenvalues->top[1].converged);
  EXPECT_EQ(back.eigenvalues->bottom[0].residual, 1e-8);
  EXPECT_EQ(back.eigenvalues->steps, 42);
  EXPECT_TRUE(back.eigenvalues->exhausted);
  EXPECT_EQ(back.trace->value, 12.5);
  EXPECT_EQ(back.trace->samples, 3);
  EXPECT_TRUE(std::isnan(back.eigenvalues->top[1].true_residual));
  EXPECT_EQ(back.eigenvalues->bottom[0].true_residual, 3e-8);
  EXPECT_EQ(back.eigenvalues->bottom[0].error, 4e-8);
  EXPECT_TRUE(back.eigenvalues->bottom[0].converged && back.eigenvalues->magnitude.empty());
  EXPECT_EQ(back.eigenvalues->residual_products, 3);
  EXPECT_EQ(back.eigenvalues->thick_restarts, 1);
  EXPECT_EQ(back.eigenvalues->method, "lanczos");
  ASSERT_EQ(back.quadrature.size(), 2u);
  for (std::size_t p = 0; p < 2; ++p) {
    EXPECT_EQ(back.quadrature[p].probe, r.quadrature[p].probe);
    EXPECT_EQ(back.quadrature[p].alpha, r.quadrature[p].alpha);
    EXPECT_EQ(back.quadrature[p].beta, r.quadrature[p].beta);
    EXPECT_EQ(back.quadrature[p].beta_last, r.quadrature[p].beta_last);
    EXPECT_EQ(back.quadrature[p].ritz, r.quadrature[p].ritz);
    EXPECT_EQ(back.quadrature[p].weight, r.quadrature[p].weight);
    EXPECT_EQ(back.quadrature[p].breakdown, r.quadrature[p].breakdown);
  }
  EXPECT_EQ(back.process.argv, r.process.argv);
  EXPECT_EQ(back.process.seed, UINT64_MAX);
  EXPECT_EQ(back.process.model[0].sha256, "00ff");
  EXPECT_TRUE(back.process.weights.empty());
  EXPECT_EQ(back.process.weights_changes, r.process.weights_changes);
  EXPECT_EQ(back.process.weights_not_covered, r.process.weights_not_covered);
  EXPECT_EQ(back.process.hosts, r.process.hosts);
  EXPECT_TRUE(std::isnan(back.diagnostics.symmetry_error));
  EXPECT_EQ(back.diagnostics.products, 240);
  EXPECT_EQ(back.diagnostics.widened_weights, r.diagnostics.widened_weights);
  EXPECT_EQ(back.warnings, r.warnings);
  EXPECT_EQ(back.process.run_id, "5eed");
}

TEST_F(ResultFile, TraceLayersAndCumulativeReadBackTheSame) {
  const RunResult r = sample();
  write_result(folder_ / "r.h5", r);
  const RunResult back = read_result(folder_ / "r.h5");
  const TraceEstimate& t = back.trace.value();
  EXPECT_EQ(t.standard_error, 0.5);
  EXPECT_EQ(t.half_width, 0.9);
  EXPECT_EQ(t.confidence, 0.95);
  EXPECT_EQ(t.products, 2);
  EXPECT_EQ(t.captured, 10);
  EXPECT_EQ(t.deflated, 7);
  EXPECT_EQ(t.method, "deflated");
  EXPECT_FALSE(t.converged);
  ASSERT_EQ(back.samples.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(back.samples[i].probe, r.samples[i].probe);
    EXPECT_EQ(back.samples[i].quadratic_form, r.samples[i].quadratic_form);
    EXPECT_EQ(back.samples[i].product_norm_sq, r.samples[i].product_norm_sq);
  }
  const CumulativeDensity &c = back.cumulative.value(), expected = sample_cumulative();
  EXPECT_EQ(c.lambda, expected.lambda);
  EXPECT_EQ(c.cumulative, expected.cumulative);
  EXPECT_EQ(c.lower, expected.lower);
  EXPECT_EQ(c.upper, expected.upper);
  EXPECT_EQ(c.band, "jackknife");
  EXPECT_EQ(c.probes, 4);
  EXPECT_FALSE(c.converged);
  EXPECT_EQ((std::vector<double>{c.confidence, c.w1, c.w1_sampling, c.w1_quadrature, c.range_lo, c.range_hi,
                                 c.exact_points, c.zero_width, c.weight_at_zero.value, c.weight_at_zero.standard_error,
                                 c.negative_mass.value, c.negative_mass.standard_error}),
            (std::vector<double>{0.95, 0.75, 0.5, 0.25, -1.5, 3.5, 2.5, 1e-6, 0.5, 0.0625, 0.25, 0.03125}));
  ASSERT_EQ(c.moments.size(), 4u);
  EXPECT_EQ(c.moments[2].value, 3);
  EXPECT_EQ(c.moments[2].standard_error, 0.3);
  EXPECT_TRUE(std::isnan(c.moments[3].standard_error));
  ASSERT_EQ(back.layers.size(), 2u);
  EXPECT_EQ(back.layers[0].name, "a.weight");
  EXPECT_EQ(back.layers[1].size, 94);
  EXPECT_EQ(back.layers[0].trace.value, 10);
  EXPECT_EQ(back.layers[0].trace.standard_error, 1);
  EXPECT_TRUE(std::isnan(back.layers[1].trace.standard_error));
  const ProductCount& p = back.counts;
  EXPECT_EQ(
      (std::vector<std::int64_t>{p.symmetry, p.first_probe, p.density, p.trace, p.eigenvalues, p.residuals, p.surplus}),
      (std::vector<std::int64_t>{2, 80, 40, 5, 6, 3, 1}));
}

TEST_F(ResultFile, InputsReadBackTheSame) {
  const RunResult r = sample();
  const InputSharpness inputs = sample_inputs();
  write_result(folder_ / "r.h5", r);
  const InputSharpness back = read_result(folder_ / "r.h5").inputs.value();
  EXPECT_EQ(back.variables, inputs.variables);
  EXPECT_EQ(back.dimensions, 12);
  EXPECT_EQ(back.direction, "gradient");
  EXPECT_EQ(back.most_products, 9);
  EXPECT_EQ(back.confidence, 0.95);
  ASSERT_EQ(back.rows.size(), 2u);
  const InputRow& row = back.rows[0];
  EXPECT_EQ((std::vector<double>{row.loss, row.gradient_norm, row.largest, row.largest_error, row.magnitude,
                                 row.magnitude_error, row.step, row.change}),
            (std::vector<double>{0.5, 1.5, 2, 0.1, -3, 0.2, 0.25, 4}));
  EXPECT_TRUE(row.converged);
  EXPECT_EQ(back.rows[1].row, 1);
  EXPECT_TRUE(std::isnan(back.rows[1].magnitude));
  ASSERT_EQ(back.fragile.size(), 1u);
  EXPECT_EQ(back.fragile[0].magnitude, -3);
  ASSERT_EQ(back.quantiles.size(), 1u);
  EXPECT_EQ(back.quantiles[0].gradient_norm.lower, 0.5);
  EXPECT_EQ(back.quantiles[0].magnitude.value, 5);
  EXPECT_EQ(back.quantiles[0].change.upper, 8);
  EXPECT_FALSE(read_result(folder_ / "r.h5").density->lambda.empty());
}

TEST_F(ResultFile, LargestMagnitudesStandAlone) {
  RunResult r = sample();
  r.eigenvalues->top.clear();
  r.eigenvalues->bottom.clear();
  r.eigenvalues->magnitude = {{-4, 0.1, 0.2, 0.3, true}, {3.5, 0.4, 0.5, 0.6, false}};
  r.eigenvalues->method = "power";
  write_result(folder_ / "r.h5", r);
  const EigenResult back = read_result(folder_ / "r.h5").eigenvalues.value();
  EXPECT_TRUE(back.top.empty() && back.bottom.empty());
  ASSERT_EQ(back.magnitude.size(), 2u);
  EXPECT_EQ(back.magnitude[0].value, -4);
  EXPECT_EQ(back.magnitude[1].error, 0.6);
  EXPECT_EQ(back.method, "power");
}

void set_layout_version(const fs::path& path, std::int64_t version) {
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  const hid_t attribute = H5Aopen(file, "hesspect_schema", H5P_DEFAULT);
  EXPECT_GE(H5Awrite(attribute, H5T_NATIVE_INT64, &version), 0);
  H5Aclose(attribute);
  H5Fclose(file);
}

/// Layout 1, the results of version 0.1: what they lack keeps its default or says that it is not known.
TEST_F(ResultFile, TheFirstLayoutIsRead) {
  write_result(folder_ / "r.h5", sample());
  const hid_t file = H5Fopen((folder_ / "r.h5").c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  const auto drop = [&](const std::string& group, const std::vector<std::string>& names) {
    for (const auto& name : names)
      ASSERT_GE(H5Ldelete(file, ("/entry/" + group + name).c_str(), H5P_DEFAULT), 0) << name;
  };
  drop("", {"cumulative", "layers", "diagnostics/products"});
  drop("eigenvalues/",
       {"which", "true_residual", "error", "n_magnitude", "method", "residual_products", "thick_restarts"});
  drop("trace/", {"half_width", "confidence", "products", "captured", "deflated", "method", "converged", "sample",
                  "sample_probe", "sample_product_norm_sq"});
  H5Fclose(file);
  set_layout_version(folder_ / "r.h5", 1);
  const RunResult back = read_result(folder_ / "r.h5");
  EXPECT_FALSE(back.cumulative.has_value());
  EXPECT_TRUE(back.layers.empty() && back.samples.empty());
  EXPECT_EQ(back.counts.first_probe, 0);
  EXPECT_EQ(back.eigenvalues->top.at(0).residual, 1e-9);
  EXPECT_EQ(back.eigenvalues->top.at(0).error, 1e-9);  // the residual bounds it
  EXPECT_TRUE(std::isnan(back.eigenvalues->top.at(0).true_residual));
  EXPECT_EQ(back.eigenvalues->bottom.at(0).value, -0.5);
  EXPECT_EQ(back.trace->value, 12.5);
  EXPECT_EQ(back.trace->standard_error, 0.5);
  EXPECT_EQ(back.trace->method, "hutchinson");
  EXPECT_TRUE(std::isnan(back.trace->half_width));
  set_layout_version(folder_ / "r.h5", 4);
  EXPECT_THROW(read_result(folder_ / "r.h5"), InputError);
}

/// Version 0.1 wrote none of what tells the layout of a run: its results are read with the defaults.
TEST_F(ResultFile, ResultsWithoutALayoutAreRead) {
  write_result(folder_ / "r.h5", sample());
  const hid_t file = H5Fopen((folder_ / "r.h5").c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  for (const char* name :
       {"peak_device_bytes", "groups", "data_ranks", "lock_step", "basis_dtype", "basis_memory", "basis_bytes",
        "micro_batches", "kept_graphs", "messages_per_step", "message_bytes_per_step", "starts",
        "forecast_memory_bytes", "forecast_seconds", "forecast_hvp_seconds", "gradient_seconds", "product_share"})
    ASSERT_GE(H5Ldelete(file, (std::string("/entry/diagnostics/") + name).c_str(), H5P_DEFAULT), 0) << name;
  ASSERT_GE(H5Ldelete(file, "/entry/process/run_id", H5P_DEFAULT), 0);
  H5Fclose(file);
  EXPECT_THROW(read_result(folder_ / "r.h5"), InputError);  // newer ones have it
  set_layout_version(folder_ / "r.h5", 1);
  const RunResult back = read_result(folder_ / "r.h5");
  EXPECT_EQ(back.process.run_id, "");
  EXPECT_EQ(back.diagnostics.groups, 1);
  EXPECT_EQ(back.diagnostics.starts, 1);
  EXPECT_EQ(back.diagnostics.basis_dtype, "");
  EXPECT_TRUE(std::isnan(back.diagnostics.forecast_s) && std::isnan(back.diagnostics.product_share));
  EXPECT_EQ(back.diagnostics.products, 240);
}

TEST_F(ResultFile, WhatWasNotAskedForIsNotThere) {
  RunResult r = sample();
  r.density.reset();
  r.quadrature.clear();
  r.trace.reset();
  r.warnings.clear();
  write_result(folder_ / "r.h5", r);
  const RunResult back = read_result(folder_ / "r.h5");
  EXPECT_FALSE(back.density || back.trace);
  EXPECT_TRUE(back.quadrature.empty() && back.warnings.empty());
  EXPECT_TRUE(back.eigenvalues.has_value());
}

/// A run for eigenvalues that restarts thick has no quadrature, but the norm of what was left: that overran the table.
TEST_F(ResultFile, AProbeWithoutStepsIsWritten) {
  RunResult r = sample();
  r.quadrature = {ProbeQuadrature{}};
  r.quadrature[0].beta_last = 0.5;
  write_result(folder_ / "r.h5", r);
  const hid_t file = H5Fopen((folder_ / "r.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  const hid_t set = H5Dopen2(file, "/entry/quadrature/beta", H5P_DEFAULT), space = H5Dget_space(set);
  std::array<hsize_t, 2> dims{7, 7};
  EXPECT_EQ(H5Sget_simple_extent_dims(space, dims.data(), nullptr), 2);
  EXPECT_EQ(dims, (std::array<hsize_t, 2>{1, 0}));
  H5Sclose(space);
  H5Dclose(set);
  H5Fclose(file);
}

/// Overwrites the entries of a dataset of doubles.
void overwrite(const fs::path& path, const char* name, const std::vector<double>& values) {
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT), set = H5Dopen2(file, name, H5P_DEFAULT);
  EXPECT_GE(H5Dwrite(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
  H5Dclose(set);
  H5Fclose(file);
}

/// The page of `inspect` went along the grid without an end.
TEST_F(ResultFile, GridsThatDoNotAscendAreRefused) {
  for (const char* name : {"/entry/density/lambda", "/entry/cumulative/lambda"})
    for (const double wrong : {-2.0, std::nan(""), HUGE_VAL}) {
      write_result(folder_ / "r.h5", sample());
      std::vector<double> grid = read_result(folder_ / "r.h5").density->lambda;
      grid.at(1) = wrong;
      overwrite(folder_ / "r.h5", name, grid);
      EXPECT_THROW(read_result(folder_ / "r.h5"), InputError) << name << " " << wrong;
    }
}

/// Replaces a dataset by one of texts of variable length, as layouts 1 and 2 have them.
void make_variable(hid_t file, const std::string& name, const std::vector<const char*>& texts, bool scalar) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, H5T_VARIABLE);
  const hsize_t count = texts.size();
  const hid_t space = scalar ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &count, nullptr);
  ASSERT_GE(H5Ldelete(file, name.c_str(), H5P_DEFAULT), 0) << name;
  const hid_t set = H5Dcreate2(file, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  ASSERT_GE(H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, texts.data()), 0) << name;
  H5Dclose(set);
  H5Sclose(space);
  H5Tclose(type);
}

TEST_F(ResultFile, TextsOfVariableLengthAreRead) {
  write_result(folder_ / "r.h5", sample());
  const hid_t file = H5Fopen((folder_ / "r.h5").c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  make_variable(file, "/entry/process/config", {"a longer text\nof two lines"}, true);
  make_variable(file, "/entry/process/argv", {"hesspect", "", "modèle.pt2"}, false);
  H5Fclose(file);
  const RunResult back = read_result(folder_ / "r.h5");
  EXPECT_EQ(back.process.config, "a longer text\nof two lines");
  EXPECT_EQ(back.process.argv, (std::vector<std::string>{"hesspect", "", "modèle.pt2"}));
}

/// A list of no text, empty texts, and one that ends in what fills up the others.
TEST_F(ResultFile, TextsReadBackTheSame) {
  RunResult r = sample();
  for (const std::vector<std::string>& texts :
       {std::vector<std::string>{}, {""}, {"", ""}, {"a", "", "bcd ef "}, {std::string(5000, 'x'), "é"}}) {
    r.warnings = texts;
    r.process.config = texts.empty() ? "" : texts[0];
    write_result(folder_ / "r.h5", r);
    const RunResult back = read_result(folder_ / "r.h5");
    EXPECT_EQ(back.warnings, texts);
    EXPECT_EQ(back.process.config, r.process.config);
  }
}

struct Layouts {
  int arrays = 0, unchecked = 0, variable = 0;
};

herr_t look(hid_t root, const char* name, const H5L_info_t*, void* out) {
  const hid_t object = H5Oopen(root, name, H5P_DEFAULT);
  if (H5Iget_type(object) == H5I_DATASET) {
    auto& layouts = *static_cast<Layouts*>(out);
    const hid_t creation = H5Dget_create_plist(object), space = H5Dget_space(object), type = H5Dget_type(object);
    if (H5Sget_simple_extent_ndims(space) > 0 && H5Sget_simple_extent_npoints(space) > 0) {
      ++layouts.arrays;
      unsigned flags = 0;
      if (H5Pget_filter_by_id2(creation, H5Z_FILTER_FLETCHER32, &flags, nullptr, nullptr, 0, nullptr, nullptr) < 0)
        ++layouts.unchecked;
    }
    layouts.variable += H5Tdetect_class(type, H5T_VLEN) > 0 || H5Tis_variable_str(type) > 0 ? 1 : 0;
    H5Tclose(type);
    H5Sclose(space);
    H5Pclose(creation);
  }
  H5Oclose(object);
  return 0;
}

/// A byte that changes in a text of variable length ended the process within HDF5, and one in an array told nothing.
TEST_F(ResultFile, ArraysHaveChecksumsAndTextsAFixedLength) {
  write_result(folder_ / "r.h5", sample());
  Layouts layouts;
  const hid_t file = H5Fopen((folder_ / "r.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  ASSERT_GE(H5Lvisit(file, H5_INDEX_NAME, H5_ITER_NATIVE, look, &layouts), 0);
  const hid_t set = H5Dopen2(file, "/entry/eigenvalues/eigenvalue", H5P_DEFAULT);
  haddr_t at = 0;
  hsize_t bytes = 0, offset = 0;
  unsigned filters = 0;
  const hid_t whole = H5Dget_space(set);
  ASSERT_GE(H5Dget_chunk_info(set, whole, 0, &offset, &filters, &at, &bytes), 0);
  H5Sclose(whole);
  H5Dclose(set);
  H5Fclose(file);
  EXPECT_GT(layouts.arrays, 30);
  EXPECT_EQ(layouts.unchecked, 0);
  EXPECT_EQ(layouts.variable, 0);
  std::fstream out(folder_ / "r.h5", std::ios::in | std::ios::out | std::ios::binary);
  out.seekp(static_cast<std::streamoff>(at) + 3);
  out.put('\x55');
  out.close();
  try {
    read_result(folder_ / "r.h5");
    ADD_FAILURE() << "a changed eigenvalue was read";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("/entry/eigenvalues/eigenvalue cannot be read"), std::string::npos)
        << error.what();
  }
}

/// A size that is not true took a gigabyte before HDF5 found that the values are not there.
TEST_F(ResultFile, MoreEntriesThanTheFileCanHoldAreRefused) {
  write_result(folder_ / "r.h5", sample());
  const hid_t file = H5Fopen((folder_ / "r.h5").c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  const char* name = "/entry/density/lambda";
  ASSERT_GE(H5Ldelete(file, name, H5P_DEFAULT), 0);
  const hsize_t huge = hsize_t{1} << 27;
  const hid_t space = H5Screate_simple(1, &huge, nullptr), creation = H5Pcreate(H5P_DATASET_CREATE);
  const hsize_t chunk = 1024;
  H5Pset_chunk(creation, 1, &chunk);  // none of which is there
  H5Dclose(H5Dcreate2(file, name, H5T_IEEE_F64LE, space, H5P_DEFAULT, creation, H5P_DEFAULT));
  H5Pclose(creation);
  H5Sclose(space);
  H5Fclose(file);
  try {
    read_result(folder_ / "r.h5");
    ADD_FAILURE() << "it was read";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("more entries than a file of this size can hold"), std::string::npos)
        << error.what();
  }
}

/// The schema as its readers see it: h5py, xarray where it is installed, silx where it is installed.
TEST_F(ResultFile, LandscapesAndStepsComeBack) {
  const RunResult r = sample();
  write_result(folder_ / "r.h5", r);
  const RunResult back = read_result(folder_ / "r.h5");
  const Landscape &l = *r.landscape, &found = *back.landscape;
  EXPECT_EQ(found.alpha, l.alpha);
  EXPECT_EQ(found.beta, l.beta);
  ASSERT_EQ(found.loss.size(), 3u);
  EXPECT_EQ(found.loss[1], l.loss[1]);
  EXPECT_TRUE(std::isnan(found.loss[2][0]));
  EXPECT_EQ(found.quadratic, l.quadratic);
  ASSERT_EQ(found.directions.size(), 2u);
  EXPECT_EQ(found.directions[1].name, "random 0");
  EXPECT_EQ(found.directions[1].bend, 1);
  EXPECT_TRUE(std::isinf(found.directions[0].valid_above_fails));
  EXPECT_EQ(found.cross, l.cross);
  const DataError& e = *back.data_error;
  EXPECT_EQ(e.groups.rows, r.data_error->groups.rows);
  EXPECT_EQ(e.groups.share, r.data_error->groups.share);
  EXPECT_EQ(e.groups.loss, r.data_error->groups.loss);
  EXPECT_EQ(e.trace_of_group, r.data_error->trace_of_group);
  EXPECT_EQ(e.trace.upper, 51);
  EXPECT_EQ(e.loss_value, 1.75);
  EXPECT_EQ(e.trace_from, r.data_error->trace_from);
  ASSERT_EQ(e.eigenvalues.size(), 2u);
  EXPECT_EQ(e.eigenvalues[0].bias, 0.0625);
  EXPECT_EQ(e.eigenvalues[0].interval.lower, 2);
  EXPECT_EQ(e.eigenvalues[0].of_group, r.data_error->eigenvalues[0].of_group);
  EXPECT_FALSE(e.eigenvalues[1].interval.known());
  ASSERT_EQ(e.layers.size(), 2u);
  EXPECT_EQ(e.layers[1].lower, -1);
  EXPECT_EQ(back.blocks->js_upper, r.blocks->js_upper);
  EXPECT_EQ(back.blocks->js_mean_lower, 0.5);
  const Sharpness& s = *back.sharpness;
  ASSERT_EQ(s.ascents.size(), 2u);
  EXPECT_TRUE(s.ascents[1].adaptive);
  EXPECT_EQ(s.ascents[0].eigenvector, 0.2);
  EXPECT_EQ(s.steps.at(0).optimizer, "gradient descent");
  EXPECT_EQ(s.steps.at(0).expected_above, 1.12);
  EXPECT_EQ(s.adam->lambda_1, 40);
  EXPECT_EQ(s.adam->steps.at(0).above, 1.1);
  EXPECT_EQ(s.adam->step_most, 17);
  EXPECT_EQ(s.adam->file, "adam.pt");
  ASSERT_EQ(s.blocks->each.size(), 2u);
  EXPECT_EQ(s.blocks->each[0].step, 2.0 / 3);
  EXPECT_EQ(s.blocks->each[0].adam_rate, 0.95);
  EXPECT_EQ(s.blocks->each[0].adam_growth_above, 1.12);
  EXPECT_TRUE(std::isnan(s.blocks->each[1].lambda_1));
  EXPECT_FALSE(s.blocks->each[1].converged);
  EXPECT_EQ(s.information->fisher_rao, 3.5);
  EXPECT_EQ(s.information->empirical_over_fisher.upper, 1.75);
  EXPECT_TRUE(std::isnan(s.information->trace.value));
  EXPECT_EQ(s.flatness->layer, "head.weight");
  EXPECT_EQ(s.flatness->value.lower, 1);
  EXPECT_EQ(back.quality->own.file, "train.h5");
  EXPECT_EQ(back.quality->other.accuracy.upper, 0.875);
  EXPECT_EQ(back.quality->gap.lower, 0.25);
  EXPECT_TRUE(std::isnan(back.quality->own.ece.value));
  EXPECT_EQ(s.critical.sharpness, 2.5);
  EXPECT_EQ(s.basin.radius, r.sharpness->basin.radius);
  EXPECT_EQ(s.lambda_1_error, 1e-9);
  const InitialDistance& initial = *back.initial;
  EXPECT_EQ(initial.files, r.initial->files);
  ASSERT_EQ(initial.layers.size(), 2u);
  EXPECT_EQ(initial.layers[0].name, "a.weight");
  EXPECT_EQ(initial.layers[0].distance, 1.5);
  EXPECT_EQ(initial.layers[0].weighted.standard_error, 0.5);
  EXPECT_TRUE(std::isnan(initial.layers[1].weighted.value));
  EXPECT_EQ(initial.weighted_trace.value, 7);
  EXPECT_EQ(initial.half_width, 0.5);
  EXPECT_EQ(initial.samples, 3);
}

TEST_F(ResultFile, FeaturesComeBack) {
  const RunResult r = sample();
  write_result(folder_ / "r.h5", r);
  const RunResult back = read_result(folder_ / "r.h5");
  const FeaturesResult &f = *r.features, &found = *back.features;
  ASSERT_EQ(found.each.size(), 2u);
  EXPECT_EQ(found.rho, f.rho);
  const FeatureResult &a = f.each[0], &b = found.each[0];
  EXPECT_EQ(b.name, a.name);
  EXPECT_EQ(b.in_use, a.in_use);
  EXPECT_EQ(b.look_ups, a.look_ups);
  EXPECT_TRUE(b.nested);
  EXPECT_FALSE(b.converged);
  EXPECT_EQ(b.largest.standard_error, a.largest.standard_error);
  EXPECT_EQ(b.trace_half_width, a.trace_half_width);
  ASSERT_EQ(b.changes.size(), 2u);
  EXPECT_EQ(b.changes[0].predicted_half_width, 0.0625);
  EXPECT_EQ(b.changes[0].along, 1);
  EXPECT_EQ(b.changes[0].lower, 0.125);
  EXPECT_EQ(b.changes[0].upper, 0.75);
  EXPECT_EQ(b.changes[0].skewness, 0.5);
  EXPECT_TRUE(std::isnan(b.changes[1].lower));
  EXPECT_EQ(b.changes[1].largest, 5);
  EXPECT_EQ(found.each[1].tensors, (std::vector<std::string>{"a.bias, b.bias"}));
  EXPECT_TRUE(std::isnan(found.each[1].rows));
  EXPECT_EQ(found.frequency(b), 0.5);
  ASSERT_EQ(found.correlations.size(), 2u);
  EXPECT_EQ(found.correlations[0].found.lower, -0.25);
  EXPECT_EQ(found.correlations[0].found.count, 6);
  EXPECT_EQ(found.correlations[1].missing, "too few features");
  RunResult without = sample();  // without --feature-rho
  without.features->rho.clear();
  for (FeatureResult& one : without.features->each) one.changes.clear();
  write_result(folder_ / "w.h5", without);
  EXPECT_TRUE(read_result(folder_ / "w.h5").features->each[0].changes.empty());
}

TEST_F(ResultFile, OpensInPython) {
  const char* python = std::getenv("HESSPECT_PYTHON");
  const char* source = std::getenv("HESSPECT_SOURCE");
  if (python == nullptr || source == nullptr) GTEST_SKIP() << "HESSPECT_PYTHON and HESSPECT_SOURCE are not set";
  const fs::path path = folder_ / "r.h5", again = folder_ / "again.h5";
  write_result(path, sample());
  write_result(again, read_result(path));
  const std::string command =
      std::string(python) + " " + source + "/tests/io/check_schema.py " + path.string() + " " + again.string();
  EXPECT_EQ(std::system(command.c_str()), 0);
}

std::string write_error(const fs::path& path) {
  try {
    write_result(path, sample());
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

/// A disk that is full: a limit on file sizes makes write() fail in the same place.
TEST_F(ResultFile, FullDiskLeavesNothingBehind) {
  std::ofstream(folder_ / "r.h5") << "earlier";
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  rlimit small = before;
  small.rlim_cur = 5000;
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string error = write_error(folder_ / "r.h5");
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(error, "cannot write '" + (folder_ / "r.h5").string() + "': File too large");
  EXPECT_EQ(files(), 1u);
  std::string content;
  std::ifstream(folder_ / "r.h5") >> content;
  EXPECT_EQ(content, "earlier");
}

TEST_F(ResultFile, FoldersThatCannotBeWritten) {
  EXPECT_NE(write_error("/proc/r.h5"), "");
  EXPECT_NE(write_error(folder_ / "none" / "r.h5"), "");
  std::ofstream(folder_ / "file") << "x";
  EXPECT_NE(write_error(folder_ / "file" / "r.h5"), "");
  EXPECT_THROW(check_output("/proc/r.h5", false), InputError);
  EXPECT_THROW(check_output(folder_ / "none" / "r.h5", false), InputError);
  EXPECT_THROW(check_output(folder_ / "file" / "r.h5", false), InputError);
  EXPECT_THROW(check_output(folder_, true), InputError);
  EXPECT_THROW(check_output(folder_ / "", true), InputError);
  EXPECT_THROW(check_output(folder_ / "file", false), UsageError);
  EXPECT_NO_THROW(check_output(folder_ / "file", true));
  EXPECT_THROW(check_output("/dev/null", true), InputError);
  EXPECT_NO_THROW(check_output(folder_ / "new", false));
  EXPECT_EQ(files(), 1u);
}

TEST_F(ResultFile, OtherFilesAreNoResults) {
  EXPECT_THROW(read_result(folder_ / "none.h5"), InputError);
  EXPECT_THROW(read_result(folder_), InputError);
  std::ofstream(folder_ / "text") << "no HDF5";
  EXPECT_THROW(read_result(folder_ / "text"), InputError);
  EXPECT_FALSE(is_result(folder_ / "text"));
  H5Fclose(H5Fcreate((folder_ / "other.h5").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT));
  EXPECT_THROW(read_result(folder_ / "other.h5"), InputError);
  EXPECT_FALSE(is_result(folder_ / "other.h5"));
  write_result(folder_ / "r.h5", sample());
  fs::resize_file(folder_ / "r.h5", fs::file_size(folder_ / "r.h5") / 2);
  EXPECT_THROW(read_result(folder_ / "r.h5"), InputError);
}

}  // namespace
}  // namespace hesspect::result_file_test
