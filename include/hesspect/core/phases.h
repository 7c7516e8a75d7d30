// Where a run's wall time goes: a clock that is always in one of a few phases.
//
//   Phases phases;                                           // of one thread; starts in Phase::kStart
//   {
//     const PhaseTimer timer(&phases, Phase::kFiles, "rows");  // what the outer phase was doing goes on afterwards
//     ...
//   }
//   phases.seconds()[Phase::kFiles];
//
// An inner phase's time is not the outer one's, so that all of them add up to the time since the clock was made.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <limits>
#include <memory>
#include <string>
#include <vector>

namespace hesspect {

enum class Phase {
  kStart,        // checks, trials, plan, first gradient: all before the first product but files and messages
  kFiles,        // read and written
  kCollectives,  // messages between a group's ranks, waiting for the slowest included
  kKrylov,       // work on vectors between products
  kValues,       // of products, in the sweeps of the tangent program
  kTangents,
  kAdjoints,
  kAdjointTangents,
  kProducts,  // what else products take: all of one by autograd
};
inline constexpr std::size_t kPhases = 9;

/// "start", "files", …: as in the result's `seconds_start`.
std::string name_of(Phase phase);
/// What a result's reader is told of it.
std::string description_of(Phase phase);
std::array<Phase, kPhases> all_phases();

/// NaN: not measured.
struct PhaseSeconds {
  std::array<double, kPhases> of;
  double matrix_products = std::numeric_limits<double>::quiet_NaN();  // part of the four sweeps' seconds

  PhaseSeconds() { of.fill(std::numeric_limits<double>::quiet_NaN()); }
  double& operator[](Phase phase) { return of[static_cast<std::size_t>(phase)]; }
  double operator[](Phase phase) const { return of[static_cast<std::size_t>(phase)]; }
  double total() const;
};

/// What went on when, for a viewer of timelines: so many events at most, and a note where there were more.
class Timeline {
 public:
  using Clock = std::chrono::steady_clock;

  /// @param kind  "phase", or the sweep of an op
  void add(const std::string& name, const std::string& kind, Clock::time_point begin, Clock::time_point end);
  /// In the trace event format of Chrome, which Perfetto (ui.perfetto.dev) opens.
  std::string as_json() const;

 private:
  struct Event {
    std::string name, kind;
    double begin_us, duration_us;
  };

  Clock::time_point start_ = Clock::now();
  std::vector<Event> events_;
  std::size_t left_out_ = 0;
};

class Phases {
 public:
  /// @param timeline  where phases are recorded too; borrowed
  explicit Phases(Timeline* timeline = nullptr) : timeline_(timeline) {
    seconds_.of.fill(0), seconds_.matrix_products = 0;
  }
  Phases(const Phases&) = delete;
  Phases& operator=(const Phases&) = delete;

  /// Until now.
  PhaseSeconds seconds();
  /// Counts seconds of one phase, which must have passed in it, as another's.
  void move(Phase from, Phase to, double seconds);
  void add_matrix_products(double seconds) { seconds_.matrix_products += seconds; }
  Timeline* timeline() const { return timeline_; }

 private:
  friend class PhaseTimer;
  /// @return the phase before
  Phase change(Phase to);

  Timeline* timeline_;
  Phase now_ = Phase::kStart;
  Timeline::Clock::time_point since_ = Timeline::Clock::now();
  PhaseSeconds seconds_;
};

/// A phase for as long as it lives. Does nothing where there is no clock.
class PhaseTimer {
 public:
  /// @param name  of the event in the timeline; empty: the phase's
  PhaseTimer(Phases* phases, Phase phase, const char* name = "");
  ~PhaseTimer();
  PhaseTimer(const PhaseTimer&) = delete;
  PhaseTimer& operator=(const PhaseTimer&) = delete;

 private:
  Phases* phases_;
  const char* name_;
  Phase phase_, outer_ = Phase::kStart;
  Timeline::Clock::time_point begin_;
};

}  // namespace hesspect
