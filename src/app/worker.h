// A group's work: probes taken from the dealer, run in lock-step, stored in checkpoints, reported.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "dealer.h"
#include "hesspect/config/options.h"
#include "hesspect/core/timer.h"
#include "hesspect/spectrum/eigenvalues.h"
#include "hesspect/spectrum/probe.h"
#include "plan.h"
#include "problem.h"
#include "run_checkpoint.h"
#include "stop_signal.h"

namespace hesspect {

/// What is asked of the probes.
struct ProbeWork {
  std::string command;  // analyze, density, eigs or trace
  ProbeOptions probe;
  EigenOptions eigen;
  bool eigenvalues = false;  // of probe 0
};

ProbeWork probe_work(const RunConfig& config, const std::string& command, const Plan& plan);

struct Symmetry {
  double error = 0;            // |u·Hv − v·Hu| / (‖u‖ ‖Hv‖ + ‖v‖ ‖Hu‖)
  double curvature_scale = 0;  // mean of ‖Hv‖ / ‖v‖ and ‖Hu‖ / ‖u‖: the scale of H
};

class Worker {
 public:
  /// When a group is to stop or to write a checkpoint by itself.
  struct Clock {
    double checkpoint_every_s = 0;  // 0: never
    double stop_after_s = 0;        // of since_start; 0: never
    Timer since_start;
  };

  Worker(const ProbeWork& work, Group& group, Desk& desk, RunCheckpoint& checkpoint, const StopSignal& signal,
         const Clock& clock, int lock_step);

  /// Two products with Gaussian vectors, reported to the dealer. Collective over the group.
  /// @throws InputError where products are so far from symmetric that the results would mean nothing
  void check_symmetry();
  /// Works until no probe is left, or the run stops: then what is under way is in a checkpoint. Collective over the
  /// group.
  /// @throws as Lanczos::extend; InputError where the checkpoint of a stopped run cannot be written
  void run();
  /// Until no group has work any more, heeding signals. Collective over the group.
  void wait_for_the_others();

 private:
  struct Active {
    std::int64_t probe = 0;
    std::unique_ptr<Lanczos> run;
  };

  std::vector<std::int64_t> next_probes();
  void work_on(const std::vector<std::int64_t>& probes);
  std::unique_ptr<Lanczos> start(std::int64_t probe);
  void finish(Active& active);
  void between_products();
  Tally tally() const;

  const ProbeWork& work_;
  Group& group_;
  Communicator& comm_;
  HessianOperator& op_;
  RunCheckpoint& checkpoint_;
  const StopSignal& signal_;
  Clock clock_;
  Line line_;
  int lock_step_;
  std::vector<Active> active_;  // between start and finish
  Timer since_report_, since_checkpoint_;
  bool warned_ = false;  // that the last checkpoint could not be written
};

}  // namespace hesspect
