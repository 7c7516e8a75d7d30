// What rank 0's dealer and a group's first rank say to each other: a task down the line, a report up it. A kind of task
// or report is a type; messages.cpp writes and reads them, and an unknown one is an error.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "hesspect/run/ledger.h"
#include "hesspect/run/sources.h"
#include "hesspect/spectrum/estimates.h"

namespace hesspect {

// --- tasks ---

struct Wait {};  // there is nothing to do now, but more may come
struct Done {};  // there is nothing to do any more, for anyone
/// Lanczos runs to be made in lock-step.
struct RunLanczos {
  std::vector<std::int64_t> probes;
  std::vector<TraceSample> known;  // of their first products; where probe 0 is among them the symmetry check's too
};
/// Probe 0's Lanczos run again, for its basis: it was finished by an earlier start.
struct RebuildBasis {
  std::vector<TraceSample> known;
};
/// One product with each of these probes.
struct SampleTrace {
  std::vector<std::int64_t> probes;
};
/// Samples to be corrected by probe 0's basis.
struct CorrectSamples {
  std::vector<TraceSample> samples;
};
struct SolveEigen {};     // by a block run or power iterations
struct EstimateTrace {};  // by Hutch++ or XTrace
struct WriteDiagonal {};
/// Eigenvalues, trace and density of a diagonal block: one of the goals' parts.
struct AnalyseBlock {
  std::int64_t part = 0;
};

using Task = std::variant<Wait, Done, RunLanczos, RebuildBasis, SampleTrace, CorrectSamples, SolveEigen, EstimateTrace,
                          WriteDiagonal, AnalyseBlock>;
constexpr std::array<const char*, 10> names_of(const Task&) {
  return {"wait", "done", "lanczos", "rebuild", "sample", "correct", "eigenvalues", "trace", "diagonal", "block"};
}

// --- reports ---

struct AskForTask {};   // the group is free; the answer is a task
struct StillAtWork {};  // nothing but the tally has changed
struct ProbeFinished {
  FinishedProbe probe;
};
struct Sampled {
  TraceSample sample;
};
struct Corrected {
  std::vector<DeflatedSample> samples;
};
/// Probe 0's basis is there to correct samples by.
struct BasisReady {
  DeflationState deflation;
};
struct TraceEstimated {
  TraceEstimate estimate;
};
struct EigenSolved {
  EigenResult result;
};
struct DiagonalWritten {};
struct BlockAnalysed {
  FinishedBlock block;
};
struct SymmetryMeasured {
  double error = 0;
  double curvature_scale = 0;
};
/// The ranks of the group have hashed their shares of the run's files.
struct Hashed {
  std::vector<FileDigest> digests;
};
struct Checkpointed {};  // the group has written a generation of its Lanczos runs
struct Stopping {};      // it stops, having been asked to by a signal or the clock: so do the others
/// The others stop too.
struct GroupFailed {
  int exit_code = 0;
  std::string message;
};
/// A line for the user.
struct Said {
  std::string text;
  bool warning = false;
};

using Report =
    std::variant<AskForTask, StillAtWork, ProbeFinished, Sampled, Corrected, BasisReady, TraceEstimated, EigenSolved,
                 DiagonalWritten, BlockAnalysed, SymmetryMeasured, Hashed, Checkpointed, Stopping, GroupFailed, Said>;
constexpr std::array<const char*, 16> names_of(const Report&) {
  return {"next",     "progress", "finished", "sample", "corrected",    "deflation", "trace",  "eigenvalues",
          "diagonal", "block",    "symmetry", "hashed", "checkpointed", "stopping",  "failed", "said"};
}

/// A report on its way.
struct Message {
  int group = 0;
  std::optional<Tally> tally;
  Report report;
};
/// What comes back.
struct Reply {
  bool stop = false;  // the group is to write down what is under way, and to stop
  // What to do next, where that was asked for and the run does not stop.
  Task task;
};

std::string to_text(const Message& message);
std::string to_text(const Reply& reply);
/// @throws InputError for text that is no message, or an unknown one
Message message_from(const std::string& text);
Reply reply_from(const std::string& text);

}  // namespace hesspect
