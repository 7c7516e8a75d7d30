// What rank 0's dealer and a group's first rank say to each other: a task down the line, a report up it. A kind of task
// or report is a type; messages.cpp writes and reads them, and an unknown one is an error.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "hesspect/run/ledger.h"
#include "hesspect/spectrum/estimates.h"

namespace hesspect {

// --- tasks ---

/// There is nothing to do now, but more may come.
struct Wait {
  static constexpr const char* kName = "wait";
};
/// There is nothing to do any more, for anyone.
struct Done {
  static constexpr const char* kName = "done";
};
/// Lanczos runs to be made in lock-step.
struct RunLanczos {
  static constexpr const char* kName = "lanczos";
  std::vector<std::int64_t> probes;
  std::vector<TraceSample> known;  // of their first products; where probe 0 is among them the symmetry check's too
};
/// Probe 0's Lanczos run again, for its basis: it was finished by an earlier start.
struct RebuildBasis {
  static constexpr const char* kName = "rebuild";
  std::vector<TraceSample> known;
};
/// One product with each of these probes.
struct SampleTrace {
  static constexpr const char* kName = "sample";
  std::vector<std::int64_t> probes;
};
/// Samples to be corrected by probe 0's basis.
struct CorrectSamples {
  static constexpr const char* kName = "correct";
  std::vector<TraceSample> samples;
};
/// A block run or power iterations.
struct SolveEigen {
  static constexpr const char* kName = "eigenvalues";
};
/// Hutch++ or XTrace.
struct EstimateTrace {
  static constexpr const char* kName = "trace";
};
struct WriteDiagonal {
  static constexpr const char* kName = "diagonal";
};

using Task = std::variant<Wait, Done, RunLanczos, RebuildBasis, SampleTrace, CorrectSamples, SolveEigen, EstimateTrace,
                          WriteDiagonal>;

// --- reports ---

/// The group is free. The answer is a task.
struct AskForTask {
  static constexpr const char* kName = "next";
};
/// Nothing but the tally has changed.
struct StillAtWork {
  static constexpr const char* kName = "progress";
};
struct ProbeFinished {
  static constexpr const char* kName = "finished";
  FinishedProbe probe;
};
struct Sampled {
  static constexpr const char* kName = "sample";
  TraceSample sample;
};
struct Corrected {
  static constexpr const char* kName = "corrected";
  std::vector<DeflatedSample> samples;
};
/// Probe 0's basis is there to correct samples by.
struct BasisReady {
  static constexpr const char* kName = "deflation";
  DeflationState deflation;
};
struct TraceEstimated {
  static constexpr const char* kName = "trace";
  TraceEstimate estimate;
};
struct EigenSolved {
  static constexpr const char* kName = "eigenvalues";
  EigenResult result;
};
struct DiagonalWritten {
  static constexpr const char* kName = "diagonal";
};
struct SymmetryMeasured {
  static constexpr const char* kName = "symmetry";
  double error = 0;
  double curvature_scale = 0;
};
/// The group has written a generation of its Lanczos runs.
struct Checkpointed {
  static constexpr const char* kName = "checkpointed";
};
/// The group stops, having been asked to by a signal or the clock: so do the others.
struct Stopping {
  static constexpr const char* kName = "stopping";
};
/// The group failed; the others stop.
struct GroupFailed {
  static constexpr const char* kName = "failed";
  int exit_code = 0;
  std::string message;
};
/// A line for the user.
struct Said {
  static constexpr const char* kName = "said";
  std::string text;
  bool warning = false;
};

using Report = std::variant<AskForTask, StillAtWork, ProbeFinished, Sampled, Corrected, BasisReady, TraceEstimated,
                            EigenSolved, DiagonalWritten, SymmetryMeasured, Checkpointed, Stopping, GroupFailed, Said>;

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
