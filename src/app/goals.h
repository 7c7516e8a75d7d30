// What a command asks of a run, and to what accuracy: the configuration as the worker and the dealer need it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "hesspect/config/run_config.h"
#include "hesspect/krylov/lanczos.h"
#include "hesspect/spectrum/deflation.h"
#include "hesspect/spectrum/eigenvalues.h"
#include "hesspect/spectrum/probe.h"
#include "hesspect/spectrum/trace.h"
#include "plan.h"

namespace hesspect {

/// Numbers of the probes that are taken for the trace alone, from 0 on, beside the Lanczos runs' own 0, 1, …: the first
/// two are those of the symmetry check. Restarts' begin at 2^63.
inline constexpr std::uint64_t kTraceProbes = std::uint64_t{1} << 62;
inline constexpr std::int64_t kSymmetryProbes = 2;
/// Of the trace's probes that a group may take at a time, whatever the plan says of Lanczos runs: their corrections
/// share a pass over the basis. The plan has room for them.
inline constexpr std::int64_t kTraceTogether = 4;

struct Goals {
  std::string command;  // analyze, density, eigs or trace
  ProbeOptions probe;   // steps: at least

  // Eigenvalues.
  bool eigenvalues = false;  // of probe 0's run
  bool block = false;        // of a block run of its own
  bool power = false;        // of power iterations
  EigenOptions eigen;
  bool true_residuals = false;
  std::string eigenvectors;  // file

  // Density.
  bool density = false;
  double w1 = 0;            // bound over the width of the spectrum; 0: none is asked for
  std::int64_t probes = 0;  // Lanczos runs, at least

  // Trace.
  std::optional<TraceMethod> trace;
  TraceRule rule;
  LayerOffsets layers;   // empty: not asked for
  std::string diagonal;  // file

  double rounding = 0;  // relative, of the trace: 10 ε of the vectors' dtype
  double confidence = 0.9;
  std::int64_t max_products = 0;  // 0: no limit
  std::int64_t max_steps = 0;     // of any Lanczos run
  std::int64_t own_products = 0;  // of Hutch++ or XTrace, at most

  /// Some Lanczos run is to be made.
  bool lanczos() const { return probes > 0; }
  bool samples_trace() const { return trace == TraceMethod::kDeflated || trace == TraceMethod::kHutchinson; }
  bool own_trace_method() const { return trace == TraceMethod::kHutchPlusPlus || trace == TraceMethod::kXTrace; }
  /// Products that are left for the trace's own probes, of those used elsewhere.
  std::int64_t products_left(std::int64_t used) const;
};

/// @param offsets     of the parameter tensors, as in LayerOffsets
/// @param parameters  n
Goals goals_of(const RunConfig& config, const std::string& command, const Plan& plan, const LayerOffsets& offsets,
               std::int64_t parameters);

/// Lanczos runs that a command makes, at least: none for what uses vectors of its own.
std::int64_t lanczos_runs(const RunConfig& config, const std::string& command);

}  // namespace hesspect
