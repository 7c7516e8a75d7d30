#include "hesspect/io/result_file.h"

#include <gtest/gtest.h>
#include <hdf5.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdlib>
#include <fstream>

#include "hesspect/core/errors.h"
#include "hesspect/io/atomic_file.h"

namespace hesspect {
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
  d.messages_per_step = 108;
  d.message_bytes_per_step = 109;
  d.starts = 110;
  d.forecast_memory_bytes = 111;
  d.forecast_s = 0.5;
  d.forecast_product_s = 0.25;
  d.gradient_s = 0.125;
  d.product_share = 0.0625;
}

void expect_same_layout(const Diagnostics& a, const Diagnostics& b) {
  EXPECT_EQ(a.peak_device_bytes, b.peak_device_bytes);
  EXPECT_EQ(a.groups, b.groups);
  EXPECT_EQ(a.data_ranks, b.data_ranks);
  EXPECT_EQ(a.lock_step, b.lock_step);
  EXPECT_EQ(a.basis_dtype, b.basis_dtype);
  EXPECT_EQ(a.basis_memory, b.basis_memory);
  EXPECT_EQ(a.basis_bytes, b.basis_bytes);
  EXPECT_EQ(a.micro_batches, b.micro_batches);
  EXPECT_EQ(a.kept_graphs, b.kept_graphs);
  EXPECT_EQ(a.messages_per_step, b.messages_per_step);
  EXPECT_EQ(a.message_bytes_per_step, b.message_bytes_per_step);
  EXPECT_EQ(a.starts, b.starts);
  EXPECT_EQ(a.forecast_memory_bytes, b.forecast_memory_bytes);
  EXPECT_EQ(a.forecast_s, b.forecast_s);
  EXPECT_EQ(a.forecast_product_s, b.forecast_product_s);
  EXPECT_EQ(a.gradient_s, b.gradient_s);
  EXPECT_EQ(a.product_share, b.product_share);
}

RunResult sample() {
  RunResult r;
  r.density = Density{{-1, 0, 1.5}, {0.1, 0.7, 1e-300}, {0, 0.01, 0.02}, 0.25};
  EigenResult e;
  e.top = {{3.5, 1e-9, true}, {2, 1e-3, false}};
  e.bottom = {{-0.5, 1e-8, true}};
  e.steps = 42;
  e.exhausted = true;
  r.eigenvalues = e;
  r.trace = TraceEstimate{12.5, 0.5, 3};
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
  r.process.command = "analyze";
  r.process.argv = {"hesspect", "analyze", "--model", "modèle.pt2"};
  r.process.config = "seed = 1\n";
  r.process.version = "0.1.0";
  r.process.hosts = {"a", "b"};
  r.process.seed = UINT64_MAX;
  r.process.model = {{"m.pt2", "00ff"}};
  r.process.data = {{"d.h5", "11"}};
  r.process.ranks = 2;
  r.process.curvature = "hessian";
  r.process.start_time = "2026-01-01T00:00:00Z";
  r.process.end_time = "2026-01-01T00:01:00Z";
  r.diagnostics.symmetry_error = std::nan("");
  r.diagnostics.products = 240;
  r.diagnostics.widened_weights = {"w"};
  set_layout(r.diagnostics);
  r.process.run_id = "5eed";
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
  EXPECT_EQ(back.process.hosts, r.process.hosts);
  EXPECT_TRUE(std::isnan(back.diagnostics.symmetry_error));
  EXPECT_EQ(back.diagnostics.products, 240);
  EXPECT_EQ(back.diagnostics.widened_weights, r.diagnostics.widened_weights);
  EXPECT_EQ(back.warnings, r.warnings);
  EXPECT_EQ(back.process.run_id, "5eed");
  expect_same_layout(back.diagnostics, r.diagnostics);
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

/// The schema as its readers see it: h5py, xarray where it is installed, silx where it is installed.
TEST_F(ResultFile, OpensInPython) {
  const char* python = std::getenv("HESSPECT_PYTHON");
  const char* source = std::getenv("HESSPECT_SOURCE");
  if (python == nullptr || source == nullptr) GTEST_SKIP() << "HESSPECT_PYTHON and HESSPECT_SOURCE are not set";
  write_result(folder_ / "r.h5", sample());
  const std::string command =
      std::string(python) + " " + source + "/tests/io/check_schema.py " + (folder_ / "r.h5").string();
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
}  // namespace hesspect
