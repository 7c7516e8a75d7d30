// A group's work: tasks taken from the dealer, run in lock-step, stored in checkpoints, reported.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dealer.h"
#include "goals.h"
#include "hesspect/core/timer.h"
#include "hesspect/io/vectors_file.h"
#include "hesspect/spectrum/deflation.h"
#include "problem.h"
#include "run_checkpoint.h"
#include "stop_signal.h"

namespace hesspect {

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
  /// How vectors are written to a file, by the names of the parameters.
  struct Names {
    std::vector<VectorPart> parts;
    std::string run_id;
  };

  Worker(const Goals& goals, Group& group, Desk& desk, RunCheckpoint& checkpoint, const StopSignal& signal,
         const Clock& clock, int lock_step, Names names);

  /// Two products with the first two of the trace's probes, reported to the dealer. Collective over the group.
  /// @throws InputError where products are so far from symmetric that the results would mean nothing
  void check_symmetry();
  /// Works until nothing is left to do, or the run stops: then what is under way is in a checkpoint. Collective over
  /// the group.
  /// @throws as Lanczos::extend; InputError where the checkpoint of a stopped run cannot be written
  void run();

 private:
  struct Active {
    std::int64_t probe = 0;
    std::unique_ptr<Lanczos> run;
  };
  /// Sums over the trace's probes, for the diagonal.
  struct Diagonal {
    at::Tensor sum, square;  // [chunk], double
    std::int64_t count = 0;
  };

  Assignment next_task();
  void work_on(const Assignment& assignment);
  void perform(const Assignment& assignment);
  void wait();

  // worker_lanczos.cpp
  void lanczos(const Assignment& assignment);
  void begin(const Assignment& assignment);
  void first_steps(const Assignment& assignment);
  TraceSample first_sample(std::int64_t probe);
  std::unique_ptr<Lanczos> start(std::int64_t probe);
  std::int64_t most_rows() const;
  void refine(Lanczos& run);
  void find_all(Lanczos& run);
  void deflate_further(Lanczos& run);
  FinishedProbe carry_out(const Active& active);
  void finish(Active& active);
  void rebuild(const Assignment& assignment);
  void keep_for_deflation(std::unique_ptr<Lanczos> run);
  void measure_and_write(EigenResult& result, const VectorSource& vectors);
  void own_eigenvalues();

  // worker_trace.cpp
  void trace_products(const std::vector<std::int64_t>& probes);
  void correct(const std::vector<TraceSample>& samples);
  void own_trace();
  void add_to_diagonal(const at::Tensor& z, const at::Tensor& hz);
  void write_diagonal();

  at::Tensor probe(std::int64_t number) const;
  at::Tensor gathered(const at::Tensor& local) const;
  void write_vectors(const std::string& path, VectorsInfo info, std::size_t count, const VectorSource& vectors) const;
  void between_products();
  Tally tally() const;

  const Goals& goals_;
  Group& group_;
  Communicator& comm_;
  HessianOperator& op_;
  RunCheckpoint& checkpoint_;
  const StopSignal& signal_;
  Clock clock_;
  Line line_;
  int lock_step_;
  Names names_;
  std::vector<Active> active_;                  // between start and finish
  std::vector<TraceSample> symmetry_samples_;   // for how far probe 0's run is to go
  std::unique_ptr<Lanczos> deflating_;          // probe 0's run, finished
  std::unique_ptr<KrylovDeflation> deflation_;  // by its basis
  Diagonal diagonal_;
  Timer since_report_, since_checkpoint_;
  bool warned_ = false;  // that the last checkpoint could not be written
};

}  // namespace hesspect
